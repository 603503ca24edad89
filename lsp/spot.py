"""A place in a text, and what its line and the syntax round it say. Plain text; offsets are characters."""

import re
from dataclasses import dataclass
from functools import cached_property

from diffcode.holes import line_start
from diffcode.stops import brackets, in_string
from diffcode.syntax import Code, Node, faults

LINE_END = re.compile(r"[\r\n]")
CLOSING = " \t)]}>;:,\"'`/"  # what an editor may have put behind the cursor by itself
COMMENT = re.compile(r"\s*(#|//|--|/\*|\*|<!--|;;)")
# A line that a deeper one must follow. A colon alone may be a key, a slice or an annotation.
PYTHON_OPENER = re.compile(
    r"\s*(?:(?:async\s+)?(?:def|class|if|elif|else|for|while|try|except|finally|with|match|case)\b|\)).*:$"
)
_QUOTES = {"char_literal", "character_literal", "rune_literal", "regex"}
_LITERAL = "string"  # is in the name of every other kind of text literal


@dataclass(frozen=True)
class Spot:
    """A cursor. `code` is the parsed text, None where there is no grammar for it."""

    text: str
    at: int
    code: Code | None = None

    @property
    def language(self) -> str | None:
        return self.code.language if self.code else None

    @cached_property
    def line(self) -> tuple[int, int]:
        start = line_start(self.text, self.at)
        end = LINE_END.search(self.text, self.at)
        return start, end.start() if end else len(self.text)

    @property
    def head(self) -> str:
        """What stands left of the cursor on its line."""
        return self.text[self.line[0] : self.at]

    @property
    def rest(self) -> str:
        """What stands right of the cursor on its line."""
        return self.text[self.at : self.line[1]]

    @cached_property
    def above(self) -> str:
        """The nearest line above that is not blank, "" if there is none."""
        return next(iter(lines_above(self.text, self.line[0], 1)), "")

    @cached_property
    def below(self) -> str:
        """The nearest line below that is not blank, "" if there is none."""
        return next(iter(lines_below(self.text, self.line[1], 1)), "")

    @cached_property
    def faulty(self) -> bool:
        """True if a syntax error touches the line, or if that cannot be known."""
        if self.code is None:
            return True
        start, end = self.code.byte_of(self.line[0]), self.code.byte_of(self.line[1])
        return any(node.start_byte <= end and start <= node.end_byte for node in faults(self.code.root))


def indentation(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" \t"))]


def lines_above(text: str, start: int, count: int) -> list[str]:
    """At most `count` non-blank lines that end at or before `start`, the nearest first."""
    found: list[str] = []
    while start > 0 and len(found) < count:
        end = start - 1
        start = line_start(text, end)
        if text[start:end].strip():
            found.append(text[start:end])
    return found


def lines_below(text: str, end: int, count: int) -> list[str]:
    """At most `count` non-blank lines behind the line that ends at `end`, the nearest first."""
    found: list[str] = []
    while end < len(text) and len(found) < count:
        start = end + 1
        stop = LINE_END.search(text, start)
        end = stop.start() if stop else len(text)
        if text[start:end].strip():
            found.append(text[start:end])
    return found


def opens_body(line: str, language: str | None) -> bool:
    """True if `line` ends with what a block begins with."""
    line = line.rstrip()
    if language in (None, "python") and PYTHON_OPENER.match(line):
        return True
    return language != "python" and line.endswith("{") and not line.endswith(("${", "={"))


def body_behind(spot: Spot) -> bool:
    """True if the block that the cursor's line opens has something in it."""
    return len(indentation(spot.below)) > len(indentation(spot.head))


def in_comment(spot: Spot) -> bool:
    """In a comment, or at its end with nothing behind."""
    if spot.code is None:
        return bool(COMMENT.match(spot.head))
    for node in spot.code.round(spot.at, spot.at):
        start, end = spot.code.span(node)
        if "comment" in node.type and start < spot.at < end:
            return True
    last = spot.line[0] + len(spot.head.rstrip())
    if not spot.head.strip() or spot.rest.strip():
        return False
    return any("comment" in node.type for node in spot.code.round(last - 1, last))


def in_text(spot: Spot) -> bool:
    """In a string or a character literal, also in one that is not closed; code put into a string is code."""
    if spot.code is None:
        return in_string(spot.head)
    for node in spot.code.round(spot.at, spot.at):
        start, end = spot.code.span(node)
        if not start < spot.at < end:
            continue
        if "interpolation" in node.type or "substitution" in node.type:
            return False
        if _is_text(node):
            return True
    return spot.faulty and _in_open_text(spot)


def _is_text(node: Node) -> bool:
    return node.is_named and (_LITERAL in node.type or node.type in _QUOTES) and node.type != "predefined_type"


def _in_open_text(spot: Spot) -> bool:
    """A quote that nothing closes makes no node of its own: tree-sitter reads on behind it."""
    marks = {"python": ('"""', "'''"), "javascript": ("`",), "typescript": ("`",), "tsx": ("`",), "go": ("`",)}
    before = spot.text[: spot.at]
    if any(before.count(mark) % 2 for mark in marks.get(spot.language or "", ())):
        return True
    head = spot.head.replace('"""', "").replace("'''", "")
    return in_string(head.replace("'", "") if spot.language == "rust" else head)  # a life time is no character


def wants_lines(spot: Spot) -> bool:
    """True if what belongs here is likely several lines: a body that is not there yet, the next lines of a block."""
    if spot.rest.strip(CLOSING):
        return False
    head, above = spot.head, spot.above
    if head.strip():
        return in_comment(spot) or (opens_body(head, spot.language) and not body_behind(spot))
    if opens_body(above, spot.language) or _announces(above):
        return True
    if spot.rest.strip() or brackets(above)[0] or above.rstrip().endswith((",", "\\")):
        return False
    return bool(head)


def _announces(line: str) -> bool:
    """A comment, the end of a docstring or a decorator: what it speaks of comes next."""
    line = line.strip()
    return bool(COMMENT.match(line)) or line.startswith("@") or line.endswith(('"""', "'''", "*/"))
