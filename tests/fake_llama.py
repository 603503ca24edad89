"""llama-cpp-python's interface, made up."""

import ctypes
from typing import Any

import numpy as np
import torch

from diffcode.infill import Infiller


class Library:
    """llama-cpp-python's interface over diffcode's own base: the same weights must give the same fills."""

    def __init__(self, infiller: Infiller):
        self._model = infiller.model
        self.loaded: list[dict[str, Any]] = []
        self.evaluated: list[list[int]] = []

    def Llama(self, path: str, **options: Any) -> "Library":  # noqa: N802
        self.loaded.append({"path": path, **options})
        self.ctx = "the context"
        return self

    def reset(self) -> None:
        self._cache = self._model.backbone.new_cache(512)

    @property
    def n_tokens(self) -> int:
        return self._cache.length

    @n_tokens.setter
    def n_tokens(self, count: int) -> None:
        self._cache.length = count

    def close(self) -> None:
        pass

    def n_vocab(self) -> int:
        return len(self._model.backbone.head_VD)

    def eval(self, ids: list[int]) -> None:
        self.evaluated.append(ids)
        backbone, start = self._model.backbone, self._cache.length
        seen_RR = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
        positions_R = torch.arange(start, start + len(ids))
        x_RD = backbone.forward(backbone.embed(ids), positions_R, self._cache, seen_RR, 0, None)
        self._cache.length += len(ids)
        self._last = (x_RD[-1] @ backbone.head_VD.T).float().numpy().copy()

    def llama_get_logits_ith(self, ctx: object, row: int) -> Any:
        assert (ctx, row) == (self.ctx, -1)
        return np.ascontiguousarray(self._last).ctypes.data_as(ctypes.POINTER(ctypes.c_float))
