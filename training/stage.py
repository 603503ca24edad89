"""What the loop asks of a stage: the loss of some examples, a validation, and an adapter to save."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from diffcode.training.decoder import Decoder, Whole
from diffcode.training.distributed import ALONE, World
from diffcode.training.loss import Scored
from diffcode.training.sampler import Example


class Stage(Protocol):
    """Stage A (`infill_stage`) or stage B (`span_stage`)."""

    decoder: Decoder
    whole: Whole  # every forward happens within its call

    def parameters(self) -> Mapping[str, Tensor]:
        """What is trained, by name; fp32."""

    def rate_of(self, name: str) -> float:
        """Factor on the learning rate of this parameter."""

    def rows(self, example: Example) -> int:
        """How many rows an example takes in a forward; bounds the memory of one."""

    def score(self, examples: Sequence[tuple[int, Example]]) -> Scored:
        """The loss of numbered examples; draws are made from the numbers, so that a resumed run repeats them."""

    def validate(self, examples: Sequence[tuple[int, Example]], world: World = ALONE) -> dict[str, float]:
        """Measures on held-out examples by name; "measure" is the one that says which adapter is better.

        The processes of a world share the work, and all get the result.
        """

    def save(self, folder: Path, note: Mapping[str, object], tensors: Mapping[str, Tensor] | None = None) -> None:
        """Write the adapter, or the whole model; `tensors`: the parameters put together where they are cut."""
