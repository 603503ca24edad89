"""A document as the protocol describes it, done the slow and plain way; shares nothing with diffcode.lsp."""

import random
from dataclasses import dataclass

# what str.splitlines takes for line ends and editors do not, characters of every width, half a line end
CHARACTERS = ["a", "b", " ", "\t", "é", "ß", "漢", "😀", "𝔸", "\f", "\v", "\x1c", "\x85", "\u2028", "\u2029", "\ufeff"]
ENDS = ["\n", "\r\n", "\r"]


def width(character: str, encoding: str) -> int:
    """Code units of one character."""
    code = ord(character)
    if encoding == "utf-8":
        return 1 + (code >= 0x80) + (code >= 0x800) + (code >= 0x10000)
    return 2 if encoding == "utf-16" and code >= 0x10000 else 1


@dataclass
class Model:
    """The text, and its lines as (start, end) with the line end left out."""

    text: str
    encoding: str

    def lines(self) -> list[tuple[int, int]]:
        found, start, at = [], 0, 0
        while at < len(self.text):
            if self.text[at] in "\r\n":
                found.append((start, at))
                at += 2 if self.text[at : at + 2] == "\r\n" else 1
                start = at
            else:
                at += 1
        return [*found, (start, len(self.text))]

    def offset(self, line: int, character: int) -> int:
        lines = self.lines()
        if line >= len(lines):
            return len(self.text)
        at, end = lines[line]
        while at < end and width(self.text[at], self.encoding) <= character:
            character -= width(self.text[at], self.encoding)
            at += 1
        return at

    def position(self, offset: int) -> tuple[int, int]:
        lines = self.lines()
        line = max(n for n, (start, _) in enumerate(lines) if start <= offset)
        start, end = lines[line]
        return line, sum(width(c, self.encoding) for c in self.text[start : min(offset, end)])

    def change(self, change: dict) -> None:
        """One entry of contentChanges."""
        if "range" not in change:
            self.text = change["text"]
            return
        start, end = (self.offset(**change["range"][side]) for side in ("start", "end"))
        self.text = self.text[: min(start, end)] + change["text"] + self.text[max(start, end) :]


def random_text(chance: random.Random, ends: list[str], length: int) -> str:
    return "".join(
        chance.choice(ends if chance.random() < 0.2 else CHARACTERS) for _ in range(chance.randrange(length))
    )


def random_change(chance: random.Random, model: Model, ends: list[str]) -> dict:
    """Mostly near a real place, at times far to the right of one, behind the text, backwards or the whole text."""
    text = random_text(chance, ends, 9)
    if chance.random() < 0.03:
        return {"text": text}

    def place() -> dict:
        line, character = model.position(chance.randint(0, len(model.text)))
        character += chance.choice([0, 0, 0, 0, 1, 2, 1000])
        return {"line": line, "character": character}

    start, end = place(), place()
    if chance.random() < 0.6:
        end = dict(start)
    elif (start["line"], start["character"]) > (end["line"], end["character"]) and chance.random() < 0.9:
        start, end = end, start
    if chance.random() < 0.05:
        end = {"line": len(model.lines()), "character": 0}
    return {"range": {"start": start, "end": end}, "text": text}
