"""Where a fill ends: stop strings, the line's end, and the point from which it would repeat what follows the hole.

The cut at the suffix is a safety net for models that do not know where a hole ends: they close the caller's bracket,
write the rest of his line, or go on with his next lines.
"""

from dataclasses import dataclass

OPENERS, CLOSERS = "([{", ")]}"
REPEATED_CHARACTERS = 12  # one whole repeated line of this much ink is no accident while the model is still writing


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
            at = repeated_rest(text, rest)
            if at is not None or self.one_line:
                return at
        if not done and not text.endswith("\n"):
            return None
        certain = done and not self.inserts_line  # a line that equals the next one may be meant, a long one hardly
        return repeated_lines(text, self.suffix, 1 if certain else REPEATED_CHARACTERS)


def repeated_rest(text: str, rest: str) -> int | None:
    """Where a text inside a line begins to repeat the `rest` of that line, None if it does not.

    Two signs: a bracket is closed that the text did not open and that the rest closes too; or the text ends with the
    rest, word for word.
    """
    closer = unmatched_closer(text)
    if closer is not None and rest.lstrip().startswith(text[closer]):
        return len(text[:closer].rstrip()) if rest[0].isspace() else closer
    words = sum(char.isalnum() for char in rest)
    if words >= 3 and text.rstrip().endswith(rest.strip()):
        return len(text.rstrip()) - len(rest.strip())
    return None


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
