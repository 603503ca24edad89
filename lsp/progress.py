"""Progress that an editor shows, with or without a token of its own."""

import itertools
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from diffcode.lsp.endpoint import Endpoint, NoAnswer
from diffcode.lsp.messages import Params, RequestError

REPORT_SECONDS = 0.05  # reports that come faster are left out
CREATE_SECONDS = 10.0

Token = int | str
command_token: ContextVar[Any] = ContextVar("command_token", default=None)  # the `workDoneToken` of what runs here


class Progress:
    """One progress. Never in the way of the work: where the editor cannot show it, nothing happens."""

    def __init__(self, send: Callable[[dict[str, Any]], None] | None, title: str, cancellable: bool) -> None:
        self.cancelled = False
        self.on_cancel: Callable[[], None] | None = None
        self._send = send
        self._begin = {"kind": "begin", "title": title, "cancellable": cancellable}
        self.shown = False
        self._over = False
        self._reported = 0.0

    def show(self) -> None:
        """The editor knows the token now."""
        if not self._over and not self.shown and self._send is not None:
            self.shown = True
            self._send(self._begin)

    def report(self, message: str | None = None, percentage: float | None = None) -> None:
        """A word on how it goes; one that comes too soon after the last is left out."""
        now = time.monotonic()
        if self.shown and not self._over and self._send is not None and now - self._reported >= REPORT_SECONDS:
            self._reported = now
            self._send({"kind": "report", **_told(message), **_percentage(percentage)})

    def end(self, message: str | None = None) -> None:
        """Also more than once."""
        if self.shown and not self._over and self._send is not None:
            self._send({"kind": "end", **_told(message)})
        self._over = True

    def cancel(self) -> None:
        """The user asked for it."""
        self.cancelled = True
        if self.on_cancel is not None and not self._over:
            self.on_cancel()


class ProgressBoard:
    """Makes progresses and knows those that run."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.supported = False  # whether the editor lets the server begin one
        self._endpoint = endpoint
        self._running: dict[Token, Progress] = {}
        self._ids = itertools.count(1)

    def start(self, title: str, token: Any = None, *, cancellable: bool = False) -> Progress:
        """Begin a progress. `token` is the request's `workDoneToken`; without one the editor is asked for its leave,
        and what is reported before it answers is not shown."""
        if isinstance(token, str) or type(token) is int:
            progress = Progress(self._sender(token), title, cancellable)
            self._running[token] = progress
            progress.show()
        elif self.supported:
            token = f"diffcode-{next(self._ids)}"
            progress = Progress(self._sender(token), title, cancellable)
            self._running[token] = progress
            self._endpoint.spawn(self._create(token, progress))
        else:
            progress = Progress(None, title, cancellable)
        return progress

    def did_cancel(self, params: Params) -> None:
        """`window/workDoneProgress/cancel`."""
        token = params.get("token")
        if (isinstance(token, str) or type(token) is int) and token in self._running:
            self._running[token].cancel()

    def _sender(self, token: Token) -> Callable[[dict[str, Any]], None]:
        def send(value: dict[str, Any]) -> None:
            if value["kind"] == "end":
                self._running.pop(token, None)
            droppable = value["kind"] == "report"
            self._endpoint.notify("$/progress", {"token": token, "value": value}, droppable=droppable)

        return send

    async def _create(self, token: Token, progress: Progress) -> None:
        try:
            await self._endpoint.ask("window/workDoneProgress/create", {"token": token}, seconds=CREATE_SECONDS)
            progress.show()
        except (RequestError, NoAnswer):
            pass
        finally:
            if not progress.shown:
                self._running.pop(token, None)


def _told(message: str | None) -> dict[str, str]:
    return {} if message is None else {"message": message}


def _percentage(value: float | None) -> dict[str, int]:
    return {} if value is None else {"percentage": round(min(max(value, 0), 100))}
