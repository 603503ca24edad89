"""An editor without a window: speaks the language server protocol with a `diffcode lsp` process, and times it."""

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

AUTOMATIC, INVOKED = 2, 1  # InlineCompletionTriggerKind since 3.18
SERVER = (sys.executable, "-m", "diffcode", "lsp", "--stdio")
CAPABILITIES = {
    "general": {"positionEncodings": ["utf-32"]},
    "textDocument": {"inlineCompletion": {}, "codeAction": {"tagSupport": {"valueSet": [1]}}},
}
PATIENCE = 300.0  # seconds; the first suggestion waits for the model to be loaded


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and how long it took."""

    result: Any
    error: Mapping[str, Any] | None
    seconds: float


@dataclass(slots=True)
class _Asked:
    sent: float
    there: threading.Event = field(default_factory=threading.Event)
    reply: Reply | None = None


class EditorProcess:
    """A running server with this editor at its other end; a context manager. Counts characters as Python does."""

    def __init__(self, command: Sequence[str] = SERVER):
        environment = {**os.environ, "PYTHONSAFEPATH": "1"}
        self.server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        self._numbers = itertools.count(1)
        self._asked: dict[int, _Asked] = {}
        self._writing = threading.Lock()
        self._versions: dict[str, int] = {}
        self.strays = 0  # answers beyond the one that each question is owed
        threading.Thread(target=self._listen, daemon=True).start()
        self.ask("initialize", {"processId": os.getpid(), "rootUri": None, "capabilities": CAPABILITIES})
        self.tell("initialized", {})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None and self.server.poll() is None:
                self.ask("shutdown", None)
                self.tell("exit", None)
                self.server.wait(10)
        finally:
            self.server.kill()
            self.server.wait()

    # ---- messages

    def tell(self, method: str, params: Any) -> None:
        self._send({"jsonrpc": "2.0", "method": method, "params": params})

    def begin(self, method: str, params: Any) -> int:
        """Send a request; `end` waits for its answer."""
        number = next(self._numbers)
        self._asked[number] = _Asked(time.perf_counter())
        self._send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        return number

    def end(self, number: int, seconds: float = PATIENCE) -> Reply:
        """The answer to a request. Raises TimeoutError."""
        asked = self._asked[number]
        if not asked.there.wait(seconds):
            raise TimeoutError(f"the server left request {number} unanswered for {seconds:.0f} s")
        del self._asked[number]
        assert asked.reply is not None
        return asked.reply

    def cancel(self, number: int) -> None:
        self.tell("$/cancelRequest", {"id": number})

    def ask(self, method: str, params: Any, seconds: float = PATIENCE) -> Reply:
        return self.end(self.begin(method, params), seconds)

    def _send(self, message: Mapping[str, Any]) -> None:
        body = json.dumps(message).encode()
        assert self.server.stdin is not None
        with self._writing:
            self.server.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
            self.server.stdin.flush()

    def _listen(self) -> None:
        stream = self.server.stdout
        assert stream is not None
        while header := stream.readline():
            if not header.startswith(b"Content-Length:"):
                continue
            length = int(header.split(b":")[1])
            stream.readline()
            message = json.loads(stream.read(length))
            now = time.perf_counter()
            if "method" in message:
                self._answer(message)
            elif (asked := self._asked.get(message["id"])) is None or asked.reply is not None:
                self.strays += 1
            else:
                asked.reply = Reply(message.get("result"), message.get("error"), now - asked.sent)
                asked.there.set()

    def _answer(self, message: Mapping[str, Any]) -> None:
        if "id" in message:  # no setting of its own, every edit and progress is welcome
            wanted = message["params"].get("items", []) if message["method"] == "workspace/configuration" else None
            self._send({"jsonrpc": "2.0", "id": message["id"], "result": wanted and [None] * len(wanted)})

    # ---- documents

    def open(self, uri: str, text: str, language: str = "python") -> None:
        self._versions[uri] = 1
        item = {"uri": uri, "languageId": language, "version": 1, "text": text}
        self.tell("textDocument/didOpen", {"textDocument": item})

    def insert(self, uri: str, line: int, column: int, text: str) -> None:
        self._versions[uri] += 1
        place = {"line": line, "character": column}
        change = {"range": {"start": place, "end": place}, "text": text}
        document = {"uri": uri, "version": self._versions[uri]}
        self.tell("textDocument/didChange", {"textDocument": document, "contentChanges": [change]})

    def close(self, uri: str) -> None:
        self.tell("textDocument/didClose", {"textDocument": {"uri": uri}})

    def begin_suggestion(self, uri: str, line: int, column: int, kind: int = AUTOMATIC) -> int:
        place = {"line": line, "character": column}
        params = {"textDocument": {"uri": uri}, "position": place, "context": {"triggerKind": kind}}
        return self.begin("textDocument/inlineCompletion", params)

    def cursor(self, uri: str, line: int, column: int) -> Reply:
        """What an editor with a light bulb asks wherever the cursor comes to rest."""
        place = {"line": line, "character": column}
        context = {"diagnostics": [], "triggerKind": AUTOMATIC}
        where = {"textDocument": {"uri": uri}, "range": {"start": place, "end": place}}
        return self.ask("textDocument/codeAction", where | {"context": context})

    def command(self, name: str) -> Any:
        return self.ask("workspace/executeCommand", {"command": name, "arguments": []}).result


def items(reply: Reply) -> list[dict[str, Any]]:
    """The suggestions of an answer."""
    result = reply.result
    found = result.get("items", []) if isinstance(result, dict) else result or []
    return list(found)


def applied(text: str, item: Mapping[str, Any]) -> str:
    """`text` after a suggestion was accepted; its line ends are line feeds."""
    starts = [0, *itertools.accumulate(len(line) for line in text.splitlines(keepends=True))]
    start, end = (starts[at["line"]] + at["character"] for at in (item["range"]["start"], item["range"]["end"]))
    return text[:start] + str(item["insertText"]) + text[end:]


def uri_of(path: Path) -> str:
    return path.resolve().as_uri()
