"""`reference.qkv_rope`: norm, the fused query, key and value map with bias and low-rank term, rotation, and the write
of keys and values into the cache in one kernel. A program holds both halves of a part of one head, for a rotation
mixes number i with number i + K / 2.
"""

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

TILES = BY_OP["qkv_rope"]


@triton.jit(do_not_specialize=COUNTS)
def qkv_rope_kernel(
    x_ptr, x_stride, norm_ptr, eps, w_ptr, scales_ptr, bias_ptr, down_ptr, up_ptr, cos_ptr, sin_ptr, slot_ptr,
    q_ptr, k_ptr, k_group, k_place, v_ptr, v_group, v_place, R, D, rank, first_gated,
    HEADS: tl.constexpr, GROUPS: tl.constexpr, HALF: tl.constexpr, GROUP: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_L: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0) // (HALF // BLOCK_E)
    pair_E = tl.program_id(0) % (HALF // BLOCK_E) * BLOCK_E + tl.arange(0, BLOCK_E)
    low_E = head * 2 * HALF + pair_E
    row_R = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R)
    ok_E, ok_R = pair_E < HALF, row_R < R
    low_ER, high_ER = mapped(
        x_ptr, x_stride, norm_ptr, eps, w_ptr, scales_ptr, bias_ptr, down_ptr, up_ptr, row_R, R, D, rank, first_gated,
        low_E, low_E + HALF, ok_E, True, GROUP, BLOCK_E, BLOCK_R, BLOCK_D, BLOCK_L,
    )  # fmt: skip
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    ok_ER = ok_E[:, None] & ok_R[None, :]
    turn_ER = row_R[None, :] * (2 * HALF) + pair_E[:, None]
    is_turned = head < HEADS + GROUPS
    cos_ER = tl.load(cos_ptr + turn_ER, mask=ok_ER & is_turned, other=1).to(tl.float32)
    sin_ER = tl.load(sin_ptr + turn_ER, mask=ok_ER & is_turned, other=0).to(tl.float32)
    first_ER = low_ER * cos_ER - high_ER * sin_ER
    second_ER = high_ER * cos_ER + low_ER * sin_ER
    slot_R = tl.load(slot_ptr + row_R, mask=ok_R, other=0)
    if head < HEADS:
        y_ptr = q_ptr + (row_R * HEADS + head)[None, :] * (2 * HALF) + pair_E[:, None]
    elif head < HEADS + GROUPS:
        y_ptr = k_ptr + (head - HEADS).to(tl.int64) * k_group + slot_R[None, :] * k_place + pair_E[:, None]
    else:
        y_ptr = v_ptr + (head - HEADS - GROUPS).to(tl.int64) * v_group + slot_R[None, :] * v_place + pair_E[:, None]
    tl.store(y_ptr, first_ER.to(dtype), mask=ok_ER)
    tl.store(y_ptr + HALF, second_ER.to(dtype), mask=ok_ER)


@torch.library.custom_op("diffcode::qkv_rope", mutates_args=("k_GPK", "v_GPK"))
def qkv_rope(
    x_RD: Tensor,
    weight_ED: Tensor,
    scales_EG: Tensor | None,
    bias_E: Tensor | None,
    down_rD: Tensor | None,
    up_Er: Tensor | None,
    norm_D: Tensor | None,
    cos_RK: Tensor,
    sin_RK: Tensor,
    slot_R: Tensor,
    k_GPK: Tensor,
    v_GPK: Tensor,
    span_rows: int,
    eps: float,
) -> Tensor:
    """`reference.qkv_rope`, its dataclasses taken apart; `slot_R` int64. Raises ValueError for bad shapes."""
    check_map(x_RD, weight_ED, scales_EG, down_rD, up_Er, norm_D, bias_E, len(weight_ED))
    (rows, inputs), (groups, _, width) = x_RD.shape, k_GPK.shape
    heads = weight_ED.shape[0] // width - 2 * groups
    fits = weight_ED.shape[0] == (heads + 2 * groups) * width and k_GPK.shape == v_GPK.shape
    fits = fits and cos_RK.shape == sin_RK.shape == (rows, width) and slot_R.shape == (rows,)
    checked(fits, lambda: f"{weight_ED.shape[0]} outputs for {groups} groups of {width}, {rows} rows")
    checked(width % 2 == 0 and (width // 2) & (width // 2 - 1) == 0, lambda: f"heads of {width}: take a power of 2")
    lies_well = cos_RK.is_contiguous() and sin_RK.is_contiguous() and slot_R.is_contiguous()
    lies_well = lies_well and k_GPK.stride(2) == v_GPK.stride(2) == 1 and k_GPK.dtype == v_GPK.dtype == x_RD.dtype
    checked(lies_well, lambda: "rotations, slots and the cache's last axis must be contiguous, the cache of rows' type")
    q_RHK = fresh((rows, heads, width), x_RD.dtype, x_RD.device)
    if not span_rows:
        down_rD = up_Er = None
    tile, group = (
        tile_for("qkv_rope", rows, weight_ED.shape[0], inputs, weight_ED.element_size()),
        group_of(weight_ED, scales_EG),
    )
    half, pairs = width // 2, min(tile.outputs, width // 2)
    if rows:
        grid = ((heads + 2 * groups) * (half // pairs), triton.cdiv(rows, tile.rows))
        qkv_rope_kernel[grid](
            x_RD, x_RD.stride(0), norm_D, eps, weight_ED, scales_EG, bias_E, down_rD, up_Er, cos_RK, sin_RK, slot_R,
            q_RHK, k_GPK, k_GPK.stride(0), k_GPK.stride(1), v_GPK, v_GPK.stride(0), v_GPK.stride(1),
            rows, inputs, 0 if down_rD is None else down_rD.shape[0], rows - span_rows,
            HEADS=heads, GROUPS=groups, HALF=half, GROUP=group, BLOCK_E=pairs, BLOCK_R=tile.rows,
            BLOCK_D=inputs_of(tile, group), BLOCK_L=padded_rank(down_rD), **tile.launch,
        )  # fmt: skip
    return q_RHK


@qkv_rope.register_fake
def _(x_RD: Tensor, weight_ED: Tensor, *rest: Tensor) -> Tensor:
    k_GPK = rest[8]
    groups, _, width = k_GPK.shape
    return x_RD.new_empty((x_RD.shape[0], weight_ED.shape[0] // width - 2 * groups, width))


POINTERS = ("x_ptr", "norm_ptr", "w_ptr", "bias_ptr", "down_ptr", "up_ptr", "cos_ptr", "sin_ptr", "q_ptr", "k_ptr")
NUMBERS = ("x_stride", "k_group", "k_place", "v_group", "v_place", "R", "D", "rank", "first_gated")


def specimens() -> list[Specimen]:
    """For a compilation without a GPU, in the shape of the default model."""
    types = dict.fromkeys((*POINTERS, "v_ptr"), "*bf16") | dict.fromkeys(NUMBERS, "i32")
    types |= {"eps": "fp32", "slot_ptr": "*i64"}
    sizes, aligned = {"HEADS": 14, "GROUPS": 2, "HALF": 32}, (*POINTERS, "v_ptr", "slot_ptr", *NUMBERS[:5], "D", "rank")
    return map_specimens("qkv_rope", qkv_rope_kernel, TILES, types, sizes, aligned)
