"""What must follow an edit: places of the text as it is now, with the exact text where that is known."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from diffcode.holes import Hole
from diffcode.lsp.bindings import Names
from diffcode.lsp.changes import Changes
from diffcode.syntax import Node


@dataclass(frozen=True, slots=True)
class Place:
    """One place. `text` is what must stand there, None where that is for the model to say.

    `before` and `behind` are to be written round what the model gives: the comma of an argument, its keyword.
    Not `sure`: by its name it is one, but another object may have an attribute of that name.
    """

    hole: Hole
    text: str | None
    sure: bool = True
    before: str = ""
    behind: str = ""


@dataclass(frozen=True, slots=True)
class Ripple:
    """What one edit asks for elsewhere in the file, in order of place."""

    kind: Literal["rename", "attribute", "parameters", "returns"]
    old: str
    new: str
    title: str
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Edit:
    """The change and the names of the text before it: what every search for ripples starts from."""

    changes: Changes
    names: Names

    def place(self, node: Node, text: str | None, sure: bool = True) -> Place | None:
        """The place of a node of the old text; None where the user has been himself."""
        hole = self.changes.moved(*self.changes.before.span(node))
        return Place(hole, text, sure) if hole is not None else None

    def byte(self, at: int) -> int:
        return self.changes.before.byte_of(at)


def in_order(places: Iterable[Place | None]) -> tuple[Place, ...]:
    """Without those that are gone, and no hole twice: the sure one counts."""
    found: dict[Hole, Place] = {}
    for place in places:
        if place is not None and (place.hole not in found or place.sure):
            found[place.hole] = place
    return tuple(found[hole] for hole in sorted(found, key=lambda hole: (hole.start, hole.end)))
