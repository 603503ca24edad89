"""From a tokenised corpus to examples: a canvas, and what its span must become.

Example number i of a seed is always the same, so a run's place in its data is one number.
"""

import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from diffcode.canvas import make_block, normalise
from diffcode.config import WindowOptions
from diffcode.errors import UnreadableFile
from diffcode.holes import Hole
from diffcode.syntax import LANGUAGES, parse, pieces
from diffcode.tokens import Tokens
from diffcode.training.dataset import Dataset
from diffcode.training.options import KINDS, SpanOptions

WHOLE = WindowOptions(budget=1 << 16)  # the window is drawn here, the canvas need not cut it
TRIES = 200
WORD = re.compile(r"\w+|[^\w\s]+")


@dataclass(frozen=True, slots=True)
class Example:
    """A canvas with its answer. `context` ends where the span begins, `middle` ends with the end token."""

    context: tuple[int, ...]
    middle: tuple[int, ...]
    kind: str
    language: str


class Sampler:
    """Draws examples from the given documents of a set, every token of them equally often."""

    def __init__(self, dataset: Dataset, documents: range, tokens: Tokens, options: SpanOptions, seed: int):
        self._dataset, self._documents, self._tokens = dataset, documents, tokens
        self._options, self._seed = options, seed
        lengths = [dataset.length(d) for d in documents]
        if sum(lengths) < options.window[0]:
            raise UnreadableFile(f"{dataset.folder} has too little text to learn from: build it from more sources")
        self._ends = np.cumsum(lengths)

    def example(self, index: int) -> Example:
        """Example number `index`."""
        rng = random.Random(f"{self._seed}:{index}")
        for _ in range(TRIES):
            open_ended = rng.random() < self._options.open_ended
            text, language = self._window(rng, open_ended)
            options = replace(self._options, no_suffix=float(open_ended))
            found = cut(text, language, rng, options, self._tokens)
            if found is not None:
                return found
        raise UnreadableFile(f"{self._dataset.folder} has no text that a hole can be cut into: look at it with inspect")

    def _window(self, rng: random.Random, last: bool = False) -> tuple[str, str]:
        """A stretch of whole lines, and its language; `last`: with the document's end."""
        at = rng.randrange(int(self._ends[-1]))
        which = int(np.searchsorted(self._ends, at, side="right"))
        document = self._documents[which]
        ids = self._dataset.ids(document)
        low, high = self._options.window
        size = round(math.exp(rng.uniform(math.log(low), math.log(high + 1))))
        first = len(ids) if last else at - int(self._ends[which]) + len(ids) - rng.randrange(size)
        first = max(0, min(first, len(ids) - size))
        text = normalise(self._tokens.decode(ids[first : first + size].tolist()))
        if first > 0:
            text = text[text.find("\n") + 1 :]
        if first + size < len(ids):
            text = text[: text.rfind("\n") + 1]
        return text, self._dataset.language(document)


def cut(text: str, language: str, rng: random.Random, options: SpanOptions, tokens: Tokens) -> Example | None:
    """Take a span out of `text`; None where this draw gives none."""
    kind = rng.choices(KINDS, [getattr(options, k) for k in KINDS])[0]
    place = PLACES[kind](text, language, rng, options)
    if place is None:
        return None
    start, end = place
    low = start if rng.random() < options.no_prefix else 0
    high = len(text)
    if rng.random() < options.open_ended:  # a middle that stopped anywhere would teach to stop anywhere
        end = high
    shown, hole = text[low:high], Hole(start - low, end - low)
    block = make_block(shown, [hole], [""], 0, tokens, WHOLE)
    try:
        middle = block.heal.decode("utf8") + text[start:end]
    except UnicodeDecodeError:  # the cut would re-open half a character
        return None
    ids = tokens.encode(middle)
    if len(ids) > options.most_tokens:
        return None
    return Example(block.context, (*ids, tokens.fim.end), kind, language)


def preview(dataset: Dataset, tokens: Tokens, seed: int, count: int) -> Iterator[str]:
    """Examples as the model will see them, control tokens by name, for people to read."""
    sampler = Sampler(dataset, dataset.training, tokens, SpanOptions(), seed)
    names = {tokens.fim.prefix: "<prefix>", tokens.fim.suffix: "<suffix>", tokens.fim.middle: "<middle>"}
    for i in range(count):
        example = sampler.example(i)
        canvas = "".join(names.get(t) or tokens.decode([t]) for t in example.context)
        yield f"[{example.kind}, {example.language}]\n{canvas}⟦{tokens.decode(example.middle)}⟧<end>"


Place = tuple[int, int] | None


def _lines(text: str, _language: str, rng: random.Random, options: SpanOptions) -> Place:
    """1 to `most_lines` whole lines, with or without the last line's end and the first line's indent."""
    starts = [0, *(i + 1 for i, c in enumerate(text) if c == "\n")]
    count = min(1 + int(rng.expovariate(0.5)), options.most_lines)
    first = rng.randrange(len(starts))
    start = starts[first]
    end = starts[first + count] if first + count < len(starts) else len(text)
    if not text[start:end].strip():
        return None
    if rng.random() < 0.4:  # the cursor stands behind the indent
        start += len(text[start:end]) - len(text[start:end].lstrip(" \t"))
    if rng.random() < 0.5:
        end -= text[start:end].endswith("\n")
    return start, end


def _rest_of_line(text: str, _language: str, rng: random.Random, _options: SpanOptions) -> Place:
    if not text:
        return None
    start = rng.randrange(len(text))
    end = text.find("\n", start)
    end = len(text) if end < 0 else end
    return (start, end) if end > start else None


def _nodes(text: str, language: str, rng: random.Random, _options: SpanOptions) -> Place:
    if language not in LANGUAGES:
        return None
    found = pieces(parse(text, language))
    if not found:
        return None
    by_kind: dict[str, list[int]] = {}
    for number, piece in enumerate(found):
        by_kind.setdefault(piece.kind, []).append(number)
    piece = found[rng.choice(by_kind[rng.choice(sorted(by_kind))])]
    raw = text.encode("utf8")
    start = len(raw[: piece.start].decode("utf8"))
    return start, start + len(raw[piece.start : piece.end].decode("utf8"))


def _characters(text: str, _language: str, rng: random.Random, options: SpanOptions) -> Place:
    if not text:
        return None
    length = round(math.exp(rng.uniform(0, math.log(options.most_characters))))
    start = rng.randrange(len(text))
    return start, min(start + length, len(text))


def _words(text: str, _language: str, rng: random.Random, _options: SpanOptions) -> Place:
    """Whole words of one line, the first of them no operator: one in half of the draws, seldom more than six."""
    names = [m for m in WORD.finditer(text) if m[0][0].isalnum() or m[0][0] == "_"]
    if not names:
        return None
    first = rng.choice(names)
    line_end = text.find("\n", first.end())
    line = list(WORD.finditer(text, first.start(), len(text) if line_end < 0 else line_end))
    count = 1 if rng.random() < 0.5 else 2 + int(rng.expovariate(0.5))
    return first.start(), line[:count][-1].end()


def _empty(text: str, _language: str, rng: random.Random, _options: SpanOptions) -> Place:
    at = rng.randint(0, len(text))
    return at, at


PLACES = {
    "lines": _lines,
    "rest_of_line": _rest_of_line,
    "nodes": _nodes,
    "characters": _characters,
    "words": _words,
    "empty": _empty,
}
