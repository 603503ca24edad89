"""Where a fill ends: stop strings, the line's end, and the point from which it would repeat what follows the hole.

The cut at the suffix is a safety net for models that do not know where a hole ends: they close the caller's bracket,
write the rest of his line, or go on with his next lines.
"""

from dataclasses import dataclass

OPENERS, CLOSERS = "([{", ")]}"
# Visible characters that make a repetition no accident: at the end of a line, within it, of whole lines while the model
# is still writing.
LITTLE_INK, SOME_INK, MUCH_INK = 1, 3, 12


@dataclass(frozen=True, slots=True)
class Cut:
    """The fill's final text and why it ends there: "eos", "stop", "line", "suffix" or "budget"."""

    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class StopRule:
    """All that may end one fill."""

    suffix: str  # what follows the hole, line ends as "\n"
    stops: tuple[str, ...] = ()
    one_line: bool = False
    inserts_line: bool = False

    def check(self, text: str) -> Cut | None:
        """The cut, if `text` (the span so far) has reached one. Looked at after every single token."""
        ends = [(text.find(stop), "stop") for stop in self.stops if stop in text]
        if self.one_line and "\n" in text:
            ends.append((text.find("\n") + self.inserts_line, "line"))
        if ends:
            at, reason = min(ends)
            return self._trimmed(text[:at], reason)
        repeat = self._repeats_from(text, done=False)
        return None if repeat is None else Cut(text[:repeat], "suffix")

    def finish(self, text: str, reason: str) -> Cut:
        """The final text when the model ended by itself ("eos") or ran out of tokens ("budget")."""
        return self._trimmed(text, reason)

    def _trimmed(self, text: str, reason: str) -> Cut:
        at = self._repeats_from(text, done=True)
        if at is not None:
            return Cut(text[:at], reason)
        unfinished = self.inserts_line and reason == "eos" and text and not text.endswith("\n")
        return Cut(text + "\n" if unfinished else text, reason)

    def _repeats_from(self, text: str, done: bool) -> int | None:
        """Offset from which `text` repeats the suffix, None if it does not. Greedier once the text is `done`."""
        rest = "" if self.inserts_line else self.suffix.split("\n", 1)[0].rstrip()
        if rest.strip():
            at = repeated_rest(text, rest, LITTLE_INK if done else SOME_INK)
            if at is not None or self.one_line:
                return at
        if not done and not text.endswith("\n"):
            return None
        certain = done and not self.inserts_line  # a line that equals the next one may be meant, a long one hardly
        return repeated_lines(text, self.suffix, 1 if certain else MUCH_INK)


def repeated_rest(text: str, rest: str, ink: int) -> int | None:
    """Where a text inside a line begins to repeat the `rest` of that line, None if it does not.

    Two signs: the text closes a bracket that it did not open, in the same way as the rest begins; or the text ends
    with the whole rest, which has at least `ink` letters and digits.
    """
    closer = unmatched_closer(text)
    if closer is not None:
        found = _overlap(text[: closer + 1], rest)
    elif sum(char.isalnum() for char in rest) >= ink and text.rstrip().endswith(rest.strip()):
        found = len(text.rstrip()) - len(rest.strip())
    else:
        return None
    if found is not None and rest[0].isspace():
        return len(text[:found].rstrip())
    return found


def _overlap(text: str, rest: str) -> int | None:
    """Offset of the longest end of `text` that `rest` begins with, white space at its start aside."""
    rest = rest.lstrip()
    return next((i for i in range(len(text)) if rest.startswith(text[i:])), None)


def unmatched_closer(text: str) -> int | None:
    """Offset of the first closing bracket that `text` did not open; brackets in its string literals do not count."""
    depth, quote = 0, ""
    for i, char in enumerate(text):
        if quote:
            quote = "" if (char == quote and text[i - 1] != "\\") or char == "\n" else quote
        elif char in "\"'" and char in text[i + 1 :].split("\n", 1)[0]:
            quote = char
        elif char in OPENERS:
            depth += 1
        elif char in CLOSERS:
            if depth == 0:
                return i
            depth -= 1
    return None


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
            return offset
    return None
