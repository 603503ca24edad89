"""Places in a text: lines and columns as people write them, offsets as the engine takes them.

Only \\n, \\r\\n and \\r end a line, as in the language server protocol. `str.splitlines` also breaks at form feeds,
U+2028 and others, which no editor counts. A byte-order mark is no part of line 1, so no hole can swallow it.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

from diffcode.errors import BadHoles, NothingToFill
from diffcode.holes import find_marker

BYTE_ORDER_MARK = "\ufeff"
_LINE_END = re.compile(r"\r\n|\n|\r")
_AT = re.compile(r"([0-9]{1,9}):([0-9]{1,9})")
_RANGE = re.compile(r"([0-9]{1,9})(?::([0-9]{1,9}))?")


@dataclass(frozen=True, slots=True)
class Position:
    """A line and a column, both counted from 1; the column counts characters."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Lines:
    """Where every line of a text starts, and where it ends without its line end."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, text: str) -> "Lines":
        line_ends = list(_LINE_END.finditer(text))
        first = len(BYTE_ORDER_MARK) if text.startswith(BYTE_ORDER_MARK) else 0
        return cls((first, *(m.end() for m in line_ends)), (*(m.start() for m in line_ends), len(text)))

    def __len__(self) -> int:
        return len(self.starts)

    def offset(self, position: Position, option: str) -> int:
        """The offset of a position; `option` is what the error blames."""
        self.check_line(position.line, option)
        start, end = self.starts[position.line - 1], self.ends[position.line - 1]
        if not 1 <= position.column <= end - start + 1:
            allowed = f"columns 1 to {end - start + 1}" if end > start else "only column 1"
            raise BadHoles(f"{option} lies outside the file: line {position.line} has {allowed}")
        return start + position.column - 1

    def check_line(self, line: int, option: str) -> None:
        if not 1 <= line <= len(self):
            allowed = f"lines 1 to {len(self)}" if len(self) > 1 else "only line 1"
            raise BadHoles(f"{option} lies outside the file, which has {allowed}")

    def position(self, offset: int) -> Position:
        """The position of an offset; one inside \\r\\n or before a byte-order mark moves to the nearest real one."""
        line = max(bisect_right(self.starts, offset) - 1, 0)
        start, end = self.starts[line], self.ends[line]
        return Position(line + 1, min(max(offset, start), end) - start + 1)


@dataclass(frozen=True, slots=True)
class Asked:
    """A hole as the user named it: characters [start, end), and the words that asked for it."""

    start: int
    end: int
    asked: str


def find_holes(text: str, at: Iterable[str] = (), lines: Iterable[str] = (), marker: str | None = None) -> list[Asked]:
    """All holes in the order of the text; raises BadHoles when two overlap, NothingToFill when there is none."""
    table = Lines.of(text)
    holes = [parse_at(spec, table) for spec in at] + [parse_lines(spec, table) for spec in lines]
    if marker is not None:
        holes += find_marked(text, marker, table)
    if not holes:
        raise NothingToFill(f"no hole: write {marker} where code is missing, or name places with --at or --lines")
    holes.sort(key=lambda hole: (hole.start, hole.end))
    _refuse_overlaps(holes)
    return holes


def parse_at(spec: str, lines: Lines) -> Asked:
    """`LINE:COL` as an empty hole."""
    option = f"--at {spec}"
    match = _AT.fullmatch(spec)
    if match is None:
        raise BadHoles(f"{option} is not LINE:COL: write for example --at 12:5")
    offset = lines.offset(Position(int(match[1]), int(match[2])), option)
    return Asked(offset, offset, option)


def parse_lines(spec: str, lines: Lines) -> Asked:
    """`A:B` or `A`, both lines included, as a hole that leaves the last line's line end standing."""
    option = f"--lines {spec}"
    match = _RANGE.fullmatch(spec)
    if match is None:
        raise BadHoles(f"{option} is not FIRST:LAST: write for example --lines 12:15")
    first, last = int(match[1]), int(match[2] or match[1])
    if first > last:
        raise BadHoles(f"{option} runs backwards: write --lines {last}:{first}")
    lines.check_line(first, option)
    lines.check_line(last, option)
    return Asked(lines.starts[first - 1], lines.ends[last - 1], option)


def find_marked(text: str, marker: str, lines: Lines) -> list[Asked]:
    """Every place where the marker stands, left to right, without overlaps."""
    if not marker:
        raise BadHoles("--hole is empty: name the text that marks a hole, for example --hole '???'")
    with suppress(NothingToFill):
        return [Asked(h.start, h.end, f"{marker} at {lines.position(h.start)}") for h in find_marker(text, marker)]
    return []


def _refuse_overlaps(holes: Sequence[Asked]) -> None:
    for left, right in pairwise(holes):
        if right.start < left.end or right.start == left.start:
            raise BadHoles(f"{left.asked} and {right.asked} overlap: name each place once")
