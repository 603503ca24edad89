"""`reference.lora_linear`: norm, linear map with bf16 or int8 weights, bias, gated low-rank term and residual in one
kernel."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffcode.kernels.tiles import TILES as BY_OP
from diffcode.kernels.tiles import tile_for
from diffcode.kernels.triton.common import (
    COUNTS,
    Specimen,
    check_map,
    checked,
    fresh,
    group_of,
    inputs_of,
    map_specimens,
    mapped,
    padded_rank,
)

TILES = BY_OP["lora_linear"]


@triton.jit(do_not_specialize=COUNTS)
def lora_linear_kernel(
    x_ptr, x_stride, norm_ptr, eps, w_ptr, scales_ptr, bias_ptr, down_ptr, up_ptr, residual_ptr, y_ptr,
    R, D, E, rank, first_gated,
    GROUP: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_L: tl.constexpr,
):  # fmt: skip
    out_E = tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    row_R = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R)
    ok_E = out_E < E
    acc_ER, _ = mapped(
        x_ptr, x_stride, norm_ptr, eps, w_ptr, scales_ptr, bias_ptr, down_ptr, up_ptr, row_R, R, D, rank, first_gated,
        out_E, out_E, ok_E, False, GROUP, BLOCK_E, BLOCK_R, BLOCK_D, BLOCK_L,
    )  # fmt: skip
    at_ER = row_R[None, :] * E + out_E[:, None]
    ok_ER = ok_E[:, None] & (row_R < R)[None, :]
    if residual_ptr is not None:
        acc_ER += tl.load(residual_ptr + at_ER, mask=ok_ER, other=0).to(tl.float32)
    tl.store(y_ptr + at_ER, acc_ER.to(y_ptr.dtype.element_ty), mask=ok_ER)


@torch.library.custom_op("diffcode::lora_linear", mutates_args=())
def lora_linear(
    x_RD: Tensor,
    weight_ED: Tensor,
    scales_EG: Tensor | None,
    bias_E: Tensor | None,
    down_rD: Tensor | None,
    up_Er: Tensor | None,
    norm_D: Tensor | None,
    residual_RE: Tensor | None,
    span_rows: int,
    eps: float,
) -> Tensor:
    """`reference.lora_linear`, its dataclasses taken apart. Raises ValueError for shapes that do not fit."""
    check_map(x_RD, weight_ED, scales_EG, down_rD, up_Er, norm_D, bias_E, len(weight_ED))
    (rows, inputs), outputs = x_RD.shape, weight_ED.shape[0]
    if residual_RE is not None:
        fits = residual_RE.shape == (rows, outputs) and residual_RE.is_contiguous()
        checked(fits, lambda: f"a residual {tuple(residual_RE.shape)} for {rows} rows of {outputs}")
    y_RE = fresh((rows, outputs), x_RD.dtype, x_RD.device)
    if not span_rows:
        down_rD = up_Er = None
    tile, group = (
        tile_for("lora_linear", rows, outputs, inputs, weight_ED.element_size()),
        group_of(weight_ED, scales_EG),
    )
    if rows:
        grid = (triton.cdiv(outputs, tile.outputs), triton.cdiv(rows, tile.rows))
        lora_linear_kernel[grid](
            x_RD, x_RD.stride(0), norm_D, eps, weight_ED, scales_EG, bias_E, down_rD, up_Er, residual_RE, y_RE,
            rows, inputs, outputs, 0 if down_rD is None else down_rD.shape[0], rows - span_rows,
            GROUP=group, BLOCK_E=tile.outputs, BLOCK_R=tile.rows, BLOCK_D=inputs_of(tile, group),
            BLOCK_L=padded_rank(down_rD), **tile.launch,
        )  # fmt: skip
    return y_RE


@lora_linear.register_fake
def _(x_RD: Tensor, weight_ED: Tensor, *_: object) -> Tensor:
    return x_RD.new_empty((x_RD.shape[0], weight_ED.shape[0]))


POINTERS = ("x_ptr", "norm_ptr", "w_ptr", "bias_ptr", "down_ptr", "up_ptr", "residual_ptr", "y_ptr")
NUMBERS = {"x_stride": "i32", "eps": "fp32", "R": "i32", "D": "i32", "E": "i32", "rank": "i32", "first_gated": "i32"}


def specimens() -> list[Specimen]:
    """For a compilation without a GPU."""
    types = dict.fromkeys(POINTERS, "*bf16") | NUMBERS
    return map_specimens("lora_linear", lora_linear_kernel, TILES, types, {}, (*POINTERS, "x_stride", "D", "E", "rank"))
