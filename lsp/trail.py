"""What the user did to a document lately: the last edits with what they removed, and the texts before each burst."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from diffcode.lsp.document import Document, Edit
from diffcode.lsp.moment import RecentEdit
from diffcode.lsp.text import Text

RECENT = 24  # edits that gates look back over
LARGE = 10_000  # characters; what was pasted or deleted in that size is no typing
BURSTS = 6  # texts to come back to
BURST_SECONDS = 300.0  # an edit that long ago is not followed up any more


@dataclass(frozen=True, slots=True)
class Past:
    """The text as it was before a burst of edits on one line."""

    text: Text
    at: float


class Trail:
    """Follows one document, change by change."""

    def __init__(self, document: Document, clock: Callable[[], float] = time.monotonic) -> None:
        self.version, self.text = document.version, document.text
        self.cursor = 0  # where the last edit ended
        self._clock = clock
        self._recent: deque[RecentEdit] = deque(maxlen=RECENT)
        self._past: deque[Past] = deque(maxlen=BURSTS)
        self._line: int | None = None  # of the last edit

    @property
    def recent(self) -> tuple[RecentEdit, ...]:
        """The last edits, the newest last."""
        return tuple(self._recent)

    def past(self) -> Iterator[Text]:
        """Texts from before the last bursts of edits, the newest first."""
        now = self._clock()
        return (past.text for past in reversed(self._past) if now - past.at <= BURST_SECONDS)

    def follow(self, document: Document) -> tuple[Edit, ...] | None:
        """The document has changed: the edits, None where they are not known."""
        edits = document.since(self.version)
        if edits is None or any(len(e.text) > LARGE or e.end - e.start > LARGE for e in edits):
            self._recent.clear()
            self._past.clear()
            self._line = None
        else:
            for number, edit in enumerate(edits):
                self._note(edit, first=number == 0)
        self.version, self.text = document.version, document.text
        return edits

    def _note(self, edit: Edit, first: bool) -> None:
        line = self.text.position(edit.start).line
        if first and line != self._line:
            self._past.append(Past(self.text, self._clock()))
        self._recent.append(RecentEdit(edit.start, self.text.slice(edit.start, edit.end), edit.text))
        self.text = self.text.replace(edit.start, edit.end, edit.text)
        self.cursor = edit.start + len(edit.text)
        self._line = self.text.position(self.cursor).line
