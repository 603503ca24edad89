"""Weights in the forms that the CPU engine reads: blocks of 32 outputs in bf16, or in 8, 5 or 4 bits with a scale for
each group of inputs.

The layout is that of `kernels/cpu/ops.h`. A map [E, D] becomes bf16 in the order [E / 32, D / 2, 32, 2], or unsigned
numbers (value + 2^(bits - 1)) in the order [E / 32, D / 4, 32, 4], under 8 bits several to a byte, and scales bf16
[E / 32, D / G, 32]; E is padded to a multiple of 32.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 32
GROUP = 128  # inputs that share a scale, where they divide by it; chosen on held-out code
CHUNK = 1 << 20  # numbers that are rounded at once
# Of the outputs' squares, kept where a product of two maps is narrowed: 224 of 512 dimensions of the shipped adapter.
SHARE = 0.985


@dataclass(frozen=True, slots=True)
class Form:
    """How a map is rounded."""

    bits: int = 8  # 16: bf16
    group: int = GROUP  # 0: no scales


INT8 = Form()
BF16 = Form(16, 0)


@dataclass(frozen=True, slots=True)
class PackedLinear:
    """One linear map, ready for the engine."""

    weights: (
        Tensor  # bf16 [E / 32, D / 2, 32, 2]; uint8 [E / 32, D / 4, 32, 4] of 8 bits, else [E / 32, D / 8, 32 * bits]
    )
    scales: Tensor  # bf16 [E / 32, D / G, 32], of bf16 weights [E / 32, 0, 32]
    bias: Tensor | None  # fp32 [E]
    outputs: int  # before padding

    @property
    def bits(self) -> int:
        if self.weights.dtype == torch.bfloat16:
            return 16
        return 8 if self.weights.ndim == 4 else self.weights.shape[2] // BLOCK

    @property
    def inputs(self) -> int:
        return self.weights.shape[1] * (self.weights.shape[3] if self.weights.ndim == 4 else 8)

    @property
    def padded(self) -> int:
        return self.weights.shape[0] * BLOCK

    @property
    def group(self) -> int:
        return self.inputs // self.scales.shape[1] if self.scales.shape[1] else 0

    @property
    def form_beside(self) -> Form:
        """That of small maps in the same model."""
        return BF16 if self.bits == 16 else INT8


def pack_linear(weight_ED: Tensor, bias_E: Tensor | None = None, form: Form = INT8) -> PackedLinear:
    """Round a map, by groups of inputs if not to bf16. D must divide by 4; less than 8 bits are had where D and groups
    divide by 8."""
    outputs, inputs = weight_ED.shape
    if form.bits == 16:
        return pack_numbers(weight_ED.bfloat16(), weight_ED.new_zeros(outputs, 0, dtype=torch.bfloat16), bias_E, 16)
    size = group_of(inputs, form.group)
    bits = form.bits if size % 8 == 0 else 8
    parts = weight_ED.reshape(-1, size).split(max(1, CHUNK // size))
    values, scales = zip(*(_round(part.float(), bits) for part in parts), strict=True)
    return pack_numbers(torch.cat(values).view(outputs, inputs), torch.cat(scales).view(outputs, -1), bias_E, bits)


def pack_numbers(values_ED: Tensor, scales_EN: Tensor, bias_E: Tensor | None, bits: int) -> PackedLinear:
    """A rounded map: bf16 or unsigned numbers, and a scale for each of N groups of inputs."""
    outputs = len(values_ED)
    padding = (0, 0, 0, -outputs % BLOCK)
    values_ED, scales_EN = F.pad(values_ED, padding, value=_zero(bits)), F.pad(scales_EN, padding)
    bias = None if bias_E is None else F.pad(bias_E.float(), padding[2:])
    scales = scales_EN.view(len(values_ED) // BLOCK, BLOCK, scales_EN.shape[1]).transpose(1, 2).contiguous()
    return PackedLinear(_blocks(values_ED, bits), scales, bias, outputs)


def _round(groups_GN: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Unsigned numbers [G, N] and bf16 scales [G].

    8 bits are symmetric. Fewer have one negative number more than positive ones, so the scale takes the sign that
    gives the largest value that number (llama.cpp's Q4_0). Tried: the best of five scales for each group lessens the
    error by 2 % of 5 bits and 3 % of 4, and packing takes four times as long.
    """
    top = 1 << (bits - 1)
    if bits == 8:
        scale_G = _up(groups_GN.abs().amax(1) / (top - 1))
    else:
        scale_G = (groups_GN.gather(1, groups_GN.abs().argmax(1, keepdim=True))[:, 0] / -top).bfloat16().float()
    return _numbers(groups_GN, scale_G, bits).add_(top).byte(), scale_G.bfloat16()


def _numbers(groups_GN: Tensor, scale_G: Tensor, bits: int) -> Tensor:
    least, most = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    inverse_G = torch.where(scale_G == 0, 0, 1 / scale_G)
    return (groups_GN * inverse_G[:, None]).round_().clamp_(-most if bits == 8 else least, most)


def _up(scale_G: Tensor) -> Tensor:
    """The next bf16 number that is not smaller, so that nothing is clipped."""
    near_G = scale_G.bfloat16().float()
    above_G = torch.nextafter(near_G.bfloat16(), torch.tensor(torch.inf).bfloat16()).float()
    return torch.where(near_G < scale_G, above_G, near_G)


def _zero(bits: int) -> int:
    """The number that stands for zero."""
    return 0 if bits == 16 else 1 << bits - 1


def _blocks(values_ED: Tensor, bits: int) -> Tensor:
    """Numbers in the order that a tile reads them."""
    if bits == 16:
        return values_ED.view(-1, BLOCK, values_ED.shape[1] // 2, 2).transpose(1, 2).contiguous()
    fours = values_ED.view(-1, BLOCK, values_ED.shape[1] // 4, 4).transpose(1, 2)
    if bits == 8:
        return fours.contiguous()
    pairs = fours.reshape(len(fours), -1, 2, BLOCK * 4)  # [E / 32, D / 8, 2, 128]
    nibbles = (pairs[:, :, 0] & 15) | (pairs[:, :, 1] & 15) << 4
    if bits == 4:
        return nibbles
    fifths = (pairs >> 4).reshape(*pairs.shape[:2], BLOCK, 8) << torch.arange(8, dtype=torch.uint8)
    return torch.cat([nibbles, fifths.sum(-1, dtype=torch.uint8)], 2)


def _numbers_of(packed: PackedLinear) -> Tensor:
    """Numbers [E / 32, D / 4, 32, 4], of bf16 [E / 32, D / 2, 32, 2]: what `_blocks` was given."""
    if packed.bits >= 8:
        return packed.weights
    nibbles = packed.weights[:, :, : BLOCK * 4]
    pairs = torch.stack([nibbles & 15, nibbles >> 4], 2)
    if packed.bits == 5:
        fifths = packed.weights[:, :, BLOCK * 4 :, None] >> torch.arange(8, dtype=torch.uint8) & 1
        pairs |= fifths.view(pairs.shape) << 4
    return pairs.view(len(pairs), -1, BLOCK, 4)


def pick_outputs(packed: PackedLinear, outputs_N: Tensor) -> PackedLinear:
    """Some outputs of a packed map that has no bias, each as it was rounded."""
    every = torch.cat([outputs_N, outputs_N.new_zeros(-len(outputs_N) % BLOCK)])
    block, lane = every // BLOCK, every % BLOCK
    numbers = _numbers_of(packed)[block, :, lane].flatten(1)
    scales = packed.scales[block, :, lane].unflatten(0, (len(every) // BLOCK, BLOCK)).transpose(1, 2).contiguous()
    return PackedLinear(_blocks(numbers, packed.bits), scales, None, len(outputs_N))


def unpack_linear(packed: PackedLinear) -> Tensor:
    """The map that the engine computes with, fp32 [E, D]: the specification of the rounding."""
    values = _numbers_of(packed).transpose(1, 2).reshape(packed.padded, packed.inputs).float() - _zero(packed.bits)
    if not packed.group:
        return values[: packed.outputs]
    scales = packed.scales.float().transpose(1, 2).reshape(packed.padded, -1).repeat_interleave(packed.group, 1)
    return (values * scales)[: packed.outputs]


def product(packed: PackedLinear, up_Dr: Tensor) -> tuple[PackedLinear, PackedLinear]:
    """`packed(up(x))` as two maps in 8 bits or bf16, [E, k] and [k, r], k as narrow as SHARE allows.

    The r dimensions are turned so that the outputs are largest in the first ones; the rest is left out.
    """
    up_Dr = up_Dr.float()
    # Eight outputs a dimension say which those are.
    some_Er = _part(packed, slice(None, None, max(1, packed.padded // (8 * up_Dr.shape[1])))) @ up_Dr
    energy_r, turn_rr = torch.linalg.eigh(some_Er.T @ some_Er)  # ascending
    lost_r = energy_r.clamp_min(0).cumsum(0) / energy_r.clamp_min(0).sum().clamp_min(1e-30)
    blocks = max(1, -(-int((lost_r > 1 - SHARE).sum()) // BLOCK))  # an untrained map is zero, and has one as well
    kept = min(len(turn_rr), blocks * BLOCK)
    turn_kr = turn_rr[:, len(turn_rr) - kept :].T.contiguous()
    narrow_Dk = up_Dr @ turn_kr.T
    parts = [_part(packed, slice(i, i + 256)) @ narrow_Dk for i in range(0, len(packed.weights), 256)]
    narrow_Ek = torch.cat(parts)[: packed.outputs]
    return pack_linear(narrow_Ek, None, packed.form_beside), pack_linear(turn_kr, None, packed.form_beside)


def _part(packed: PackedLinear, blocks: slice) -> Tensor:
    weights = packed.weights[blocks]
    return unpack_linear(PackedLinear(weights, packed.scales[blocks], None, len(weights) * BLOCK))


def group_of(inputs: int, most: int) -> int:
    """The largest multiple of 4 that divides `inputs` and is at most `most`."""
    if inputs % 4:
        raise ValueError(f"{inputs} inputs do not divide by 4")
    return next(size for size in range(min(most, inputs) // 4 * 4, 0, -4) if inputs % size == 0)
