"""What is said of messages that pass: names and sizes for the log and for `$/setTrace`, bodies only when asked for."""

import logging
from collections.abc import Mapping
from typing import Any, Literal, Protocol

from diffcode.lsp.messages import Answer, Invalid, Message, Notification, Request

log = logging.getLogger(__name__)
# Stands apart: its records go to the terminal and the file, never to the editor, whose log may be shared.
bodies = logging.getLogger(f"{__name__}.bodies")

Trace = Literal["off", "messages", "verbose"]
UNTOLD = {"$/logTrace", "window/logMessage"}  # telling of these would make more of them


class Teller(Protocol):
    """Who passes `$/logTrace` on."""

    def notify(self, method: str, params: Any, *, droppable: bool = False) -> None: ...


class Traffic:
    """Watches one connection."""

    def __init__(self, log_bodies: bool = False) -> None:
        self.trace: Trace = "off"
        self.teller: Teller | None = None
        self._log_bodies = log_bodies

    def received(self, message: Message, body: bytes) -> None:
        self._tell(f"received {_described(message)}", len(body))
        if self._log_bodies:
            bodies.info("<- %s", body.decode("utf-8", "replace"))

    def sent(self, message: Mapping[str, Any], body: bytes, teller: Teller) -> None:
        method = message.get("method")
        if method not in UNTOLD:
            what = f"answer to {message.get('id')!r}" if method is None else str(method)
            self.teller = teller
            self._tell(f"sent {what}", len(body))
        if self._log_bodies:
            bodies.info("-> %s", body.decode("utf-8", "replace"))

    def _tell(self, what: str, size: int) -> None:
        log.debug("%s, %d bytes", what, size)
        if self.trace != "off" and self.teller is not None:
            verbose = {"verbose": f"{size} bytes"} if self.trace == "verbose" else {}
            self.teller.notify("$/logTrace", {"message": what, **verbose}, droppable=True)


def _described(message: Message) -> str:
    if isinstance(message, Request):
        return f"request {message.method[:80]} with id {str(message.id)[:80]}"
    if isinstance(message, Notification):
        return f"notification {message.method[:80]}"
    if isinstance(message, Answer):
        return f"answer to {str(message.id)[:80]}"
    return _invalid(message)


def _invalid(message: Invalid) -> str:
    return f"no message: {message.reason}"
