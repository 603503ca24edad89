"""`reference.gated_mlp`: norm, gate and up maps over the same block of rows, their shared low-rank term, SiLU and the
product in one kernel; the 2 F numbers of a row in the middle stay in registers."""

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

TILES = BY_OP["gated_mlp"]


@triton.jit(do_not_specialize=COUNTS)
def gated_mlp_kernel(
    x_ptr, x_stride, norm_ptr, eps, w_ptr, scales_ptr, down_ptr, up_ptr, y_ptr, R, D, F, rank, first_gated,
    GROUP: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_L: tl.constexpr,
):  # fmt: skip
    out_E = tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    row_R = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R)
    ok_E = out_E < F
    gate_ER, up_ER = mapped(
        x_ptr, x_stride, norm_ptr, eps, w_ptr, scales_ptr, None, down_ptr, up_ptr, row_R, R, D, rank, first_gated,
        out_E, out_E + F, ok_E, True, GROUP, BLOCK_E, BLOCK_R, BLOCK_D, BLOCK_L,
    )  # fmt: skip
    y_ER = gate_ER / (1 + tl.exp(-gate_ER)) * up_ER
    ok_ER = ok_E[:, None] & (row_R < R)[None, :]
    tl.store(y_ptr + row_R[None, :] * F + out_E[:, None], y_ER.to(y_ptr.dtype.element_ty), mask=ok_ER)


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
    check_map(x_RD, weight_ED, scales_EG, down_rD, up_Er, norm_D, None, weight_ED.shape[0] // 2)
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
def _(x_RD: Tensor, weight_ED: Tensor, *_: object) -> Tensor:
    return x_RD.new_empty((x_RD.shape[0], weight_ED.shape[0] // 2))


POINTERS = ("x_ptr", "norm_ptr", "w_ptr", "down_ptr", "up_ptr", "y_ptr")
NUMBERS = {"x_stride": "i32", "eps": "fp32", "R": "i32", "D": "i32", "F": "i32", "rank": "i32", "first_gated": "i32"}


def specimens() -> list[Specimen]:
    """For a compilation without a GPU."""
    types = dict.fromkeys(POINTERS, "*bf16") | NUMBERS
    return map_specimens("gated_mlp", gated_mlp_kernel, TILES, types, {}, (*POINTERS, "x_stride", "D", "F", "rank"))
