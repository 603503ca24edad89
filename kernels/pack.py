"""Weights in the 8-bit form that the CPU engine reads: blocks of 32 outputs, a scale for each group of inputs.

The layout is that of `kernels/cpu/ops.h`. A map [E, D] becomes weights uint8 [E / 32, D / 4, 32, 4] (value + 128) and
scales fp32 [E / 32, D / G, 32]; E is padded to a multiple of 32.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 32
GROUP = 128  # inputs that share a scale, where they divide by it; chosen on held-out code


@dataclass(frozen=True, slots=True)
class PackedLinear:
    """One linear map, ready for the engine."""

    weights: Tensor  # uint8 [E / 32, D / 4, 32, 4]
    scales: Tensor  # fp32 [E / 32, D / G, 32]
    bias: Tensor | None  # fp32 [E]
    outputs: int  # before padding

    @property
    def inputs(self) -> int:
        return self.weights.shape[1] * 4

    @property
    def padded(self) -> int:
        return self.weights.shape[0] * BLOCK

    @property
    def group(self) -> int:
        return self.inputs // self.scales.shape[1]


def pack_linear(weight_ED: Tensor, bias_E: Tensor | None = None, group: int = GROUP) -> PackedLinear:
    """Round a map to 8 bits, symmetric, by groups of inputs. D must divide by 4."""
    outputs, inputs = weight_ED.shape
    size = group_of(inputs, group)
    padding = -outputs % BLOCK
    weight = torch.nn.functional.pad(weight_ED.float(), (0, 0, 0, padding))
    groups = weight.view(outputs + padding, inputs // size, size)
    scales = groups.abs().amax(-1) / 127
    rounded = torch.round(groups / scales.clamp_min(1e-30)[..., None]).clamp(-127, 127)
    blocks = (rounded + 128).to(torch.uint8).view(-1, BLOCK, inputs // 4, 4).transpose(1, 2).contiguous()
    bias = None if bias_E is None else torch.nn.functional.pad(bias_E.float(), (0, padding))
    return PackedLinear(blocks, scales.view(-1, BLOCK, inputs // size).transpose(1, 2).contiguous(), bias, outputs)


def pick_outputs(packed: PackedLinear, outputs_N: Tensor) -> PackedLinear:
    """Some outputs of a packed map that has no bias, each as it was rounded."""
    every = torch.cat([outputs_N, outputs_N.new_zeros(-len(outputs_N) % BLOCK)])
    block, lane = every // BLOCK, every % BLOCK
    weights = packed.weights[block, :, lane].unflatten(0, (-1, BLOCK)).transpose(1, 2).contiguous()
    scales = packed.scales[block, :, lane].unflatten(0, (-1, BLOCK)).transpose(1, 2).contiguous()
    return PackedLinear(weights, scales, None, len(outputs_N))


def unpack_linear(packed: PackedLinear) -> Tensor:
    """The map that the engine computes with, fp32 [E, D]: the specification of the rounding."""
    values = packed.weights.transpose(1, 2).reshape(packed.padded, packed.inputs).float() - 128
    scales = packed.scales.transpose(1, 2).reshape(packed.padded, -1).repeat_interleave(packed.group, 1)
    return (values * scales)[: packed.outputs]


def group_of(inputs: int, most: int) -> int:
    """The largest multiple of 4 that divides `inputs` and is at most `most`."""
    if inputs % 4:
        raise ValueError(f"{inputs} inputs do not divide by 4")
    return next(size for size in range(min(most, inputs) // 4 * 4, 0, -4) if inputs % size == 0)
