"""An exponential moving average of parameters: steadier than the last step, and no cooldown is needed to use it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Average:
    """Shadow copies; young averages forget faster, so that the start does not linger."""

    def __init__(self, parameters: Mapping[str, Tensor], decay: float):
        self._parameters, self._decay = parameters, decay
        self.shadow = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        keep = min(self._decay, (1 + step) / (10 + step))
        for name, parameter in self._parameters.items():
            self.shadow[name].lerp_(parameter.detach(), 1 - keep)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within this, the parameters hold their averages."""
        mine = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._set(self.shadow)
        try:
            yield
        finally:
            self._set(mine)

    @torch.no_grad()
    def _set(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(values[name])
