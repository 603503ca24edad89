"""Suggestions that were made, so that typing along needs no model, and what is left of those that were not finished.

Kept by what stands on both sides and not by version: so they also hold after an undo, or for a text that an editor only
imagines (selectedCompletionInfo).
"""

from collections import deque
from dataclasses import dataclass

SUGGESTIONS = 12
CLOSERS = ")]}\"'`>"  # what an editor puts behind the cursor by itself


@dataclass(frozen=True, slots=True)
class Place:
    """A cursor in a text. Comparing two costs next to nothing: strings are compared from a pointer on."""

    uri: str
    head: str  # the text before the cursor
    tail: str  # the text behind it

    def typed(self, now: "Place") -> str | None:
        """What was typed here until it became `now`, brackets closed by the editor aside; None for anything else."""
        if self.uri != now.uri or not now.tail.endswith(self.tail) or not now.head.startswith(self.head):
            return None
        added = now.tail[: len(now.tail) - len(self.tail)]
        return None if added.strip(CLOSERS) else now.head[len(self.head) :]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What may be put in at a place: `text`, perhaps none of it."""

    place: Place
    text: str
    whole: bool = True  # False: it was stopped, good to start from and not to be shown
    ended: bool = False  # the model said by itself that nothing more belongs here
    why: str = ""  # there is no text

    def rest(self, now: Place) -> str | None:
        """What is left of it at another place; None where what was typed there does not agree with it."""
        typed = self.place.typed(now)
        return self.text[len(typed) :] if typed is not None and self.text.startswith(typed) else None

    def accepted(self, uri: str, text: str) -> bool:
        """Whether a text is what accepting all of it gives."""
        place = self.place
        if place.uri != uri or len(text) != len(place.head) + len(self.text) + len(place.tail):
            return False
        return text.startswith(place.head) and text.startswith(self.text, len(place.head)) and text.endswith(place.tail)


class Memory:
    """The last suggestions of a connection."""

    def __init__(self) -> None:
        self._kept: deque[Suggestion] = deque(maxlen=SUGGESTIONS)

    def keep(self, suggestion: Suggestion) -> None:
        """In place of one at the same place."""
        others = [kept for kept in self._kept if kept.place != suggestion.place]
        self._kept.clear()
        self._kept.extend([*others, suggestion])

    def find(self, now: Place) -> Suggestion | None:
        """The newest that agrees and has something left, or says of this very place that there is nothing to say."""
        found = (kept for kept in reversed(self._kept) if kept.whole)
        return next((kept for kept in found if kept.rest(now) or (kept.place == now and not kept.text)), None)

    def draft(self, now: Place) -> str:
        """What the model may begin with: the rest of an unfinished one, or of one that was typed along to its end."""
        for kept in reversed(self._kept):
            if rest := kept.rest(now):
                return rest
        return ""

    def accepted(self, uri: str, text: str) -> Suggestion | None:
        """The suggestion that was just taken in whole."""
        shown = (kept for kept in reversed(self._kept) if kept.whole and kept.text)
        return next((kept for kept in shown if kept.accepted(uri, text)), None)

    def forget(self, uri: str | None = None) -> None:
        """All of one document, or all."""
        kept = [one for one in self._kept if uri is not None and one.place.uri != uri]
        self._kept.clear()
        self._kept.extend(kept)
