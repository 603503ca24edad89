"""An open document: its text, its version, and the edits that led here."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from diffcode.errors import DiffcodeError
from diffcode.lsp.text import BadPosition, Encoding, Range, Text, whole

HISTORY = 256  # notifications that `since` can look back over
LONG_EDIT = 100_000  # characters; what was typed round a paste of that size no longer matters


class StaleVersion(DiffcodeError):
    """A change whose version is not above the document's."""


@dataclass(frozen=True, slots=True)
class Edit:
    """Characters [start, end) of the text before it give way to `text`."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of `contentChanges`; no range means the whole text."""

    range: Range | None
    text: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A document as it was at one version. Costs nothing to take and may be read in any thread."""

    uri: str
    language: str
    version: int
    text: Text

    def __str__(self) -> str:
        return str(self.text)


class Document:
    """What the editor has open under a URI."""

    def __init__(self, uri: str, language: str, version: int, text: str, encoding: Encoding) -> None:
        self.uri = uri
        self.language = language
        self.version = version
        self.text = Text.of(text, encoding)
        # Why this is perhaps not the editor's text; only a change of the whole text or reopening mends that.
        self.lost: str | None = None
        self._history: deque[tuple[int, tuple[Edit, ...]]] = deque(maxlen=HISTORY)  # the version before, the edits

    def snapshot(self) -> Snapshot:
        return Snapshot(self.uri, self.language, self.version, self.text)

    def change(self, version: int, changes: Iterable[Change]) -> None:
        """Apply a notification's changes in their order: all of them or, where one cannot be, none.

        Raises StaleVersion or BadPosition; the document is `lost` then, as the editor's text has changed and this one
        has not.
        """
        if version <= self.version:
            self.lost = "a change came with an old version number"
            raise StaleVersion(f"version {version} follows {self.version}: the change was not applied")
        text, lost, edits = self.text, self.lost, []
        try:
            for change in changes:
                start, end = (0, len(text)) if change.range is None else text.span(change.range)
                edits.append(Edit(start, end, whole(change.text)))
                text = text.replace(start, end, change.text)
                lost = None if change.range is None else lost
        except BadPosition as error:
            self.lost = f"a change did not fit: {error}"
            raise
        self._note(tuple(edits))
        self.text, self.version, self.lost = text, version, lost

    def since(self, version: int) -> tuple[Edit, ...] | None:
        """The edits that led from a version to this one, each in the text that the one before it left.

        None when that is too long ago, or was never a version.
        """
        found: list[tuple[Edit, ...]] = []
        reached = self.version
        for before, edits in reversed(self._history):
            if reached == version:
                break
            found.append(edits)
            reached = before
        if reached != version:
            return None
        return tuple(edit for edits in reversed(found) for edit in edits)

    def _note(self, edits: tuple[Edit, ...]) -> None:
        if sum(len(edit.text) for edit in edits) > LONG_EDIT:
            self._history.clear()
        else:
            self._history.append((self.version, edits))


def typed(edits: Sequence[Edit], offset: int) -> str | None:
    """The text that these edits left at an offset, if they did nothing but type and take back there; else None.

    Whoever fills a hole at that offset asks this when the document has moved on: where the result begins with the
    answer, the rest of it is still good.
    """
    there = ""
    for edit in edits:
        start, end = edit.start - offset, edit.end - offset
        if not 0 <= start <= end <= len(there):
            return None
        there = there[:start] + edit.text + there[end:]
    return there
