"""What the base makes of tokens that stand already: they are the drafts of a few forwards, and nothing is written."""

from collections.abc import Callable, Sequence
from math import log

import torch
from torch import Tensor

from diffcode.canvas import CHARACTERS_A_TOKEN, Block
from diffcode.contexts import Contexts
from diffcode.denoise import Session
from diffcode.engine import Model
from diffcode.errors import CANCELLED, Cancelled
from diffcode.policies import Guess
from diffcode.tokens import Tokens

CHUNK = 32  # tokens a forward: each row asks the whole head, and between two forwards one may be stopped
AHEAD = 16  # tokens of what follows that `reads_on` looks at; 8 and 24 chose as well
CERTAIN = 1e9  # noise in nats that no logit outweighs
LEAST = 1e-30  # a smaller probability is as bad


def read_tokens(
    session: Session, context: Sequence[int], ids: Sequence[int], cancelled: Callable[[], bool] | None = None
) -> list[Guess]:
    """The base's guess at the place of each of `ids`, behind `context` and those before it. Raises Cancelled."""
    guesses: list[Guess] = []
    fresh = list(context)
    for at in range(0, len(ids), CHUNK):
        if cancelled is not None and cancelled():
            raise Cancelled(CANCELLED)
        *drafts, last = ids[at : at + CHUNK]
        base, _ = session.step(fresh, drafts, (), (), at, [None] * (len(drafts) + 1))
        session.keep(len(fresh) + len(drafts))
        guesses += base
        fresh = [last]
    return guesses


def reads_on(
    model: Model, block: Block, text: str, contexts: Contexts | None, cancelled: Callable[[], bool] | None = None
) -> float:
    """log p(text, the beginning of what follows | what stands before), in nats, read from left to right.

    It orders the fills of one hole as p(text | both sides) does (Bayes: what stands before is the same for all). The
    canvas shows the suffix first, so that the model writes with it in view, but not how well a fill leads on to it.
    Raises Cancelled.
    """
    ids = _joined(block, text, model.tokens)
    context = block.prefix(model.tokens.fim) or (model.tokens.fim.end,)  # documents stood behind one another
    flag = getattr(cancelled, "flag", None)
    session = model.session(_always(ids, model), 1.0, contexts, flag)
    try:
        return sum(log(max(LEAST, guess.probability)) for guess in read_tokens(session, context, ids, cancelled))
    finally:
        session.close()


def _joined(block: Block, text: str, tokens: Tokens) -> list[int]:
    """The fill and what follows as they are tokenised together; of what follows the same characters for every fill."""
    ahead = tokens.encode(block.suffix[: AHEAD * CHARACTERS_A_TOKEN])[:AHEAD]
    return tokens.encode((block.heal + text.encode() + tokens.decode_bytes(ahead)).decode(errors="ignore"))


def _always(ids: Sequence[int], model: Model) -> Callable[[int], Tensor]:
    """Noise that has every place take its token of `ids`: the guess then says how likely that one is."""

    def at(place: int) -> Tensor:
        noise_V = torch.zeros(model.backbone.shape.vocabulary, device=model.backbone.device)
        noise_V[ids[place]] = CERTAIN
        return noise_V

    return at
