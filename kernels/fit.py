"""Rounding that knows what a map reads: GPTQ (Frantar et al. 2022, arXiv 2210.17323).

Inputs are rounded one after the other, and what that costs on the rows that were seen is made up for by the inputs that
are still to come. Shapes: E outputs, D inputs in n blocks of K, groups of G inputs that share a scale.
"""

import torch
from torch import Tensor

WIDEST = 1216  # inputs whose products are kept at most; two of different blocks count as unrelated
DAMPING = 0.01  # of the mean square of an input, added to each: rows are few, and so are the directions they show
CHUNK = 1 << 14  # outputs at once
# Scales tried for a group, as shares of the one that reaches its largest number.
SHARES = (0.8, 0.86, 0.9, 0.95, 1.0, 1.06, 1.12, 1.2)


class Moments:
    """Sums of the products of a map's inputs over rows, by blocks of inputs."""

    def __init__(self, inputs: int, group: int):
        width = max(size for size in range(group, max(WIDEST, group) + 1, group) if inputs % size == 0)
        self.sums_nKK = torch.zeros(inputs // width, width, width)

    def add(self, x_RD: Tensor) -> None:
        """Rows that the map reads."""
        blocks, width = self.sums_nKK.shape[:2]
        x_nRK = x_RD.float().view(-1, blocks, width).transpose(0, 1)
        self.sums_nKK.baddbmm_(x_nRK.transpose(1, 2), x_nRK)

    def damped(self) -> Tensor:
        """[n, K, K], and invertible. An input that was always zero counts as one, alone."""
        squares_nK = self.sums_nKK.diagonal(dim1=1, dim2=2)
        floor_n1 = DAMPING * squares_nK.mean(1, keepdim=True)
        return self.sums_nKK + torch.diag_embed(torch.where(squares_nK == 0, 1.0, floor_n1))


def fit(weight_ED: Tensor, moments: Moments, bits: int, group: int) -> tuple[Tensor, Tensor]:
    """Unsigned numbers [E, D] (value + 2^(bits - 1)) and bf16 scales [E, D / G] for rows with these moments.

    G must divide K. Scales are of either sign, for there is one negative number more than positive ones.
    """
    moments_nKK = moments.damped()
    # Row k: what is left to know of the inputs from k on when those before are given (section 3.3).
    inverse_nKK = torch.cholesky_inverse(torch.linalg.cholesky(moments_nKK))
    known_nKK = torch.linalg.cholesky(inverse_nKK, upper=True)
    weights_nK = moments_nKK.diagonal(dim1=1, dim2=2)
    parts = [_fit(part_ED, known_nKK, weights_nK, bits, group) for part_ED in weight_ED.split(CHUNK)]
    numbers, scales = zip(*parts, strict=True)
    return torch.cat(numbers), torch.cat(scales)


def _fit(weight_ED: Tensor, known_nKK: Tensor, weights_nK: Tensor, bits: int, group: int) -> tuple[Tensor, Tensor]:
    blocks, width = weights_nK.shape
    open_nKE = weight_ED.float().T.reshape(blocks, width, -1).clone()
    numbers_nKE = torch.empty_like(open_nKE, dtype=torch.uint8)
    scales = []
    for g in range(0, width, group):
        ours, later = slice(g, g + group), slice(g + group, None)
        scale_nE = best_scales(open_nKE[:, ours], weights_nK[:, ours], bits)
        numbers_nKE[:, ours], errors_nGE = _one_by_one(open_nKE[:, ours], known_nKK[:, ours, ours], scale_nE, bits)
        open_nKE[:, later].baddbmm_(known_nKK[:, ours, later].transpose(1, 2), errors_nGE, alpha=-1)
        scales.append(scale_nE)
    scales_ngE = torch.stack(scales, 1).flatten(0, 1)
    return numbers_nKE.flatten(0, 1).T.contiguous(), scales_ngE.T.bfloat16().contiguous()


def _one_by_one(open_nGE: Tensor, known_nGG: Tensor, scale_nE: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """A group's numbers, and the errors that the later inputs make up for. `open_nGE` is changed on the way."""
    least, most = -(1 << bits - 1), (1 << bits - 1) - 1
    inverse_nE = torch.where(scale_nE == 0, 0, 1 / scale_nE)
    numbers_nGE, errors_nGE = torch.empty_like(open_nGE), torch.empty_like(open_nGE)
    for i in range(open_nGE.shape[1]):
        number_nE = (open_nGE[:, i] * inverse_nE).round_().clamp_(least, most)
        error_nE = (open_nGE[:, i] - number_nE * scale_nE) / known_nGG[:, i, i, None]
        open_nGE[:, i + 1 :].baddbmm_(known_nGG[:, i, i + 1 :, None], error_nE[:, None], alpha=-1)
        numbers_nGE[:, i], errors_nGE[:, i] = number_nE, error_nE
    return numbers_nGE.add_(-least).byte(), errors_nGE


def best_scales(open_nGE: Tensor, weights_nG: Tensor, bits: int) -> Tensor:
    """Of some scales for each group the one whose rounding errors, squared and weighed by inputs, are least; [n, E]."""
    least, most = -(1 << bits - 1), (1 << bits - 1) - 1
    largest_nE = open_nGE.gather(1, open_nGE.abs().argmax(1, keepdim=True))[:, 0]
    best_nE, lowest_nE = torch.zeros_like(largest_nE), torch.full_like(largest_nE, torch.inf)
    for share in (*SHARES, *(-share for share in SHARES)):
        scale_nE = (largest_nE * (share / least)).bfloat16().float()
        inverse_nE = torch.where(scale_nE == 0, 0, 1 / scale_nE)
        rounded_nGE = (open_nGE * inverse_nE[:, None]).round_().clamp_(least, most).mul_(scale_nE[:, None])
        cost_nE = torch.einsum("nge,ng->ne", rounded_nGE.sub_(open_nGE).square_(), weights_nG)
        best_nE = torch.where(cost_nE < lowest_nE, scale_nE, best_nE)
        lowest_nE = torch.minimum(lowest_nE, cost_nE)
    return best_nE
