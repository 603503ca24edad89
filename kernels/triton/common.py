"""What the kernels share: tiles, outputs, and the product of a block of weights with a block of rows.

Weights stand on the left of every product, so that a tile's long side is that of the outputs and its short side that
of the few rows of a step. Numbers become fp32 right after loading, for the interpreter is silently wrong in bf16;
only the two sides of a product go back to the weights' type, for the tensor cores.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product as product_of
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffcode.kernels.tiles import Tile

INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))
# Numbers that a kernel only compares with. The JIT would compile it anew where one is 1, or divides by 16: a stall of
# seconds amid a fill, and for programs that were never compiled ahead of time.
COUNTS = ("R", "first_gated")


@dataclass(frozen=True, slots=True)
class Specimen:
    """A kernel with everything that a compilation without a GPU needs to be told."""

    name: str
    kernel: Any  # triton.JITFunction
    types: Mapping[str, str]  # of the arguments that are no constants
    constants: Mapping[str, Any]
    aligned: Sequence[str]  # arguments that divide by 16, as the JIT would find
    options: Mapping[str, int]
    product: bool = True  # it must use the tensor cores
    wide: bool = True  # it must load 16 bytes at a time
    targets: Sequence[str] = field(default=("sm_80", "sm_90", "sm_100", "gfx942"))


def map_specimens(
    op: str,
    kernel: Any,
    tiles: Sequence[Tile],
    types: Mapping[str, str],
    sizes: Mapping[str, int],
    aligned: Sequence[str],
) -> list[Specimen]:
    """Of a linear map's kernel: every tile with everything on, in bf16 and with int8 weights."""
    found = []
    for tile, quantised in product_of(tiles, (False, True)):
        constants = {**sizes, "GROUP": 128 if quantised else 0, "BLOCK_E": tile.outputs, "BLOCK_R": tile.rows}
        constants |= {"BLOCK_D": tile.inputs, "BLOCK_L": 32}
        more = {"w_ptr": "*i8", "scales_ptr": "*fp32"} if quantised else {}
        none = {} if quantised else {"scales_ptr": None}
        name = f"{op} {tile.outputs}x{tile.rows}{' int8' if quantised else ''}"
        found.append(Specimen(name, kernel, {**types, **more}, constants | none, (*aligned, *more), tile.launch))
    return found


def fresh(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory for outputs. Tests replace it by memory with guards round it."""
    return torch.empty(tuple(shape), dtype=dtype, device=device)


def checked(condition: bool, message: Callable[[], str]) -> None:
    """Raises ValueError: a wrong shape would read other tensors' memory."""
    if not condition:
        raise ValueError(message())


def check_map(
    x_RD: Tensor,
    weight_ED: Tensor,
    scales_EG: Tensor | None,
    down_rD: Tensor | None,
    up_Er: Tensor | None,
    norm_D: Tensor | None = None,
    bias_E: Tensor | None = None,
    written: int = 0,
) -> None:
    """Shapes and layouts that the products rely on. `written`: numbers of a row that the kernel stores."""
    (outputs, inputs), rows = weight_ED.shape, x_RD.shape[0]
    checked(x_RD.stride(-1) == 1, lambda: "the rows' numbers must lie side by side")
    checked(weight_ED.is_contiguous(), lambda: "the weights must be contiguous")
    checked(x_RD.shape[1] == inputs, lambda: f"rows of {x_RD.shape[1]} numbers for a map of {inputs} inputs")
    reach = rows * max(x_RD.stride(0), written)
    checked(reach < 2**31, lambda: f"{rows} rows reach beyond the kernels' 32-bit offsets: take fewer")
    checked(
        weight_ED.dtype == (torch.int8 if scales_EG is not None else x_RD.dtype),
        lambda: f"{weight_ED.dtype} weights for {x_RD.dtype} rows: int8 weights and no others have scales",
    )
    if scales_EG is not None:
        fits = scales_EG.shape[0] == outputs and inputs % scales_EG.shape[1] == 0 and scales_EG.is_contiguous()
        checked(fits, lambda: f"scales {tuple(scales_EG.shape)} for a map {tuple(weight_ED.shape)}")
    checked((down_rD is None) == (up_Er is None), lambda: "a low-rank term has two maps")
    if down_rD is not None and up_Er is not None:
        fits = down_rD.shape == (up_Er.shape[1], inputs) and up_Er.shape[0] == outputs
        fits = fits and down_rD.is_contiguous() and up_Er.is_contiguous()
        checked(
            fits, lambda: f"low-rank maps {tuple(down_rD.shape)}, {tuple(up_Er.shape)} for {tuple(weight_ED.shape)}"
        )
    fits = norm_D is None or (norm_D.shape == (inputs,) and norm_D.is_contiguous())
    checked(fits, lambda: f"the norm must be {inputs} numbers side by side")
    fits = bias_E is None or (bias_E.shape == (outputs,) and bias_E.is_contiguous())
    checked(fits, lambda: f"the bias must be {outputs} numbers side by side")


def group_of(weight_ED: Tensor, scales_EG: Tensor | None) -> int:
    """Inputs that share a scale."""
    return 0 if scales_EG is None else weight_ED.shape[1] // scales_EG.shape[1]


def inputs_of(tile: Tile, group: int) -> int:
    """Inputs a block: one scale holds for all of them, so they must divide a group of int8 weights."""
    if not group:
        return tile.inputs
    return min(tile.inputs, group & -group)


def padded_rank(down_rD: Tensor | None) -> int:
    """Rows of the low-rank map as a tile has them."""
    return 16 if down_rD is None else max(16, triton.next_power_of_2(down_rD.shape[0]))


@triton.jit
def product(a, b, acc):
    """`a b + acc`. fp32 stays fp32 (no tf32), and the interpreter multiplies in fp32."""
    if INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision="ieee")


@triton.jit
def rms_scale(x_ptr, x_stride, row_R, ok_R, D, eps, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr):
    """`1 / sqrt(mean(x^2) + eps)` of some rows."""
    total_R = tl.zeros([BLOCK_R], tl.float32)
    for d in range(0, D, BLOCK_D):
        at_D = d + tl.arange(0, BLOCK_D)
        seen_RD = ok_R[:, None] & (at_D < D)[None, :]
        x_RD = tl.load(x_ptr + row_R[:, None] * x_stride + at_D[None, :], mask=seen_RD, other=0).to(tl.float32)
        total_R += tl.sum(x_RD * x_RD, 1)
    return tl.rsqrt(total_R / D + eps)


@triton.jit
def load_rows(x_ptr, x_stride, norm_ptr, scale_R, row_R, ok_R, at_D, D):
    """A block of inputs of some rows, normed if there is a norm, as the right side of a product: [D, R].

    Rounded where the specification rounds, so that narrow types give the same rows.
    """
    seen_RD = ok_R[:, None] & (at_D < D)[None, :]
    x_RD = tl.load(x_ptr + row_R[:, None] * x_stride + at_D[None, :], mask=seen_RD, other=0)
    if norm_ptr is not None:
        weight_D = tl.load(norm_ptr + at_D, mask=at_D < D, other=0).to(tl.float32)
        scaled_RD = (x_RD.to(tl.float32) * scale_R[:, None]).to(x_RD.dtype)
        x_RD = (scaled_RD.to(tl.float32) * weight_D[None, :]).to(x_RD.dtype)
    return tl.trans(x_RD)


@triton.jit
def times(w_ptr, scales_ptr, out_E, ok_E, at_D, d, D, x_DR, acc_ER, GROUP: tl.constexpr):
    """`acc + W x` of one block of inputs; `out_E` are rows of W."""
    seen_ED = ok_E[:, None] & (at_D < D)[None, :]
    w_ED = tl.load(w_ptr + out_E[:, None] * D + at_D[None, :], mask=seen_ED, other=0)
    if scales_ptr is None:
        acc_ER = product(w_ED, x_DR, acc_ER)
    else:  # int8 is exact in every type that rows come in; the scale is one for the whole block
        scale_E = tl.load(scales_ptr + out_E * (D // GROUP) + d // GROUP, mask=ok_E, other=0)
        if INTERPRETED:
            w_ED = w_ED.to(tl.float32)
        part_ER = product(w_ED.to(x_DR.dtype), x_DR, tl.zeros_like(acc_ER))
        acc_ER += scale_E[:, None] * part_ER
    return acc_ER


@triton.jit
def add_bias(bias_ptr, out_E, ok_E, acc_ER):
    if bias_ptr is not None:
        acc_ER += tl.load(bias_ptr + out_E, mask=ok_E, other=0).to(tl.float32)[:, None]
    return acc_ER


@triton.jit
def add_low_rank(up_ptr, out_E, ok_E, low_LR, rank, gated_R, acc_ER, dtype: tl.constexpr, BLOCK_L: tl.constexpr):
    """`acc + B t` on the rows that are gated; `low_LR` is t, rounded as the specification rounds it."""
    at_L = tl.arange(0, BLOCK_L)
    low_LR = tl.where(gated_R[None, :], low_LR, 0.0).to(dtype)
    seen_EL = ok_E[:, None] & (at_L < rank)[None, :]
    up_EL = tl.load(up_ptr + out_E[:, None] * rank + at_L[None, :], mask=seen_EL, other=0)
    return product(up_EL, low_LR, acc_ER)


@triton.jit
def mapped(
    x_ptr, x_stride, norm_ptr, eps, w_ptr, scales_ptr, bias_ptr, down_ptr, up_ptr, row_R, R, D, rank, first_gated,
    one_E, two_E, ok_E, TWO: tl.constexpr,
    GROUP: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_L: tl.constexpr,
):  # fmt: skip
    """`norm(x) W^T + b` and the low-rank term, fp32 [E, R]: of the outputs `one_E`, and of `two_E` if TWO.

    `x A^T` is computed beside `x W^T` from the same block of rows, by every program again: that costs reads of A from
    the second-level cache, and saves a launch and a trip of the middle through memory.
    """
    ok_R, at_L = row_R < R, tl.arange(0, BLOCK_L)
    scale_R = tl.full([BLOCK_R], 1.0, tl.float32)
    if norm_ptr is not None:
        scale_R = rms_scale(x_ptr, x_stride, row_R, ok_R, D, eps, BLOCK_R, BLOCK_D)
    one_ER = tl.zeros([BLOCK_E, BLOCK_R], tl.float32)
    two_ER = tl.zeros([BLOCK_E, BLOCK_R], tl.float32)
    low_LR = tl.zeros([BLOCK_L, BLOCK_R], tl.float32)
    for d in range(0, D, BLOCK_D):
        at_D = d + tl.arange(0, BLOCK_D)
        x_DR = load_rows(x_ptr, x_stride, norm_ptr, scale_R, row_R, ok_R, at_D, D)
        one_ER = times(w_ptr, scales_ptr, one_E, ok_E, at_D, d, D, x_DR, one_ER, GROUP)
        if TWO:
            two_ER = times(w_ptr, scales_ptr, two_E, ok_E, at_D, d, D, x_DR, two_ER, GROUP)
        if down_ptr is not None:
            low_LR = times(down_ptr, None, at_L, at_L < rank, at_D, d, D, x_DR, low_LR, GROUP)
    one_ER = add_bias(bias_ptr, one_E, ok_E, one_ER)
    if TWO:
        two_ER = add_bias(bias_ptr, two_E, ok_E, two_ER)
    if down_ptr is not None:
        gated_R = row_R >= first_gated
        one_ER = add_low_rank(up_ptr, one_E, ok_E, low_LR, rank, gated_R, one_ER, x_ptr.dtype.element_ty, BLOCK_L)
        if TWO:
            two_ER = add_low_rank(up_ptr, two_E, ok_E, low_LR, rank, gated_R, two_ER, x_ptr.dtype.element_ty, BLOCK_L)
    return one_ER, two_ER
