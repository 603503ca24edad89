"""A text's tokens as a reader sees them: words, numbers, signs, pieces of strings. Offsets are characters."""

import re

from diffcode.holes import Hole
from diffcode.syntax import Code

# Where no grammar is at hand, and for what a tree leaves out: text within error nodes and between a string's escapes.
_LEXEME = re.compile(r"\w+|[^\w\s]")


def lexemes(text: str, start: int, end: int, code: Code | None = None) -> list[Hole]:
    """Tokens that lie wholly in characters [start, end), in order; none is empty or white space."""
    found: list[Hole] = []
    at = start
    for leaf in code.leaves(start, end) if code is not None else ():
        first, last = code.span(leaf) if code is not None else (at, at)
        if text[first:last].strip():
            found += _plain(text, at, first, start, end)
            found.append(_bare(text, first, last))
            at = last
    return found + _plain(text, at, end, start, end)


def is_comment(code: Code | None, lexeme: Hole) -> bool:
    return code is not None and "comment" in next(code.round(lexeme.start, lexeme.end)).type


def _bare(text: str, start: int, end: int) -> Hole:
    """Without the white space that some tokens end with (a line comment of Rust)."""
    inner = text[start:end]
    return Hole(start + len(inner) - len(inner.lstrip()), end - len(inner) + len(inner.rstrip()))


def _plain(text: str, start: int, end: int, first: int, last: int) -> list[Hole]:
    """Without the words that the limits `first` and `last` cut in two."""
    spans = (match.span() for match in _LEXEME.finditer(text, start, end))
    return [Hole(a, b) for a, b in spans if not ((a == first or b == last) and (_cut(text, a) or _cut(text, b)))]


def _cut(text: str, at: int) -> bool:
    """True if a word goes on at `at`."""
    return 0 < at < len(text) and bool(re.match(r"\w\w", text[at - 1 : at + 1]))


def whole(text: str, start: int, end: int) -> tuple[int, int]:
    """The range without white space at its ends, widened to whole words."""
    inner = text[start:end]
    if not inner.strip():
        return start, start
    start, end = start + len(inner) - len(inner.lstrip()), end - len(inner) + len(inner.rstrip())
    while _cut(text, start):
        start -= 1
    while _cut(text, end):
        end += 1
    return start, end
