"""Vary a selection: mask a share of its tokens, to be denoised again; or rewrite all of it.

Only a model that fills many places at once can do the first: what stays holds the shape, what is masked comes anew.
"""

import random
from itertools import pairwise

from diffcode.holes import Hole
from diffcode.lsp.lexemes import is_comment, lexemes, whole
from diffcode.lsp.spot import Spot
from diffcode.syntax import Code

RUN = 3  # tokens masked in a row, on average: a name with its dot and call, an operator with what it joins


def vary(
    text: str, start: int, end: int, strength: float, rng: random.Random, code: Code | None = None
) -> tuple[Hole, ...]:
    """Holes over a share `strength` (0 to 1) of the selection's tokens, in runs of whole tokens; at least one token.

    Comments stay while there is anything else. Empty for a selection of white space.
    """
    start, end = whole(text, start, end)
    every = lexemes(text, start, end, code) or ([Hole(start, end)] if start < end else [])
    tokens = [token for token in every if not is_comment(code, token)] or every
    if not tokens:
        return ()
    count = min(len(tokens), max(1, round(strength * len(tokens))))
    masked = set(_runs(len(tokens), count, rng))
    return _joined(tokens, masked)


def rewrite(text: str, start: int, end: int, code: Code | None = None) -> Hole | None:
    """The selection as one hole: whole words, whole lines where it has more than one, indentation left outside.

    None for white space. A selection that cuts a statement's first or last line takes in all of it.
    """
    start, end = whole(text, start, end)
    if start == end:
        return None
    if code is not None:
        start, end = _whole_tokens(code, start, end)
    if "\n" in text[start:end] or "\r" in text[start:end]:
        first, last = Spot(text, start), Spot(text, end)
        start = first.line[0] + len(first.head) - len(first.head.lstrip()) if first.head.strip() else start
        end = end + len(last.rest.rstrip())
    return Hole(start, end)


def _whole_tokens(code: Code, start: int, end: int) -> tuple[int, int]:
    """A selection that begins or ends within a string, a number or a comment takes in all of it."""
    for at in (start, end):
        leaf = next(code.round(at, at))
        first, last = code.span(leaf)
        if leaf.child_count == 0 and leaf.parent is not None and first < at < last:
            start, end = min(start, first), max(end, last)
    return start, end


def _runs(size: int, count: int, rng: random.Random) -> list[int]:
    """`count` of `size` places, in runs of about RUN, each way to lay such runs out as likely as another."""
    runs = max(1, min(round(count / RUN), size - count + 1))
    lengths = _parts(count, runs, 1, rng)
    gaps = _parts(size - count, runs + 1, 0, rng, inner=1)
    places: list[int] = []
    at = 0
    for gap, length in zip(gaps, lengths, strict=False):
        places += range(at + gap, at + gap + length)
        at += gap + length
    return places


def _parts(total: int, count: int, least: int, rng: random.Random, inner: int | None = None) -> list[int]:
    """`total` cut at random into `count` parts of at least `least`; those that are neither first nor last, `inner`."""
    floors = [least if i in (0, count - 1) or inner is None else inner for i in range(count)]
    spare = total - sum(floors)
    cuts = sorted(rng.choices(range(spare + 1), k=count - 1))
    return [floor + b - a for floor, (a, b) in zip(floors, pairwise([0, *cuts, spare]), strict=True)]


def _joined(tokens: list[Hole], masked: set[int]) -> tuple[Hole, ...]:
    """Masked tokens as holes, neighbours as one."""
    holes: list[Hole] = []
    for place in sorted(masked):
        token = tokens[place]
        if holes and place - 1 in masked:
            holes[-1] = Hole(holes[-1].start, token.end)
        else:
            holes.append(token)
    return tuple(holes)
