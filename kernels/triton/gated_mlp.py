"""`reference.gated_mlp`: norm, gate and up maps over the same block of rows, their shared low-rank term, SiLU and the
product in one kernel; the 2 F numbers of a row in the middle stay in registers."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffcode.kernels.tiles import TILES as BY_OP
from diffcode.kernels.tiles import tile_for
from diffcode.kernels.triton.common import (
    Specimen,
    add_low_rank,
    check_map,
    checked,
    fresh,
    group_of,
    inputs_of,
    load_rows,
    map_specimens,
    padded_rank,
    rms_scale,
    times,
)

TILES = BY_OP["gated_mlp"]


@triton.jit
def gated_mlp_kernel(
    x_ptr, x_stride, norm_ptr, eps, w_ptr, scales_ptr, down_ptr, up_ptr, y_ptr, R, D, F, rank, first_gated,
    GROUP: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_L: tl.constexpr,
):  # fmt: skip
    out_E = tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    row_R = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R)
    at_L = tl.arange(0, BLOCK_L)
    ok_E, ok_R, ok_L = out_E < F, row_R < R, at_L < rank
    scale_R = tl.full([BLOCK_R], 1.0, tl.float32)
    if norm_ptr is not None:
        scale_R = rms_scale(x_ptr, x_stride, row_R, ok_R, D, eps, BLOCK_R, BLOCK_D)
    gate_ER = tl.zeros([BLOCK_E, BLOCK_R], tl.float32)
    up_ER = tl.zeros([BLOCK_E, BLOCK_R], tl.float32)
    low_LR = tl.zeros([BLOCK_L, BLOCK_R], tl.float32)
    for d in range(0, D, BLOCK_D):
        at_D = d + tl.arange(0, BLOCK_D)
        x_DR = load_rows(x_ptr, x_stride, norm_ptr, scale_R, row_R, ok_R, at_D, D)
        gate_ER = times(w_ptr, scales_ptr, out_E, ok_E, at_D, d, D, x_DR, gate_ER, GROUP)
        up_ER = times(w_ptr, scales_ptr, out_E + F, ok_E, at_D, d, D, x_DR, up_ER, GROUP)
        if down_ptr is not None:
            low_LR = times(down_ptr, None, at_L, ok_L, at_D, d, D, x_DR, low_LR, GROUP)
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    if down_ptr is not None:
        gated_R = row_R >= first_gated
        gate_ER = add_low_rank(up_ptr, out_E, ok_E, low_LR, rank, gated_R, gate_ER, dtype, BLOCK_L)
        up_ER = add_low_rank(up_ptr, out_E + F, ok_E, low_LR, rank, gated_R, up_ER, dtype, BLOCK_L)
    y_ER = gate_ER / (1 + tl.exp(-gate_ER)) * up_ER
    ok_ER = ok_E[:, None] & ok_R[None, :]
    tl.store(y_ptr + row_R[None, :] * F + out_E[:, None], y_ER.to(dtype), mask=ok_ER)


@torch.library.custom_op("diffcode::gated_mlp", mutates_args=())
def gated_mlp(
    x_RD: Tensor,
    weight_ED: Tensor,
    scales_EG: Tensor | None,
    down_rD: Tensor | None,
    up_Er: Tensor | None,
    norm_D: Tensor | None,
    span_rows: int,
    eps: float,
) -> Tensor:
    """`reference.gated_mlp` without biases: no model here has them. Raises ValueError for shapes that do not fit."""
    check_map(x_RD, weight_ED, scales_EG, down_rD, up_Er)
    (rows, inputs), ffn = x_RD.shape, weight_ED.shape[0] // 2
    checked(weight_ED.shape[0] % 2 == 0, lambda: "gate and up have as many outputs")
    y_RF = fresh((rows, ffn), x_RD.dtype, x_RD.device)
    if not span_rows:
        down_rD = up_Er = None
    tile, group = tile_for("gated_mlp", rows, 2 * ffn, inputs, weight_ED.element_size()), group_of(weight_ED, scales_EG)
    if rows:
        grid = (triton.cdiv(ffn, tile.outputs), triton.cdiv(rows, tile.rows))
        gated_mlp_kernel[grid](
            x_RD, x_RD.stride(0), norm_D, eps, weight_ED, scales_EG, down_rD, up_Er, y_RF,
            rows, inputs, ffn, 0 if down_rD is None else down_rD.shape[0], rows - span_rows,
            GROUP=group, BLOCK_E=tile.outputs, BLOCK_R=tile.rows, BLOCK_D=inputs_of(tile, group),
            BLOCK_L=padded_rank(down_rD), **tile.launch,
        )  # fmt: skip
    return y_RF


@gated_mlp.register_fake
def _(
    x_RD: Tensor,
    weight_ED: Tensor,
    scales_EG: Tensor | None,
    down_rD: Tensor | None,
    up_Er: Tensor | None,
    norm_D: Tensor | None,
    span_rows: int,
    eps: float,
) -> Tensor:
    return x_RD.new_empty((x_RD.shape[0], weight_ED.shape[0] // 2))


POINTERS = ("x_ptr", "norm_ptr", "w_ptr", "down_ptr", "up_ptr", "y_ptr")
NUMBERS = {"x_stride": "i32", "eps": "fp32", "R": "i32", "D": "i32", "F": "i32", "rank": "i32", "first_gated": "i32"}


def specimens() -> list[Specimen]:
    """For a compilation without a GPU."""
    types = dict.fromkeys(POINTERS, "*bf16") | NUMBERS
    return map_specimens("gated_mlp", gated_mlp_kernel, TILES, types, {}, (*POINTERS, "x_stride", "D", "F", "rank"))
