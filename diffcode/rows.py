"""The layout of one forward: which rows there are, where they stand, and what they see."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Noise = Callable[[int], Tensor]  # place -> Gumbel noise [V]


@dataclass(frozen=True, slots=True)
class Favours:
    """(output of the head, nats): whose logit counts as larger where tokens are chosen, by the two kinds of rows."""

    base: tuple[int, float] | None = None
    span: tuple[int, float] | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """The layout of one forward: fresh tokens, drafts, then one copy of the window for every anchor."""

    fresh: int
    drafts: int
    window: int
    anchors: tuple[int, ...]  # numbers of drafts behind which a window stands

    @property
    def chain(self) -> int:
        return self.fresh + self.drafts

    @property
    def span_rows(self) -> int:
        return self.window * len(self.anchors)

    def span_places(self, first_place: int) -> list[int]:
        """The place that each span row guesses; `first_place` is the one that the first base row decides."""
        return [first_place + anchor + w + 1 for anchor in self.anchors for w in range(self.window)]

    def positions(self, start: int) -> list[int]:
        """Rotary positions, the cached context ending before `start`."""
        chain = range(start, start + self.chain)
        windows = (start + self.fresh + anchor + w for anchor in self.anchors for w in range(self.window))
        return [*chain, *windows]

    def sights(self) -> list[tuple[int, int, int]]:
        """What each new row sees beside the context: the new rows before the first number, and between the others."""
        chain = [(row + 1, 0, 0) for row in range(self.chain)]
        windows = range(self.chain, self.chain + self.span_rows, self.window or 1)
        pairs = zip(self.anchors, windows, strict=True)
        return chain + [(self.fresh + a, w, w + self.window) for a, w in pairs for _ in range(self.window)]

    def seen(self) -> Tensor:
        """Which new row (second index) each new row may look at, bool [R, R]."""
        until_R, first_R, last_R = torch.tensor(self.sights()).unbind(1)
        column_R = torch.arange(len(until_R))
        between_RR = (column_R >= first_R[:, None]) & (column_R < last_R[:, None])
        return (column_R < until_R[:, None]) | between_RR


def allowed_tokens(allowed: Sequence[list[int] | None], vocabulary: int, device: torch.device) -> Tensor | None:
    """Which tokens may stand at each base row's place, bool [R, V]; None where all may everywhere."""
    if all(ids is None for ids in allowed):
        return None
    allowed_RV = torch.ones(len(allowed), vocabulary, dtype=torch.bool, device=device)
    for row, ids in enumerate(allowed):
        if ids is not None:
            allowed_RV[row] = False
            if ids:  # through an array: torch reads a list of all tokens but one slower than it runs a layer
                allowed_RV[row, torch.frombuffer(array("i", ids), dtype=torch.int32).long()] = True
    return allowed_RV


def noise_at(noise: Noise | None, places: Sequence[int], kept_N: Tensor | None = None) -> Tensor | None:
    """The noise of several places, [R, V], or [R, N] of the kept tokens alone; None where there is no chance."""
    if noise is None or not places:
        return None
    return torch.stack([n if kept_N is None else n[kept_N] for n in map(noise, places)])
