"""Holes: the places of a text that are to be replaced, and what replacing them gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from diffcode.errors import BadHoles, NothingToFill


@dataclass(frozen=True, slots=True)
class Hole:
    """What stands between characters `start` and `end` of the text is to be replaced; `start == end` inserts."""

    start: int
    end: int


def line_start(text: str, at: int) -> int:
    """Where the line of character `at` begins, whatever line ends the text has."""
    return max(text.rfind("\n", 0, at), text.rfind("\r", 0, at)) + 1


def find_marker(text: str, marker: str) -> tuple[Hole, ...]:
    """Every place of `marker` in `text`, left to right. Raises NothingToFill."""
    holes, at = [], text.find(marker) if marker else -1
    while at >= 0:
        holes.append(Hole(at, at + len(marker)))
        at = text.find(marker, at + len(marker))
    if not holes:
        raise NothingToFill(f"there is no hole: write {marker or '???'} where code is missing, or name a place")
    return tuple(holes)


def check_holes(text: str, holes: Sequence[tuple[int, int]]) -> tuple[Hole, ...]:
    """Holes in order. Raises NothingToFill for none, BadHoles for one outside the text or overlapping another."""
    ordered = sorted((Hole(*h) for h in holes), key=lambda hole: (hole.start, hole.end))
    if not ordered:
        raise NothingToFill("there is no hole: give holes=[(start, end)] or a marker that the text contains")
    for hole in ordered:
        if not 0 <= hole.start <= hole.end <= len(text):
            raise BadHoles(f"hole {hole.start}:{hole.end} lies outside the text: offsets go from 0 to {len(text)}")
        if text[hole.start - 1 : hole.start + 1] == "\r\n" or text[hole.end - 1 : hole.end + 1] == "\r\n":
            raise BadHoles(f"hole {hole.start}:{hole.end} cuts a \\r\\n in two: move it by one character")
    for left, right in pairwise(ordered):
        if right.start < left.end or left == right:
            raise BadHoles(f"holes {left.start}:{left.end} and {right.start}:{right.end} overlap: join them into one")
    return tuple(ordered)


def apply_edits(text: str, holes: Sequence[Hole], fills: Sequence[str]) -> str:
    """The text with each hole replaced by its fill; every character outside the holes comes back as it was."""
    parts, at = [], 0
    for hole, fill in zip(holes, fills, strict=True):
        parts += [text[at : hole.start], fill]
        at = hole.end
    return "".join([*parts, text[at:]])
