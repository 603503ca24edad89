"""How likely the tokens of a text are to the model, given what stands before each of them and behind the whole part.

Nothing is written: the base rows say what they expected.
"""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

from diffcode.canvas import make_block, normalise
from diffcode.config import WindowOptions
from diffcode.contexts import Contexts
from diffcode.engine import Model
from diffcode.holes import check_holes, line_start
from diffcode.policies import Guess
from diffcode.reading import read_tokens


@dataclass(frozen=True, slots=True)
class TokenDoubt:
    """Characters [start, end) of the text are one token, or touch it where it is a part of a character."""

    start: int
    end: int
    # The token's probability is no more than this. It is exact where the token is the likeliest one; of any other one
    # it is known that the second likeliest has this.
    bound: float
    instead: str  # the likeliest token's text


def read_doubts(
    model: Model,
    text: str,
    start: int,
    end: int,
    window: WindowOptions,
    contexts: Contexts | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> tuple[TokenDoubt, ...]:
    """Every token of characters [start, end), the first line from its beginning. Raises BadHoles, Cancelled."""
    start = line_start(text, start)
    holes = check_holes(text, [(start, max(start, end))])
    part = text[start : holes[0].end]
    block = make_block(text, holes, [""], 0, model.tokens, window)
    ids = model.tokens.encode(normalise(part))
    session = model.session(None, 0.0, contexts, getattr(cancelled, "flag", None), open_ended=block.open_ended)
    try:
        expected = read_tokens(session, block.context, ids, cancelled)
    finally:
        session.close()
    spans = _spans(part, [model.tokens.bytes_of(token) for token in ids])
    return tuple(
        TokenDoubt(start + a, start + b, _bound(guess, token), _shown(model, guess))
        for (a, b), token, guess in zip(spans, ids, expected, strict=True)
    )


def _bound(guess: Guess, token: int) -> float:
    return guess.probability if guess.token == token else max(0.0, guess.probability - guess.margin)


def _shown(model: Model, guess: Guess) -> str:
    if model.tokens.is_end(guess.token):
        return ""
    return model.tokens.bytes_of(guess.token).decode("utf8", errors="replace")


def _spans(part: str, pieces: list[bytes]) -> list[tuple[int, int]]:
    """Characters of `part` that each piece of its normalised form touches."""
    # Where each character of the normalised form stands in `part`; one more stands for the end.
    places = [i for i, char in enumerate(part) if not (char == "\n" and part[i - 1 : i] == "\r")] + [len(part)]
    first_bytes = list(accumulate((len(char.encode("utf8")) for char in normalise(part)), initial=0))
    ends = list(accumulate(map(len, pieces)))
    spans = []
    for first, end in zip([0, *ends], ends, strict=False):
        a, b = bisect_right(first_bytes, first) - 1, bisect_right(first_bytes, end - 1)
        spans.append((places[a], places[b]))
    return spans
