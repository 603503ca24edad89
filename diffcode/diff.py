"""What edits change, line by line: the rows of a unified diff, for a terminal or for `patch`."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

CONTEXT_LINES = 3  # round every change, as diff has it


class Edit(Protocol):
    """Characters [start, end) of the old text become `text`; a SpanFill is one."""

    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def text(self) -> str: ...


@dataclass(frozen=True, slots=True)
class _Change:
    """Lines [old, old_end) become lines [new, new_end), counted from 0."""

    old: int
    old_end: int
    new: int
    new_end: int


@dataclass(frozen=True, slots=True)
class Row:
    sign: str  # "@", " ", "-" or "+"
    text: str  # a header's words, or a line with its line end
    line: int = 0  # in the old text for "-", else in the new one


def plain_diff(name: str, old: str, new: str, edits: Sequence[Edit]) -> str:
    """A unified diff that `patch -p1` and `git apply` take, or "" if nothing changes."""
    rows = diff_rows(old, new, edits)
    lines = [row.text if row.sign == "@" else row.sign + row.text for row in rows]
    whole = [line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines]
    return "".join([*file_rows(name), *whole]) if rows else ""


def file_rows(name: str) -> Iterator[str]:
    name = name.lstrip("/")
    end = "\t\n" if re.search(r"\s", name) else "\n"  # else patch takes the first word for the name
    yield f"--- a/{name}{end}"
    yield f"+++ b/{name}{end}"


def diff_rows(old: str, new: str, edits: Sequence[Edit]) -> list[Row]:
    """The hunks of a unified diff."""
    old_lines, new_lines = _split(old), _split(new)
    rows: list[Row] = []
    for group in _grouped(_changes(old_lines, new_lines, edits)):
        rows += _hunk(group, old_lines, new_lines)
    return rows


def _split(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)  # \n alone, as patch reads lines


def _changes(old: Sequence[str], new: Sequence[str], edits: Sequence[Edit]) -> list[_Change]:
    """Known from the edits, so that a long file needs no search for what differs."""
    old_starts, new_starts = _starts(old), _starts(new)
    found: list[_Change] = []
    shift = 0
    for edit in edits:
        start, end = edit.start + shift, edit.start + shift + len(edit.text)
        there = _touched(old_starts, len(old), edit.start, edit.end)
        change = _Change(*there, *_touched(new_starts, len(new), start, end))
        if found and (change.old < found[-1].old_end or change.new < found[-1].new_end):
            first = found.pop()
            change = _Change(first.old, change.old_end, first.new, change.new_end)
        found.append(change)
        shift += len(edit.text) - (edit.end - edit.start)
    return _joined(_trimmed(change, old, new) for change in found)


def _starts(lines: Sequence[str]) -> list[int]:
    """Also of the empty line behind a last line end, which is no line to `_split`."""
    return [0, *accumulate(len(line) for line in lines if line.endswith("\n"))]


def _touched(starts: Sequence[int], lines: int, start: int, end: int) -> tuple[int, int]:
    """Lines [first, after) round characters [start, end]."""
    return min(bisect_right(starts, start) - 1, lines), min(bisect_right(starts, end), lines)


def _trimmed(change: _Change, old: Sequence[str], new: Sequence[str]) -> _Change:
    a, a_end, b, b_end = change.old, change.old_end, change.new, change.new_end
    while a < a_end and b < b_end and old[a] == new[b]:
        a, b = a + 1, b + 1
    while a < a_end and b < b_end and old[a_end - 1] == new[b_end - 1]:
        a_end, b_end = a_end - 1, b_end - 1
    return _Change(a, a_end, b, b_end)


def _joined(changes: Iterable[_Change]) -> list[_Change]:
    """Neighbours as one change, and changes of nothing left out."""
    joined: list[_Change] = []
    for change in changes:
        if joined and change.old == joined[-1].old_end and change.new == joined[-1].new_end:
            first = joined.pop()
            change = _Change(first.old, change.old_end, first.new, change.new_end)
        if change.old < change.old_end or change.new < change.new_end:
            joined.append(change)
    return joined


def _grouped(changes: Sequence[_Change]) -> list[list[_Change]]:
    groups: list[list[_Change]] = []
    for change in changes:
        if groups and change.old - groups[-1][-1].old_end <= 2 * CONTEXT_LINES:
            groups[-1].append(change)
        else:
            groups.append([change])
    return groups


def _hunk(group: Sequence[_Change], old: Sequence[str], new: Sequence[str]) -> Iterator[Row]:
    first, last = group[0], group[-1]
    before = min(CONTEXT_LINES, first.old)
    after = min(CONTEXT_LINES, len(old) - last.old_end)
    sizes = (_range(first.old - before, last.old_end + after), _range(first.new - before, last.new_end + after))
    yield Row("@", f"@@ -{sizes[0]} +{sizes[1]} @@\n")
    done = first.new - before
    for change in group:
        yield from (Row(" ", new[line], line) for line in range(done, change.new))
        yield from (Row("-", old[line], line) for line in range(change.old, change.old_end))
        yield from (Row("+", new[line], line) for line in range(change.new, change.new_end))
        done = change.new_end
    yield from (Row(" ", new[line], line) for line in range(done, last.new_end + after))


def _range(start: int, end: int) -> str:
    if end - start == 1:
        return str(start + 1)
    return f"{start + 1 if end > start else start},{end - start}"
