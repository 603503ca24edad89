"""Where a fill ends: stop strings, the line's end, its block's end, and the point from which it would repeat what
follows the hole.

The cut at the suffix is a safety net for models that do not know where a hole ends: they close the caller's bracket,
write the rest of his line, or go on with his next lines.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from diffcode.blocks import CLOSERS, block_end

OPENERS = "([{"
# Visible characters that make a repetition no accident: at the end of a line, within it, of whole lines while the model
# is still writing.
LITTLE_INK, SOME_INK, MUCH_INK = 1, 3, 12


@dataclass(frozen=True, slots=True)
class Cut:
    """The fill's final text and why it ends there: "eos", "stop", "line", "block", "suffix" or "budget"."""

    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class StopRule:
    """All that may end one fill."""

    suffix: str  # what follows the hole, line ends as "\n"
    stops: tuple[str, ...] = ()
    one_line: bool = False
    inserts_line: bool = False
    whole_lines: bool = False  # the fill must end with a line end, whatever the model says
    head: str = ""  # what stands left of the hole on its line
    one_block: bool = False  # the fill ends with the block that it begins

    def check(self, text: str) -> Cut | None:
        """The cut, if `text` (the span so far) has reached one. Looked at after every single token."""
        ends = [(text.find(stop) + len(stop), text.find(stop), "stop") for stop in self.stops if stop in text]
        if self.one_line and "\n" in text:
            ends.append((text.find("\n") + 1, text.find("\n") + self.inserts_line, "line"))
        if (at := self._block_end(text)) is not None:
            ends.append((at, at, "block"))
        if ends:
            _, at, reason = min(ends)  # the one met first
            return self._trimmed(text[:at], reason)
        repeat = self._repeats_from(text, done=False)
        return None if repeat is None else Cut(text[:repeat], "suffix")

    def finish(self, text: str, reason: str) -> Cut:
        """The final text when the model ended by itself ("eos") or ran out of tokens ("budget")."""
        at = self._block_end(text)
        return self._trimmed(text[:at], reason)

    def _block_end(self, text: str) -> int | None:
        return block_end(self.head, text) if self.one_block else None

    def _trimmed(self, text: str, reason: str) -> Cut:
        at = self._repeats_from(text, done=True)
        if at is not None:
            return Cut(text[:at], reason)
        asked_for = reason == "stop" and any("\n" in stop for stop in self.stops)  # then the caller adds it
        # White space is the next line's indentation.
        unfinished = self.inserts_line and text.rpartition("\n")[2].strip() and not asked_for
        return Cut(text + "\n" if unfinished and not self._joins(reason) else text, reason)

    def _joins(self, reason: str) -> bool:
        """The model ended the fill within a line, and so means it to go on in the suffix's first line.

        It was trained to end a line that it inserts: of 144 pieces of library code that were whole lines and that it
        ended itself, none lacked the end, and of 4 without one all went on in the next line.
        """
        whole = self.one_line or self.whole_lines or self.suffix[:1].isspace()
        return reason == "eos" and not whole

    def _repeats_from(self, text: str, done: bool) -> int | None:
        """Offset from which `text` repeats the suffix, None if it does not. Greedier once the text is `done`."""
        rest = "" if self.inserts_line else self.suffix.split("\n", 1)[0].rstrip()
        if rest.strip():
            at = self._repeats_rest(text, rest, done)
            if at is not None or self.one_line:
                return at
        if not done and not text.endswith("\n"):
            return None
        certain = done and not self.inserts_line  # a line that equals the next one may be meant, a long one hardly
        at = repeated_lines(self.head + text, self.suffix, 1 if certain else MUCH_INK)
        return None if at is None else max(0, at - len(self.head))

    def _repeats_rest(self, text: str, rest: str, done: bool) -> int | None:
        """Where a text inside a line begins to repeat the `rest` of that line, None if it does not.

        Two signs: the text closes a bracket that is for the rest to close, in the same way as the rest begins; or it
        ends with the whole rest, and that has letters or digits.
        """
        text_to_close = max(0, len(brackets(self.head)[0]) - len(brackets(rest)[1]))
        closers = brackets(text)[1][text_to_close:] if done or not in_string(text) else []
        found = _overlap(text[: closers[0] + 1], rest) if closers else None
        ink = sum(char.isalnum() for char in rest)
        if found is None and ink >= (LITTLE_INK if done else SOME_INK) and text.rstrip().endswith(rest.strip()):
            found = len(text.rstrip()) - len(rest.strip())
        if found is not None and rest[0].isspace():
            return len(text[:found].rstrip())
        return found


def _overlap(text: str, rest: str) -> int | None:
    """Offset of the longest end of `text` that `rest` begins with, white space at its start aside."""
    rest = rest.lstrip()
    return next((i for i in range(len(text)) if rest.startswith(text[i:])), None)


def brackets(text: str) -> tuple[list[int], list[int]]:
    """Offsets of the brackets that `text` leaves open, and of those that it closes without having opened them.

    Brackets in complete string literals do not count.
    """
    opened: list[int] = []
    closed: list[int] = []
    for i in _code_offsets(text):
        if text[i] in OPENERS:
            opened.append(i)
        elif text[i] in CLOSERS and opened:
            opened.pop()
        elif text[i] in CLOSERS:
            closed.append(i)
    return opened, closed


def in_string(text: str) -> bool:
    """True if the last line of the text ends inside a string literal."""
    last = text[text.rfind("\n") + 1 :]
    quote = ""
    for i, char in enumerate(last):
        if quote and char == quote and not _escaped(last, i):
            quote = ""
        elif not quote and char in "\"'":
            quote = char
    return bool(quote)


def _code_offsets(text: str) -> Iterator[int]:
    """Offsets of the characters outside string literals; a quote without its partner on the line opens none."""
    quote = ""
    for i, char in enumerate(text):
        if quote:
            if char == "\n" or (char == quote and not _escaped(text, i)):
                quote = ""
        elif char in "\"'" and char in text[i + 1 :].split("\n", 1)[0]:
            quote = char
        else:
            yield i


def _escaped(text: str, at: int) -> bool:
    """True if an odd number of backslashes stands before `at`."""
    before = text[:at]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


def repeated_lines(text: str, suffix: str, ink: int) -> int | None:
    """Where the last lines of `text` begin to be the first lines of `suffix`, with at least `ink` visible characters.

    Blank lines between do not matter. The longest such run counts.
    """
    mine, at = [], 0
    for line in text.split("\n"):
        if line.strip():
            mine.append((at, line.rstrip()))
        at += len(line) + 1
    theirs = [line.rstrip() for line in suffix.split("\n") if line.strip()]
    for first, (offset, _) in enumerate(mine):
        run = [line for _, line in mine[first:]]
        if run == theirs[: len(run)] and sum(len("".join(line.split())) for line in run) >= ink:
            opens_line = suffix[:1].isspace() and not suffix.split("\n", 1)[0].strip()
            return len(text[:offset].rstrip()) if opens_line else offset
    return None
