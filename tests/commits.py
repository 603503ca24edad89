"""Random forwards for `commit`: few tokens, so that base and drafts agree often, and numbers on the bounds."""

import torch
from torch import Tensor

from diffcode.kernels.reference_commit import MASKED, Forwarded, Guesses, Placed

TOKENS = 6
ENDS = torch.tensor([False] * (TOKENS - 1) + [True])
BOUNDS = {"leftmost": 0.0, "verified": 0.3, "threshold": 0.95, "margin": 0.93, "entropy_bound": 0.1, "edit": 0.5}
EXACT = {policy: 0.0625 if policy == "entropy_bound" else 0.5 for policy in BOUNDS}  # numbers that are drawn, too
NUMBERS = (0.05, 0.3, 0.3, 0.5, 0.6, 0.9, 0.93, 0.95, 0.97, 1.0)  # as fp32 they lie on either side of the bounds
ENTROPIES = (0.0, 0.0, 0.03, 0.0625, 0.0625, 0.0625, 0.1, 0.2)


def forwarded(fills: int, most: int, window: int, anchors: int, spans: int, seed: int) -> Forwarded:
    """B fills, N drafts at most, W window places, A anchors of S rows."""
    random = torch.Generator().manual_seed(seed)

    def pick(values: tuple[float, ...], *shape: int) -> Tensor:
        return torch.tensor(values)[torch.randint(len(values), shape, generator=random)]

    def token(*shape: int) -> Tensor:
        return torch.randint(TOKENS, shape, generator=random)

    drafts_B = torch.randint(most + 1, (fills,), generator=random)
    base = token(fills, most + 1)
    agreed = torch.rand(fills, most, generator=random) < 0.7
    draft = torch.where(agreed, base[:, :most], token(fills, most))
    draft[torch.arange(most) >= drafts_B[:, None]] = MASKED
    shown = token(fills, window).masked_fill(torch.rand(fills, window, generator=random) < 0.6, MASKED)
    standing = torch.stack([torch.randperm(most + 1, generator=random)[:anchors] for _ in range(fills)])
    if anchors > 0:
        standing[:, -1] = torch.where(torch.rand(fills, generator=random) < 0.8, drafts_B, standing[:, -1])
        for a in range(anchors - 1):
            standing[:, a][standing[:, a] == standing[:, -1]] = MASKED
    shape = (fills, anchors, spans)
    rows = Guesses(token(*shape), pick(NUMBERS, *shape), pick(NUMBERS, *shape), pick(ENTROPIES, *shape))
    shown_p = pick(NUMBERS, fills, window).masked_fill(shown == MASKED, 0)
    return Forwarded(
        Placed(draft, pick(NUMBERS, fills, most)), drafts_B, Placed(base, pick(NUMBERS, fills, most + 1)),
        Placed(shown, shown_p), rows, standing,
    )  # fmt: skip
