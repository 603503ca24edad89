"""Keys and values of all canvases of a model in one memory, each canvas in a stretch of its own.

A captured step keeps the addresses that it saw. In one memory these are the same for every canvas: only the numbers in
the step's table differ.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcode.kernels.reference import Cache

JUNK = 0  # the place where rows that nobody asked for write
FIRST = 16  # of the places that canvases get; also keeps them aligned
PLACES = 4096  # of a new arena: 50 MB with the default model in bf16
STRIDE = 256  # a stretch is a multiple of it long


@dataclass(frozen=True, slots=True)
class Stretch:
    """Places of one canvas."""

    start: int
    places: int


class Arena:
    """The memory, and who has which part of it. `moved` is called when the memory lies elsewhere."""

    def __init__(
        self,
        layers: int,
        groups: int,
        width: int,
        dtype: torch.dtype,
        device: torch.device,
        places: int = PLACES,
        moved: Callable[[], None] = lambda: None,
    ):
        self.k_LGPK = torch.zeros((layers, groups, places, width), dtype=dtype, device=device)
        self.v_LGPK = torch.zeros_like(self.k_LGPK)
        self._taken: list[Stretch] = []
        self._given: deque[Stretch] = deque()
        self._moved = moved
        self.caches: list[Cache] = []
        self._name()

    @property
    def places(self) -> int:
        return self.k_LGPK.shape[2]

    def take(self, places: int) -> Stretch:
        """A stretch of at least so many places; the memory grows where none is free."""
        while self._given:
            self._taken.remove(self._given.popleft())
        places, start = -(-places // STRIDE) * STRIDE, FIRST
        for taken in self._taken:
            if taken.start - start >= places:
                break
            start = taken.start + taken.places
        if start + places > self.places:
            self._grow(max(start + places, 2 * self.places))
        found = Stretch(start, places)
        self._taken = sorted([*self._taken, found], key=lambda stretch: stretch.start)
        return found

    def give(self, stretch: Stretch) -> None:
        """Back, for others, when one is taken next: a garbage collection may call this amid anything."""
        self._given.append(stretch)

    def move(self, stretch: Stretch, length: int, places: int) -> Stretch:
        """A longer stretch with the first `length` places of this one, which is given back."""
        found = self.take(places)
        for memory in (self.k_LGPK, self.v_LGPK):
            memory[:, :, found.start : found.start + length] = memory[:, :, stretch.start : stretch.start + length]
        self.give(stretch)
        return found

    def _grow(self, places: int) -> None:
        def grown(memory: Tensor) -> Tensor:
            return F.pad(memory, (0, 0, 0, places - memory.shape[2]))

        self.k_LGPK, self.v_LGPK = grown(self.k_LGPK), grown(self.v_LGPK)
        self._name()
        self._moved()

    def _name(self) -> None:
        self.caches = [Cache(k, v) for k, v in zip(self.k_LGPK, self.v_LGPK, strict=True)]
