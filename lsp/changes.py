"""What differs between two texts, token by token, and where in the new one a place of the old one is."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import accumulate

from diffcode.holes import Hole
from diffcode.lsp.lexemes import lexemes
from diffcode.syntax import Code

MOST_TOKENS = 3000  # of a run of changed lines: more is no edit whose ripples one can follow


@dataclass(frozen=True, slots=True)
class Pair:
    """A token of the old text that became another one."""

    before: Hole
    after: Hole
    old: str
    new: str


class Changes:
    """From `before` to `after`."""

    def __init__(self, before: Code, after: Code):
        self.before, self.after = before, after
        self.window_before, self.window_after = _windows(before.text, after.text)
        self.pairs: list[Pair] = []
        self._runs: list[tuple[int, int, int]] = []  # unchanged: start before, end before, start after
        self._compare_lines()
        self._starts = [run[0] for run in self._runs]

    def _compare_lines(self) -> None:
        (start, end), (start_after, end_after) = self.window_before, self.window_after
        old, new = _Lines(self.before.text, start, end), _Lines(self.after.text, start_after, end_after)
        self._runs.append((0, start, 0))
        for tag, i, i_end, j, j_end in SequenceMatcher(None, old.lines, new.lines, autojunk=False).get_opcodes():
            if tag == "equal":
                self._runs.append((old.starts[i], old.starts[i_end], new.starts[j]))
            else:
                self._compare_tokens((old.starts[i], old.starts[i_end]), (new.starts[j], new.starts[j_end]))
        self._runs.append((end, len(self.before.text), end_after))

    def _compare_tokens(self, before: tuple[int, int], after: tuple[int, int]) -> None:
        old, new = lexemes(self.before.text, *before, self.before), lexemes(self.after.text, *after, self.after)
        if max(len(old), len(new)) > MOST_TOKENS:
            return
        texts = [self.before.text[t.start : t.end] for t in old], [self.after.text[t.start : t.end] for t in new]
        for tag, i, i_end, j, j_end in SequenceMatcher(None, *texts, autojunk=False).get_opcodes():
            tokens = list(zip(old[i:i_end], new[j:j_end], strict=False))
            if tag == "equal":
                self._runs += [(a.start, a.end, b.start) for a, b in tokens]
            elif tag == "replace" and i_end - i == j_end - j:
                spelt = zip(tokens, texts[0][i:i_end], texts[1][j:j_end], strict=True)
                self.pairs += [Pair(a, b, x, y) for (a, b), x, y in spelt]

    def moved(self, start: int, end: int) -> Hole | None:
        """Where the unchanged characters [start, end) of the old text are now; None if they were touched."""
        first, last = self.offset(start), self.offset(end, behind=True)
        if first is None or last is None or self.before.text[start:end] != self.after.text[first:last]:
            return None
        return Hole(first, last)

    def offset(self, at: int, behind: bool = False) -> int | None:
        """Where the character at `at` is now; with `behind`, the end of what ends at `at`."""
        place = bisect_right(self._starts, at - behind) - 1
        for start, end, now in self._runs[max(0, place - 1) : place + 1][::-1]:
            if start <= at - behind < end or (start <= at < end) or (at == end == len(self.before.text)):
                return now + at - start
        return None

    def place_of(self, at: int) -> int | None:
        """Where the token that begins at `at` is now, be it the same or replaced by one other."""
        replaced = next((pair.after.start for pair in self.pairs if pair.before.start == at), None)
        return self.offset(at) if replaced is None else replaced

    def touched(self, start: int, end: int) -> bool:
        """True if characters [start, end) of the old text are not all as they were."""
        return self.moved(start, end) is None


class _Lines:
    """Lines of a part of a text, with their ends, and where they start; one more start is the end."""

    def __init__(self, text: str, start: int, end: int):
        self.lines = text[start:end].splitlines(keepends=True)
        self.starts = list(accumulate(map(len, self.lines), initial=start))


def _windows(before: str, after: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """The whole lines that differ, in each text."""
    same = _common(before, after)
    tail = _common(before[same:][::-1], after[same:][::-1])
    start = before.rfind("\n", 0, same) + 1
    end = before.find("\n", len(before) - tail)
    end = len(before) if end < 0 else end
    return (start, end), (start, end + len(after) - len(before))


def _common(before: str, after: str) -> int:
    """Length of what both begin with, by halving: comparing slices is quicker than characters."""
    low, high = 0, min(len(before), len(after))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if before[low:middle] == after[low:middle] else (low, middle - 1)
    return low


def renamed_tokens(changes: Changes) -> Iterator[Pair]:
    """Words that became other words."""
    return (pair for pair in changes.pairs if _is_name(pair.old) and _is_name(pair.new))


def _is_name(text: str) -> bool:
    return text.removeprefix("#").replace("$", "_").isidentifier()
