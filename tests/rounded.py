"""Rows as the CPU engine's maps read them."""

import torch
from torch import Tensor


def rounded(x: Tensor, group: int) -> Tensor:
    """8 bits with a scale for each group of the last dimension; bf16 where there are no groups."""
    if group == 0:
        return x.bfloat16().float()
    groups = x.unflatten(-1, (-1, group))
    most = groups.abs().amax(-1, keepdim=True)
    inverse = torch.where(most > 0, torch.full_like(most, 127) / most, 0)  # `127 / most` would round twice
    return ((groups * inverse).round() * (most / 127)).flatten(-2)
