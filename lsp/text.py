"""A text as the language server protocol counts it: lines that end at \\n, \\r\\n or \\r, columns in code units.

The text is a row of pieces of a few thousand characters, each with its number of code units and line ends. An edit
replaces the pieces that it touches, so it costs the same wherever it falls, also in a line of a megabyte. A Text never
changes: the model's thread keeps the one it started from while the user types on.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Literal, NamedTuple, get_args

from diffcode.errors import DiffcodeError

Encoding = Literal["utf-8", "utf-16", "utf-32"]
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)

# Characters a piece. One edit costs a few pieces' worth of counting plus one addition for every piece of the text:
# 4096 keeps both at some 20 microseconds up to a few megabytes.
PIECE = 4096
_LINE_END = re.compile(r"\r\n|\n|\r")
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_CODECS: dict[Encoding, tuple[str, int]] = {"utf-8": ("utf-8", 1), "utf-16": ("utf-16-le", 2)}


class BadPosition(DiffcodeError, ValueError):
    """A line that the text does not have."""

    exit_code = 2


class Position(NamedTuple):
    """A line and a column in code units, both counted from 0."""

    line: int
    character: int

    def json(self) -> dict[str, int]:
        return {"line": self.line, "character": self.character}


class Range(NamedTuple):
    """Two positions, the second one excluded."""

    start: Position
    end: Position

    def json(self) -> dict[str, dict[str, int]]:
        return {"start": self.start.json(), "end": self.end.json()}


def units(text: str, encoding: Encoding) -> int:
    """How many code units a text without halves of surrogate pairs has."""
    if encoding == "utf-32" or text.isascii():
        return len(text)
    codec, width = _CODECS[encoding]
    return len(text.encode(codec)) // width


def characters(text: str, count: int, encoding: Encoding) -> int:
    """How many characters end within the first `count` code units; the rest of a cut one is left out."""
    if encoding == "utf-32" or text.isascii():
        return min(count, len(text))
    codec, width = _CODECS[encoding]
    return len(text.encode(codec)[: count * width].decode(codec, "ignore"))


def whole(text: str) -> str:
    """The text with U+FFFD for every half of a surrogate pair.

    Editors that count in utf-16 can send halves. U+FFFD has as many code units in all encodings, so that columns stay
    right, and unlike a half it can be encoded.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return _HALF_PAIR.sub("\ufffd", text)
    return text


class _Piece:
    __slots__ = ("_ends", "breaks", "text", "units")

    def __init__(self, text: str, encoding: Encoding) -> None:
        self.text = text
        self.units = units(text, encoding)
        self.breaks = text.count("\n") + text.count("\r") - text.count("\r\n")
        self._ends: list[int] | None = None

    @property
    def ends(self) -> list[int]:
        """The offset behind every line end."""
        if self._ends is None:
            self._ends = [match.end() for match in _LINE_END.finditer(self.text)] if self.breaks else []
        return self._ends


class Text:
    """A text that never changes. Offsets count its characters, positions the encoding's code units."""

    __slots__ = ("_breaks", "_characters", "_pieces", "_string", "_units", "encoding")

    def __init__(self, pieces: Sequence[_Piece], encoding: Encoding) -> None:
        self.encoding: Encoding = encoding
        self._pieces = pieces
        # what stands before each piece, and at the end the total
        self._characters = list(accumulate((len(piece.text) for piece in pieces), initial=0))
        self._units = list(accumulate((piece.units for piece in pieces), initial=0))
        self._breaks = list(accumulate((piece.breaks for piece in pieces), initial=0))
        self._string: str | None = None

    @classmethod
    def of(cls, text: str, encoding: Encoding) -> "Text":
        return cls(_cut(whole(text), encoding), encoding)

    def __len__(self) -> int:
        return self._characters[-1]

    def __str__(self) -> str:
        if self._string is None:
            self._string = "".join(piece.text for piece in self._pieces)
        return self._string

    @property
    def lines(self) -> int:
        """One more than there are line ends."""
        return self._breaks[-1] + 1

    def slice(self, start: int, end: int) -> str:
        """Characters [start, end) without joining the whole text."""
        first, last = self._piece_at(start), self._piece_at(end)
        joined = "".join(piece.text for piece in self._pieces[first : last + 1])
        return joined[start - self._characters[first] : end - self._characters[first]]

    def line_start(self, line: int) -> int:
        """The offset of a line's first character."""
        if line == 0:
            return 0
        index = bisect_left(self._breaks, line) - 1
        return self._characters[index] + self._pieces[index].ends[line - self._breaks[index] - 1]

    def line_end(self, line: int) -> int:
        """The offset behind a line's last character, its line end left out."""
        if line + 1 >= self.lines:
            return len(self)
        index = bisect_left(self._breaks, line + 1) - 1
        piece = self._pieces[index]
        behind = piece.ends[line - self._breaks[index]]
        return self._characters[index] + behind - (2 if piece.text.endswith("\r\n", 0, behind) else 1)

    def line(self, line: int) -> str:
        """A line without its line end."""
        return self.slice(self.line_start(line), self.line_end(line))

    def offset(self, position: Position) -> int:
        """The offset of a position. Columns past the end of a line mean its end, columns within a character its start.

        The line behind the last one is the end of the text: so do editors name the end of a whole document. Raises
        BadPosition for any line behind that.
        """
        if not 0 <= position.line <= self.lines:
            raise BadPosition(f"line {position.line} lies outside a text of {self.lines} lines")
        if position.line == self.lines:
            return len(self)
        start, end = self.line_start(position.line), self.line_end(position.line)
        return min(self._ahead(start, max(position.character, 0)), end)

    def position(self, offset: int) -> Position:
        """The position of an offset; one between \\r and \\n moves before both."""
        offset = min(max(offset, 0), len(self))
        index = self._piece_at(offset)
        line = self._breaks[index] + bisect_right(self._pieces[index].ends, offset - self._characters[index])
        offset = min(offset, self.line_end(line))
        return Position(line, self._units_before(offset) - self._units_before(self.line_start(line)))

    def span(self, range_: Range) -> tuple[int, int]:
        """A range as two offsets in order. An end behind the text is the text's end, as in VS Code's own store."""
        start = self.offset(range_.start)
        end = len(self) if range_.end.line >= self.lines else self.offset(range_.end)
        return (start, end) if start <= end else (end, start)

    def range(self, start: int, end: int) -> Range:
        """Characters [start, end) as a range."""
        return Range(self.position(start), self.position(end))

    def replace(self, start: int, end: int, new: str) -> "Text":
        """The text with other characters for [start, end)."""
        first, last = self._piece_at(start), self._piece_at(end)
        # Where the edit meets a seam the neighbour joins in: so no \r\n ever falls apart into two pieces.
        if first > 0 and start == self._characters[first]:
            first -= 1
        left = "".join(piece.text for piece in self._pieces[first : self._piece_at(start) + 1])
        region = left[: start - self._characters[first]] + whole(new)
        region += self._pieces[last].text[end - self._characters[last] :]
        if len(region) < PIECE // 2 and last + 1 < len(self._pieces):  # small pieces would add up
            last += 1
            region += self._pieces[last].text
        pieces = [*self._pieces[:first], *_cut(region, self.encoding), *self._pieces[last + 1 :]]
        return Text(pieces, self.encoding)

    def _piece_at(self, offset: int) -> int:
        return min(bisect_right(self._characters, offset) - 1, len(self._pieces) - 1)

    def _units_before(self, offset: int) -> int:
        index = self._piece_at(offset)
        return self._units[index] + units(self._pieces[index].text[: offset - self._characters[index]], self.encoding)

    def _ahead(self, start: int, count: int) -> int:
        """The offset that lies `count` code units behind another one."""
        if self.encoding == "utf-32":
            return start + count
        target = self._units_before(start) + count
        index = min(bisect_right(self._units, target) - 1, len(self._pieces) - 1)
        inside = characters(self._pieces[index].text, target - self._units[index], self.encoding)
        return self._characters[index] + inside


def _cut(text: str, encoding: Encoding) -> list[_Piece]:
    """At least one piece; none begins with the \\n of a \\r\\n."""
    pieces, at = [], 0
    while len(text) - at > 2 * PIECE:
        to = at + PIECE
        to += text[to - 1] == "\r" and text[to] == "\n"
        pieces.append(_Piece(text[at:to], encoding))
        at = to
    return [*pieces, _Piece(text[at:], encoding)]
