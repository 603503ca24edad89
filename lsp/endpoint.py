"""One connection: frames in, messages to their handlers, every request answered exactly once.

A request's handler is an async function and runs as a task of its own; when the editor cancels the request, the task
is cancelled and the answer goes out at once, whatever the task does about it. A notification's handler is a plain
function and runs right away: when a request is begun, every change sent before it has been applied, and none that was
sent after it.
"""

import asyncio
import itertools
import logging
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol, TypeAlias

from diffcode.errors import DiffcodeError
from diffcode.lsp import messages
from diffcode.lsp.frames import MAX_BODY, Frames, frame
from diffcode.lsp.messages import Answer, BadParams, Code, Id, Message, Notification, Request, RequestError
from diffcode.lsp.traffic import Traffic

log = logging.getLogger(__name__)

RequestHandler: TypeAlias = Callable[[messages.Params], Awaitable[Any]]
NotificationHandler: TypeAlias = Callable[[messages.Params], None]

READ = 2**16  # bytes
CROWDED = 2**20  # bytes that the client has not taken; above that, what may be dropped is
ANSWER_SECONDS = 30.0
WRONG_USAGE = 2  # the exit code of a DiffcodeError that the caller's own input is to blame for


class Outlet(Protocol):
    """Where frames go."""

    def write(self, data: bytes) -> None:
        """Take the bytes without waiting; nothing happens where the other side has gone."""

    def waiting(self) -> int:
        """Bytes that the other side has not taken yet."""

    async def drain(self) -> None:
        """Wait while very much is waiting."""

    async def lost(self) -> None:
        """Wait until the other side does not read any more."""


class Inlet(Protocol):
    """Where bytes come from; an asyncio.StreamReader is one."""

    async def read(self, n: int, /) -> bytes: ...


class NoAnswer(DiffcodeError):
    """The editor did not answer a request of ours in time."""


class Endpoint:
    """Both directions of one connection. Belongs to its event loop's thread."""

    def __init__(self, outlet: Outlet, traffic: Traffic | None = None) -> None:
        self.requests: dict[str, RequestHandler] = {}
        self.notifications: dict[str, NotificationHandler] = {}
        self.gate: Callable[[str], RequestError | None] = lambda _method: None  # what may not be asked now
        self.closed = False
        # On a port a web page may be the other side: a browser's request for it begins with lines that are no header.
        self.clean_start = False
        self._outlet = outlet
        self._traffic = traffic or Traffic()
        self._running: dict[int | str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself holds tasks only weakly
        self._asked: dict[Id, asyncio.Future[Any]] = {}
        self._ids = itertools.count(1)

    # ---- in

    async def serve(self, inlet: Inlet) -> None:
        """Read until the other side ends, or this one is closed."""
        frames = Frames()
        try:
            while data := await inlet.read(READ):
                bodies = frames.feed(data)
                if self.clean_start and frames.skipped:
                    log.error("closing: what came first is no message")
                    return
                for body in bodies:
                    self.clean_start = False
                    self.receive(body)
                    # The handler's task runs to its first wait before the next message is looked at.
                    await asyncio.sleep(0)
                    if self.closed:
                        return
                if frames.skipped:
                    log.warning("skipped %d bytes between messages that belong to no message", frames.skipped)
                    frames.skipped = 0
                if frames.refused is not None:
                    log.error("closing: a message of %d bytes, at most %d are read", frames.refused, MAX_BODY)
                    return
                await self._outlet.drain()
        except OSError as error:
            log.info("the connection broke: %s", error.strerror)

    def receive(self, body: bytes) -> None:
        """Deal with one message; never raises."""
        message = messages.read(body)
        self._traffic.received(message, body)
        try:
            self._dispatch(message)
        except Exception as error:
            log.error("a message could not be dealt with: %s", blame(error))

    def _dispatch(self, message: Message) -> None:
        if isinstance(message, Request):
            self._begin(message)
        elif isinstance(message, Notification):
            self._notice(message)
        elif isinstance(message, Answer):
            self._settle(message)
        else:
            log.warning("%s", message.reason)
            self._fail(message.id, RequestError(message.code, message.reason))

    def _begin(self, request: Request) -> None:
        handler = self.requests.get(request.method)
        if refusal := self.gate(request.method):
            self._fail(request.id, refusal)
        elif handler is None:
            self._fail(request.id, RequestError(Code.METHOD_NOT_FOUND, f"there is no method {request.method[:80]}"))
        elif request.id in self._running:
            reason = "a request with this id is still being worked on"
            self._fail(request.id, RequestError(Code.INVALID_REQUEST, reason))
        else:
            self._running[request.id] = self.spawn(self._run(request, handler))

    async def _run(self, request: Request, handler: RequestHandler) -> None:
        me = asyncio.current_task()
        try:
            answer: dict[str, Any] = {"result": await handler(_object(request.params))}
        except asyncio.CancelledError:
            answer = _error(RequestError(Code.CANCELLED, "cancelled"))
        except Exception as error:
            answer = _error(_as_answer(error, request.method))
        if self._running.get(request.id) is me:  # else the answer is out already
            del self._running[request.id]
            self._answer(request.id, answer)

    def _notice(self, notification: Notification) -> None:
        if notification.method == "$/cancelRequest":
            self._cancel(notification.params)
        elif self.gate(notification.method):
            log.debug("dropped %s: it does not belong here", notification.method[:80])
        elif handler := self.notifications.get(notification.method):
            try:
                handler(_object(notification.params))
            except (DiffcodeError, RequestError) as error:
                log.warning("%s was refused: %s", notification.method, error)
            except Exception as error:
                log.error("%s failed: %s", notification.method, blame(error))

    def _cancel(self, params: Any) -> None:
        id_ = params.get("id") if isinstance(params, dict) else None
        task = self._running.pop(id_, None) if isinstance(id_, str) or type(id_) is int else None
        if task is not None and isinstance(id_, int | str):
            task.cancel()
            self._fail(id_, RequestError(Code.CANCELLED, "cancelled"))

    def cancel_all(self) -> None:
        """Cancel and answer every request but the one that asks for it."""
        for id_, task in list(self._running.items()):
            if task is not asyncio.current_task():
                self._cancel({"id": id_})

    # ---- out

    def notify(self, method: str, params: Any, *, droppable: bool = False) -> None:
        """Send a notification; a droppable one not where the editor is behind with reading."""
        if droppable and self._outlet.waiting() > CROWDED:
            return
        self._send({"method": method, "params": params})

    async def ask(self, method: str, params: Any, *, seconds: float = ANSWER_SECONDS) -> Any:
        """Send a request and wait for its result.

        Raises RequestError when the editor answers with an error, NoAnswer when it does not answer in time or the
        connection ends. An answer that comes later is ignored.
        """
        if self.closed:
            raise NoAnswer(f"{method}: the connection has ended")
        id_ = next(self._ids)
        future = self._asked[id_] = asyncio.get_running_loop().create_future()
        self._send({"id": id_, "method": method, "params": params})
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            self.notify("$/cancelRequest", {"id": id_})
            raise NoAnswer(f"{method}: the editor did not answer within {seconds:g} s") from None
        except asyncio.CancelledError:
            self.notify("$/cancelRequest", {"id": id_})
            raise
        finally:
            self._asked.pop(id_, None)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something beside; errors are logged, and it ends with the connection."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def close(self) -> None:
        """Cancel all that runs; nothing is read or sent any more."""
        self.closed = True
        self._running.clear()
        for future in self._asked.values():
            future.cancel()
        tasks = self._tasks - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1)

    def _settle(self, answer: Answer) -> None:
        future = self._asked.get(answer.id)
        if future is None:
            log.debug("an answer came to nothing that was asked, or too late")
        elif not future.done():
            if answer.error is None:
                future.set_result(answer.result)
            else:
                future.set_exception(_from_client(answer.error))

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, NoAnswer):
            log.error("work beside the requests failed: %s", blame(error))

    def _fail(self, id_: Id, error: RequestError) -> None:
        self._answer(id_, _error(error))

    def _answer(self, id_: Id, answer: dict[str, Any]) -> None:
        try:
            self._send({"id": id_, **answer})
        except (TypeError, ValueError, RecursionError) as error:
            log.error("a result is no JSON: %s", blame(error))
            self._send({"id": id_, **_error(RequestError(Code.INTERNAL_ERROR, "the result is no JSON"))})

    def _send(self, message: Mapping[str, Any]) -> None:
        if self.closed:
            return
        body = messages.encode({"jsonrpc": "2.0", **message})
        self._outlet.write(frame(body))
        self._traffic.sent(message, body, self)


def blame(error: BaseException) -> str:
    """An error's type and places, without its message: that may quote the user's text."""
    places = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    return f"{type(error).__name__}\n{places}" if places else type(error).__name__


def _object(params: Any) -> messages.Params:
    if params is None:
        return {}
    if not isinstance(params, dict):
        raise BadParams("params is no object")
    return params


def _error(error: RequestError) -> dict[str, Any]:
    return {"error": {"code": int(error.code), "message": str(error)}}


def _as_answer(error: Exception, method: str) -> RequestError:
    """What the editor is told of a handler's error."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, DiffcodeError):
        code = Code.INVALID_PARAMS if error.exit_code == WRONG_USAGE else Code.REQUEST_FAILED
        return RequestError(code, str(error))
    log.error("%s failed: %s", method, blame(error))
    return RequestError(Code.INTERNAL_ERROR, f"{method} failed with {type(error).__name__}: see the log")


def _from_client(error: Any) -> RequestError:
    code = error.get("code") if isinstance(error, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return RequestError(code if type(code) is int else Code.INTERNAL_ERROR, str(message or "the editor refused"))
