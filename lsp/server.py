"""One connection's server: from `initialize` to `exit`, and what features build on in between."""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum, auto
from typing import Any

from diffcode.lsp import logs, params
from diffcode.lsp.client import Client
from diffcode.lsp.configuration import Configuration
from diffcode.lsp.endpoint import Endpoint, Inlet, NotificationHandler, Outlet, blame
from diffcode.lsp.feature import CommandHandler, Feature, merged
from diffcode.lsp.messages import BadParams, Code, Params, RequestError
from diffcode.lsp.parent import alive, death_of
from diffcode.lsp.progress import ProgressBoard, command_token
from diffcode.lsp.settings import Settings
from diffcode.lsp.status import Status
from diffcode.lsp.sync import Documents
from diffcode.lsp.traffic import Traffic
from diffcode.version import VERSION

log = logging.getLogger(__name__)

INCREMENTAL = 2  # TextDocumentSyncKind
STOP_SECONDS = 2.0


class _State(Enum):
    FRESH = auto()  # before initialize
    READY = auto()
    DOWN = auto()  # after shutdown


class Server:
    """Everything of one connection. Features reach the editor and its documents through the public attributes."""

    def __init__(
        self, inlet: Inlet, outlet: Outlet, features: Sequence[Feature] = (), *, log_bodies: bool = False
    ) -> None:
        self.client = Client()
        self.endpoint = Endpoint(outlet, traffic := Traffic(log_bodies))
        self.documents = Documents()
        self.status = Status(self.endpoint)
        self.progress = ProgressBoard(self.endpoint)
        self.configuration = Configuration(self.endpoint, self._settings_changed)
        self.features = tuple(features)
        self._inlet, self._outlet, self._traffic = inlet, outlet, traffic
        self._state = _State.FRESH
        self._over: asyncio.Future[int] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._commands: dict[str, CommandHandler] = {}
        self._register()
        for feature in self.features:
            self._add(feature)

    @property
    def settings(self) -> Settings:
        return self.configuration.settings

    async def run(self) -> int:
        """Serve until the editor is done or gone; the process's exit code."""
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._over = self._loop.create_future()
        logs.editor.set(self._tell)
        reading = asyncio.create_task(self.endpoint.serve(self._inlet))
        lost = asyncio.create_task(self._outlet.lost())
        try:
            ends: set[asyncio.Future[Any]] = {reading, lost, self._over}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            return self._over.result() if self._over.done() else self._exit_code()
        finally:
            logs.editor.set(None)
            for task in (reading, lost):
                task.cancel()
            await self._stop_features()
            await self.endpoint.close()

    def stop(self, code: int, why: str) -> None:
        """End the connection."""
        log.info("%s", why)
        self._state = _State.DOWN
        if self._over is not None and not self._over.done():
            self._over.set_result(code)

    def from_thread(self, function: Callable[..., object], *args: Any) -> None:
        """Call something in the event loop's thread, from any other one; after the end nothing happens."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(function, *args)

    # ---- lifecycle

    def _register(self) -> None:
        self.endpoint.gate = self._gate
        self.endpoint.requests |= {
            "initialize": self._initialize,
            "shutdown": self._shutdown,
            "exit": self._exit_request,
            "workspace/executeCommand": self._execute,
        }
        self.endpoint.notifications |= {
            "initialized": self._initialized,
            "shutdown": self._shutdown_notice,
            "exit": lambda _params: self._exit(),
            "$/setTrace": self._set_trace,
            "textDocument/didOpen": lambda params: self.documents.did_open(params),
            "textDocument/didChange": lambda params: self.documents.did_change(params),
            "textDocument/didSave": lambda params: self.documents.did_save(params),
            "textDocument/didClose": lambda params: self.documents.did_close(params),
            "workspace/didChangeConfiguration": self.configuration.did_change,
            "window/workDoneProgress/cancel": self.progress.did_cancel,
        }

    def _add(self, feature: Feature) -> None:
        feature.start(self)
        for method, handler in feature.requests().items():
            if method in self.endpoint.requests:
                raise ValueError(f"two features answer {method}")
            self.endpoint.requests[method] = handler
        for method, listener in feature.notifications().items():
            first = self.endpoint.notifications.get(method)
            self.endpoint.notifications[method] = _both(first, listener) if first else listener
        self._commands |= feature.commands()

    def _gate(self, method: str) -> RequestError | None:
        if method == "exit":
            return None
        if self._state is _State.FRESH and method != "initialize":
            return RequestError(Code.NOT_INITIALIZED, "the first request is initialize")
        if self._state is _State.READY and method == "initialize":
            return RequestError(Code.INVALID_REQUEST, "initialize comes once")
        if self._state is _State.DOWN:
            return RequestError(Code.INVALID_REQUEST, "the server has been shut down")
        return None

    async def _initialize(self, params: Params) -> dict[str, Any]:
        client = self.client = Client.of(params)
        self.documents = Documents(client.encoding)
        for feature in self.features:
            self.documents.opened.append(feature.opened)
            self.documents.changed.append(feature.changed)
            self.documents.saved.append(feature.saved)
            self.documents.closed.append(feature.closed)
        self.status.wanted = client.supports("experimental.diffcodeStatus")
        self.progress.supported = client.supports("window.workDoneProgress")
        self._set_trace({"value": client.trace})
        self._state = _State.READY
        self.configuration.start(client)
        if client.process_id is not None:
            self._watch(client.process_id)
        log.info("diffcode %s serves %s %s", VERSION, client.name or "an editor", client.version)
        return {"capabilities": self._capabilities(), "serverInfo": {"name": "diffcode", "version": VERSION}}

    def _capabilities(self) -> dict[str, Any]:
        own: dict[str, Any] = {
            "textDocumentSync": {"openClose": True, "change": INCREMENTAL, "save": {"includeText": False}}
        }
        if self.client.supports("general.positionEncodings"):
            own["positionEncoding"] = self.client.encoding
        if self._commands:
            own["executeCommandProvider"] = {"commands": sorted(self._commands)}
        parts = [own]
        for feature in self.features:
            try:
                parts.append(feature.capabilities(self.client))
            except Exception as error:  # the other features are still good
                log.error("%s stays out: %s", type(feature).__name__, blame(error))
        return merged(parts)

    def _initialized(self, _params: Params) -> None:
        self.configuration.ready()
        self.status.send()
        self._each(lambda feature: feature.ready())

    async def _shutdown(self, _params: Params) -> None:
        self._state = _State.DOWN
        self.endpoint.cancel_all()

    def _shutdown_notice(self, _params: Params) -> None:
        """Kate asks for no answer."""
        self._state = _State.DOWN
        self.endpoint.cancel_all()

    async def _exit_request(self, _params: Params) -> None:
        """Eglot asks for an answer. It gets one: the call comes after it."""
        asyncio.get_running_loop().call_soon(self._exit)

    def _exit(self) -> None:
        self.stop(self._exit_code(), "the editor is done")

    def _exit_code(self) -> int:
        return 0 if self._state is _State.DOWN else 1

    def _watch(self, process_id: int) -> None:
        if alive(process_id):
            self.endpoint.spawn(self._outlive(process_id))
        else:  # as in a container, where the editor's processes are not to be seen
            log.info("there is no process %d to be watched", process_id)

    async def _outlive(self, process_id: int) -> None:
        await death_of(process_id)
        self.stop(1, f"the editor (process {process_id}) is gone")

    async def _stop_features(self) -> None:
        stops = [asyncio.create_task(feature.stop()) for feature in self.features]
        if stops:
            await asyncio.wait(stops, timeout=STOP_SECONDS)

    # ---- the rest

    def _set_trace(self, params: Params) -> None:
        value = params.get("value")
        self._traffic.trace = value if value in ("messages", "verbose") else "off"

    async def _execute(self, given: Params) -> Any:
        name, arguments = params.string(given, "command"), given.get("arguments")
        handler = self._commands.get(name)
        if handler is None:
            raise BadParams("there is no such command")
        command_token.set(given.get("workDoneToken"))
        return await handler(arguments if isinstance(arguments, list) else [])

    def _settings_changed(self, old: Settings, new: Settings) -> None:
        self._each(lambda feature: feature.settings_changed(old, new))

    def _each(self, call: Callable[[Feature], None]) -> None:
        for feature in self.features:
            try:
                call(feature)
            except Exception as error:
                log.error("%s failed: %s", type(feature).__name__, blame(error))

    def _tell(self, kind: int, message: str) -> None:
        """A log record, from whatever thread."""
        if threading.get_ident() != self._thread:
            self.from_thread(self._tell, kind, message)
        else:
            self.endpoint.notify("window/logMessage", {"type": kind, "message": message}, droppable=True)


def _both(first: NotificationHandler, second: NotificationHandler) -> NotificationHandler:
    def handler(params: Params) -> None:
        first(params)
        second(params)

    return handler
