"""What a feature of the server is: handlers, and what the editor is told of them."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from diffcode.lsp.client import Client
from diffcode.lsp.document import Document
from diffcode.lsp.endpoint import NotificationHandler, RequestHandler
from diffcode.lsp.settings import Settings

if TYPE_CHECKING:
    from diffcode.lsp.server import Server

CommandHandler: TypeAlias = Callable[[list[Any]], Awaitable[Any]]


class Feature:
    """One ability of the server; a subclass overrides what it needs. Everything runs in the event loop's thread.

    `start` comes first, before the editor has said anything; then, at `initialize`, `capabilities`; then the rest.
    """

    server: "Server"

    def start(self, server: "Server") -> None:
        """The connection that this feature belongs to."""
        self.server = server

    def capabilities(self, client: Client) -> dict[str, Any]:
        """This feature's part of the ServerCapabilities: only what the client supports. Parts of several features are
        merged: objects by key, lists by joining."""
        return {}

    def requests(self) -> Mapping[str, RequestHandler]:
        """Methods and the async functions that answer them. Params are a plain dict; diffcode.lsp.params reads them."""
        return {}

    def notifications(self) -> Mapping[str, NotificationHandler]:
        """Methods and plain functions; several features may listen to the same one."""
        return {}

    def commands(self) -> Mapping[str, CommandHandler]:
        """Commands of `workspace/executeCommand`, such as `diffcode.reload`; they get the list of arguments."""
        return {}

    def ready(self) -> None:
        """The editor may be asked and told things from now on."""

    def opened(self, document: Document) -> None: ...

    def changed(self, document: Document) -> None: ...

    def saved(self, document: Document) -> None: ...

    def closed(self, document: Document) -> None: ...

    def settings_changed(self, old: Settings, new: Settings) -> None: ...

    async def stop(self) -> None:
        """The connection has ended. Threads must be told to stop here, and within two seconds."""


def merged(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Capabilities of several features as one object."""
    whole: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            mine = whole.get(key)
            if isinstance(mine, dict) and isinstance(value, dict):
                whole[key] = merged((mine, value))
            elif isinstance(mine, list) and isinstance(value, list):
                whole[key] = [*mine, *(item for item in value if item not in mine)]
            elif not (isinstance(mine, dict) and value is True):  # options say more than a bare yes
                whole[key] = value
    return whole
