"""The documents that the editor has open, kept in step with it."""

import logging
from collections.abc import Callable, Iterator

from diffcode.errors import DiffcodeError
from diffcode.lsp import params as read
from diffcode.lsp.document import Document, Snapshot
from diffcode.lsp.messages import BadParams, Params
from diffcode.lsp.text import Encoding

log = logging.getLogger(__name__)


class Documents:
    """Every open document by its URI. The methods named after notifications take their params."""

    def __init__(self, encoding: Encoding = "utf-16") -> None:
        self.encoding: Encoding = encoding
        self.opened: list[Callable[[Document], None]] = []
        self.changed: list[Callable[[Document], None]] = []
        self.saved: list[Callable[[Document], None]] = []
        self.closed: list[Callable[[Document], None]] = []
        self._open: dict[str, Document] = {}

    def __iter__(self) -> Iterator[Document]:
        return iter(list(self._open.values()))

    def get(self, uri: str) -> Document | None:
        """The document, if it is open; look at its `lost` before believing its text."""
        return self._open.get(uri)

    def snapshot(self, uri: str) -> Snapshot | None:
        """The document as it is now; None if it is not open or perhaps not what the editor shows."""
        document = self._open.get(uri)
        return None if document is None or document.lost else document.snapshot()

    def did_open(self, params: Params) -> None:
        uri, version = read.uri(params), read.integer(params, "textDocument.version")
        language, text = read.string(params, "textDocument.languageId"), read.string(params, "textDocument.text")
        if uri in self._open:
            log.warning("a document was opened twice: the newer text counts")
        document = self._open[uri] = Document(uri, language, version, text, self.encoding)
        _call(self.opened, document)

    def did_change(self, params: Params) -> None:
        document = self._open.get(read.uri(params))
        if document is None:
            log.warning("a change of a document that is not open was left out")
            return
        try:
            document.change(read.integer(params, "textDocument.version"), read.changes(params))
        except BadParams as error:
            document.lost = f"a change could not be read: {error}"
            log.warning("%s", document.lost)
        except DiffcodeError as error:
            log.warning("%s", error)
        _call(self.changed, document)

    def did_save(self, params: Params) -> None:
        if (document := self._open.get(read.uri(params))) is not None:
            _call(self.saved, document)

    def did_close(self, params: Params) -> None:
        if (document := self._open.pop(read.uri(params), None)) is not None:
            _call(self.closed, document)


def _call(listeners: list[Callable[[Document], None]], document: Document) -> None:
    """One listener's failure is not the others'."""
    for listener in listeners:
        try:
            listener(document)
        except Exception as error:
            log.error("a listener failed: %s", type(error).__name__)
