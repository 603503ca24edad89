"""Spans behind many starts of one text, masked as decoding meets them (DESIGN 2.1 and 7).

Positions count the text's ids: the context, then the middle, which ends with the end token. A span behind start s has
the places s to s + W - 1; the row at place j says what stands at place j + 1.
"""

import random
from dataclasses import dataclass

from diffcode.training.options import DenoisingOptions

MASKED = -1


@dataclass(frozen=True, slots=True)
class Span:
    """One span: what its rows are shown, and what they are scored on."""

    start: int
    shown: tuple[int, ...]  # a token or MASKED, a place each
    previous: tuple[int, ...]  # the token that the head is told to stand at each row's own place
    targets: tuple[int, ...]  # of each row; -1 where it is not scored
    weights: tuple[float, ...]


def draw_spans(
    ids: tuple[int, ...], first: int, middle: int, end: int, options: DenoisingOptions, rng: random.Random
) -> list[Span]:
    """`options.starts` spans of the text `ids`, or as many as there are places from `first` on.

    `middle` is where the middle begins; the end token `end` stands last. Spans that show tokens come in pairs with
    complementary masks: each place behind the first is scored in one of the two, which takes noise out of the draw.
    """
    places = range(first, len(ids) - 1)
    inside = [p for p in places if p >= middle - 1]
    wanted = min(options.starts, len(places))
    spans: list[Span] = []
    used: set[int] = set()
    left = {"inside": rng.sample(inside, len(inside)), "all": rng.sample(places, len(places))}
    while len(spans) < wanted:
        start = left["inside" if left["inside"] and rng.random() < options.near_middle else "all"].pop()
        if start in used:
            continue
        used.add(start)
        for known in _patterns(options, rng):
            spans.append(make_span(ids, start, end, known, options, rng))
    return spans[:wanted]


def _patterns(options: DenoisingOptions, rng: random.Random) -> list[frozenset[int]]:
    """The places to be shown behind one start: none, or a pair of complementary draws."""
    if rng.random() < options.all_masked:
        return [frozenset()]
    rate = rng.uniform(0, options.island_rate)
    known = frozenset(w for w in range(1, options.window) if rng.random() < rate)
    return [known, frozenset(range(1, options.window)) - known]


def make_span(
    ids: tuple[int, ...], start: int, end: int, known: frozenset[int], options: DenoisingOptions, rng: random.Random
) -> Span:
    """The span behind `start` that shows the places `known` (numbered from the start, 0 never)."""
    true = [ids[p] if p < len(ids) else end for p in range(start, start + options.window + 1)]
    shown = [MASKED] * options.window
    wrong = set()
    for w in sorted(known):
        if start + w < len(ids):
            shown[w] = true[w]
            if rng.random() < options.noise:
                shown[w] = rng.choice(ids)
                wrong.add(w)
    targets, weights, unknown = [], [], 0
    for w in range(options.window):
        unknown = unknown + 1 if shown[w] == MASKED else 0
        behind = w + 1
        open_ = behind == options.window or shown[behind] == MASKED or behind in wrong
        dead = start + behind >= len(ids)
        targets.append(true[behind] if open_ else -1)
        weights.append(options.dead_weight if dead else options.decay ** max(unknown - 1, 0))
    previous = [true[w] if shown[w] == MASKED else shown[w] for w in range(options.window)]
    return Span(start, tuple(shown), tuple(previous), tuple(targets), tuple(weights))
