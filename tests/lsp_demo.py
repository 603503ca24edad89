"""A server with features for tests; as a script it serves standard input and output."""

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from diffcode.errors import ModelUnavailable
from diffcode.lsp import logs, params, runner
from diffcode.lsp.client import Client
from diffcode.lsp.document import Document
from diffcode.lsp.endpoint import RequestHandler
from diffcode.lsp.feature import CommandHandler, Feature
from diffcode.lsp.messages import BadParams
from diffcode.lsp.server import Server
from diffcode.lsp.settings import Settings


class Demo(Feature):
    """One handler of each kind."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def capabilities(self, client: Client) -> dict[str, Any]:
        given: dict[str, Any] = {}
        if client.supports("textDocument.inlineCompletion"):
            given["inlineCompletionProvider"] = True
        if client.supports("textDocument.codeAction.codeActionLiteralSupport"):
            resolve = client.lists("textDocument.codeAction.resolveSupport.properties", "edit")
            given["codeActionProvider"] = {"codeActionKinds": ["quickfix"], "resolveProvider": resolve}
        return given

    def requests(self) -> Mapping[str, RequestHandler]:
        return {
            "demo/echo": self.echo,
            "demo/text": self.text,
            "demo/sleep": self.sleep,
            "demo/stubborn": self.stubborn,
            "demo/fail": self.fail,
            "demo/bad": self.bad,
            "demo/unavailable": self.unavailable,
            "demo/noJson": self.no_json,
            "demo/spin": self.spin,
            "demo/print": self.print,
            "demo/thread": self.thread,
            "demo/log": self.log,
        }

    def commands(self) -> Mapping[str, CommandHandler]:
        return {"demo.count": self.count}

    async def echo(self, given: dict[str, Any]) -> Any:
        return given

    async def text(self, given: dict[str, Any]) -> Any:
        snapshot = self.server.documents.snapshot(params.uri(given))
        return snapshot and {"text": str(snapshot), "version": snapshot.version, "lines": snapshot.text.lines}

    async def sleep(self, given: dict[str, Any]) -> Any:
        self.calls.append("begun")
        await asyncio.sleep(given.get("seconds", 60))
        return "slept"

    async def stubborn(self, _given: dict[str, Any]) -> Any:
        """Does not let itself be cancelled."""
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.2)
        return "too late"

    async def fail(self, given: dict[str, Any]) -> Any:
        raise RuntimeError(given.get("text"))

    async def bad(self, given: dict[str, Any]) -> Any:
        return params.position(given).json()

    async def unavailable(self, _given: dict[str, Any]) -> Any:
        raise ModelUnavailable("no model here: run diffcode pull")

    async def no_json(self, _given: dict[str, Any]) -> Any:
        return {"a": {1, 2}}

    async def spin(self, given: dict[str, Any]) -> Any:
        """Python code that holds the interpreter's lock, in a thread of its own, as a model's would."""
        stop = threading.Event()

        def work() -> None:
            end = time.monotonic() + given["seconds"]
            while time.monotonic() < end and not stop.is_set():
                sum(range(200))

        try:
            await asyncio.get_running_loop().run_in_executor(None, work)
        finally:
            stop.set()
        return "spun"

    async def print(self, _given: dict[str, Any]) -> Any:
        print("a library's chatter", flush=True)
        return None

    async def thread(self, _given: dict[str, Any]) -> Any:
        """A thread that never ends."""
        threading.Thread(target=time.sleep, args=(3600,)).start()
        return None

    async def log(self, _given: dict[str, Any]) -> Any:
        log = logging.getLogger("diffcode.demo")
        log.warning("from the loop")
        await asyncio.to_thread(log.error, "from a thread")

    async def count(self, arguments: list[Any]) -> Any:
        return len(arguments)

    def opened(self, document: Document) -> None:
        self.calls.append(("opened", document.version))

    def changed(self, document: Document) -> None:
        self.calls.append(("changed", document.version))

    def closed(self, document: Document) -> None:
        self.calls.append(("closed", document.version))

    def settings_changed(self, old: Settings, new: Settings) -> None:
        self.calls.append(("settings", old.max_tokens, new.max_tokens))

    async def stop(self) -> None:
        self.calls.append("stopped")


class Wrong(Feature):
    """Fails wherever it can."""

    def capabilities(self, client: Client) -> dict[str, Any]:
        raise ValueError("secret")

    def opened(self, document: Document) -> None:
        raise ValueError("secret")

    def settings_changed(self, old: Settings, new: Settings) -> None:
        raise BadParams("secret")


if __name__ == "__main__":
    logs.configure(None, None)
    sys.exit(asyncio.run(runner.serve_stdio(lambda inlet, outlet: Server(inlet, outlet, [Demo()]))))
