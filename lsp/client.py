"""What the editor said of itself in `initialize`. No value is trusted to have the type that the protocol gives it."""

from dataclasses import dataclass, field
from typing import Any

from diffcode.lsp.messages import Params
from diffcode.lsp.params import find
from diffcode.lsp.text import ENCODINGS, Encoding


@dataclass(frozen=True, slots=True)
class Client:
    """An editor and what it can do."""

    name: str = ""
    version: str = ""
    process_id: int | None = None
    capabilities: dict[str, Any] = field(default_factory=dict)
    options: Any = None  # initializationOptions
    folders: tuple[str, ...] = ()  # URIs
    trace: str = "off"

    @classmethod
    def of(cls, params: Params) -> "Client":
        """From the params of `initialize`."""
        process_id = params.get("processId")
        capabilities = params.get("capabilities")
        return cls(
            name=_text(find(params, "clientInfo.name")),
            version=_text(find(params, "clientInfo.version")),
            process_id=process_id if type(process_id) is int and process_id > 0 else None,
            capabilities=capabilities if isinstance(capabilities, dict) else {},
            options=params.get("initializationOptions"),
            folders=_folders(params),
            trace=_text(params.get("trace")) or "off",
        )

    def get(self, path: str) -> Any:
        """The capability at a dotted path such as `textDocument.codeAction.resolveSupport`; None where absent."""
        return find(self.capabilities, path)

    def supports(self, path: str) -> bool:
        """Whether a capability is there and not false; an empty object is a yes."""
        missing = object()
        value = find(self.capabilities, path, missing)
        if value is None:
            # Emacs' lsp-mode writes `(inlineCompletion . ())` for "yes, without options", and sends it as null.
            return self.name.lower() == "emacs"
        return value is not missing and value is not False

    def lists(self, path: str, item: Any) -> bool:
        """Whether the list at a dotted path holds an item, as in `lists("...resolveSupport.properties", "edit")`."""
        value = find(self.capabilities, path)
        return isinstance(value, list) and item in value

    @property
    def encoding(self) -> Encoding:
        """The first of the editor's position encodings that is known; utf-16 where it offers none.

        Its order is followed because the choice costs the server next to nothing: utf-32 is how Python counts, utf-8
        and utf-16 cost the encoding of one piece of text for a position, some microseconds and nothing in ASCII. The
        editor converts in Lua or Lisp, and names first what it counts in itself.
        """
        offered = find(self.capabilities, "general.positionEncodings")
        for encoding in offered if isinstance(offered, list) else ():
            for known in ENCODINGS:
                if encoding == known:
                    return known
        return "utf-16"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _folders(params: Params) -> tuple[str, ...]:
    folders = params.get("workspaceFolders")
    found = tuple(_text(find(folder, "uri")) for folder in folders) if isinstance(folders, list) else ()
    return tuple(filter(None, found or (_text(params.get("rootUri")),)))
