"""`reference.span_attention` over a cache, what rows see given by two stretches of places a row instead of a mask.

One kernel for all of the families' masks: span rows behind a context (`reference.span_sights`), full bidirectional
(`whole_sights`), block-causal (`block_sights`), and canvases of different lengths in one cache. The H / G query heads
of a group lie side by side as rows of a tile. With few rows the keys are split over programs, and a second, small
kernel joins the parts (flash-decoding, Dao et al. 2023).
"""

from itertools import product as product_of

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffcode.kernels.tiles import TILES as BY_OP
from diffcode.kernels.tiles import tile_for
from diffcode.kernels.triton.common import Specimen, checked, fresh, product

TILES = BY_OP["span_attention"]
PROGRAMS = 128  # what a GPU should have to do at least: about one a multiprocessor
MOST_SPLITS = 64
FAR = tl.constexpr(2**30)


@triton.jit(do_not_specialize=("rows", "longest"))
def span_attention_kernel(
    q_ptr, k_ptr, k_group, k_place, v_ptr, v_group, v_place, sight_ptr, out_ptr, part_ptr, stat_ptr,
    rows, longest, scale,
    REPEAT: tl.constexpr, SPLIT: tl.constexpr, K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    group, split, splits = tl.program_id(1), tl.program_id(2), tl.num_programs(2)
    at_N, at_K = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, K)
    row_N, ok_N = at_N // REPEAT, at_N < rows * REPEAT
    query_N = row_N * (tl.num_programs(1) * REPEAT) + group * REPEAT + at_N % REPEAT  # in [R, H]
    first_N = tl.load(sight_ptr + row_N * 4, mask=ok_N, other=0)
    until_N = tl.load(sight_ptr + row_N * 4 + 1, mask=ok_N, other=0)
    second_N = tl.load(sight_ptr + row_N * 4 + 2, mask=ok_N, other=0)
    end_N = tl.load(sight_ptr + row_N * 4 + 3, mask=ok_N, other=0)
    low_N = tl.minimum(tl.where(first_N < until_N, first_N, FAR), tl.where(second_N < end_N, second_N, FAR))
    high_N = tl.maximum(tl.where(first_N < until_N, until_N, 0), tl.where(second_N < end_N, end_N, 0))
    low, high = tl.min(low_N, 0), tl.max(high_N, 0)
    # By `longest`, not by what other rows of the tile see: so a row gets the same bits beside any others.
    share = tl.cdiv(tl.maximum(high - low, longest), splits * BLOCK_S) * BLOCK_S
    begin = low + split * share
    stop = tl.minimum(begin + share, high)
    # Two comparisons a place instead of five: gfx942 keeps each as a mask of its own, and ran out of room for them.
    long_N = tl.maximum(tl.minimum(until_N, stop) - first_N, 0).to(tl.uint32, bitcast=True)
    far_N = tl.maximum(tl.minimum(end_N, stop) - second_N, 0).to(tl.uint32, bitcast=True)
    q_NK = tl.load(q_ptr + query_N[:, None] * K + at_K[None, :], mask=ok_N[:, None], other=0)
    peak_N = tl.full([BLOCK_N], float("-inf"), tl.float32)
    total_N = tl.zeros([BLOCK_N], tl.float32)
    acc_NK = tl.zeros([BLOCK_N, K], tl.float32)
    k_ptr += group.to(tl.int64) * k_group
    v_ptr += group.to(tl.int64) * v_group
    for s in range(begin, stop, BLOCK_S):
        at_S = s + tl.arange(0, BLOCK_S)
        ok_S = at_S < stop
        k_SK = tl.load(k_ptr + at_S[:, None] * k_place + at_K[None, :], mask=ok_S[:, None], other=0)
        score_NS = product(q_NK, tl.trans(k_SK), tl.zeros([BLOCK_N, BLOCK_S], tl.float32)) * scale
        seen_NS = (at_S[None, :] - first_N[:, None]).to(tl.uint32, bitcast=True) < long_N[:, None]
        seen_NS |= (at_S[None, :] - second_N[:, None]).to(tl.uint32, bitcast=True) < far_N[:, None]
        score_NS = tl.where(seen_NS, score_NS, float("-inf"))
        new_N = tl.maximum(peak_N, tl.max(score_NS, 1))
        base_N = tl.where(new_N == float("-inf"), 0.0, new_N)  # nothing seen yet: exp2(-inf - 0) is 0
        weight_NS = tl.exp2(score_NS - base_N[:, None])
        kept_N = tl.exp2(peak_N - base_N)
        v_SK = tl.load(v_ptr + at_S[:, None] * v_place + at_K[None, :], mask=ok_S[:, None], other=0)
        acc_NK = product(weight_NS.to(v_SK.dtype), v_SK, acc_NK * kept_N[:, None])
        total_N = total_N * kept_N + tl.sum(weight_NS, 1)
        peak_N = new_N
    if not SPLIT:
        acc_NK = acc_NK / tl.where(total_N == 0, 1.0, total_N)[:, None]
        tl.store(out_ptr + query_N[:, None] * K + at_K[None, :], acc_NK.to(out_ptr.dtype.element_ty), ok_N[:, None])
    else:
        part_N = query_N * splits + split
        tl.store(part_ptr + part_N[:, None] * K + at_K[None, :], acc_NK, mask=ok_N[:, None])
        tl.store(stat_ptr + part_N * 2, peak_N, mask=ok_N)
        tl.store(stat_ptr + part_N * 2 + 1, total_N, mask=ok_N)


@triton.jit
def join_parts_kernel(part_ptr, stat_ptr, out_ptr, SPLITS: tl.constexpr, K: tl.constexpr):
    """One query head: the parts weighted by what their keys weigh. SPLITS is a power of 2."""
    query = tl.program_id(0)
    at_S, at_K = query * SPLITS + tl.arange(0, SPLITS), tl.arange(0, K)
    peak_S, total_S = tl.load(stat_ptr + at_S * 2), tl.load(stat_ptr + at_S * 2 + 1)
    peak = tl.max(peak_S, 0)
    weight_S = tl.exp2(peak_S - tl.where(peak == float("-inf"), 0.0, peak))
    part_SK = tl.load(part_ptr + at_S[:, None] * K + at_K[None, :])
    total = tl.sum(weight_S * total_S, 0)
    out_K = tl.sum(weight_S[:, None] * part_SK, 0) / tl.where(total == 0, 1.0, total)
    tl.store(out_ptr + query * K + at_K, out_K.to(out_ptr.dtype.element_ty))


def splits_for(programs: int, places: int) -> int:
    """Parts to cut the keys into: a power of 2, enough to occupy a GPU, none under a block of keys."""
    wanted = min(-(-PROGRAMS // programs), -(-places // TILES[0].outputs), MOST_SPLITS)
    return 1 << (max(wanted, 1).bit_length() - 1)


@torch.library.custom_op("diffcode::span_attention", mutates_args=())
def span_attention(q_RHK: Tensor, k_GPK: Tensor, v_GPK: Tensor, sight_R4: Tensor, longest: int) -> Tensor:
    """`reference.span_attention` of what `sight_R4` (int32) lets rows see, [R, H K]; a row that sees nothing is 0.

    `longest`: places of the longest canvas; it decides the number of parts, the result is right with any.
    """
    (rows, heads, width), groups = q_RHK.shape, k_GPK.shape[0]
    fits = k_GPK.shape == v_GPK.shape and k_GPK.shape[2] == width and heads % groups == 0
    checked(fits, lambda: f"queries {tuple(q_RHK.shape)}, keys {tuple(k_GPK.shape)}, values {tuple(v_GPK.shape)}")
    checked(sight_R4.shape == (rows, 4) and sight_R4.dtype == torch.int32, lambda: "a row has four int32 of sight")
    checked(width & (width - 1) == 0, lambda: f"heads of {width}: take a power of 2")
    lies_well = q_RHK.is_contiguous() and sight_R4.is_contiguous() and k_GPK.stride(2) == v_GPK.stride(2) == 1
    checked(lies_well, lambda: "queries, sights and the cache's last axis must be contiguous")
    out_RE = fresh((rows, heads * width), q_RHK.dtype, q_RHK.device)
    repeat = heads // groups
    tile = tile_for("span_attention", rows * repeat, repeat, width, k_GPK.element_size())
    blocks = triton.cdiv(rows * repeat, tile.rows)
    splits = splits_for(max(blocks * groups, 1), longest)
    part = fresh((rows, heads, splits, width) if splits > 1 else (1,), torch.float32, q_RHK.device)
    stat = fresh((rows, heads, splits, 2) if splits > 1 else (1,), torch.float32, q_RHK.device)
    if rows:
        span_attention_kernel[(blocks, groups, splits)](
            q_RHK, k_GPK, k_GPK.stride(0), k_GPK.stride(1), v_GPK, v_GPK.stride(0), v_GPK.stride(1), sight_R4,
            out_RE, part, stat, rows, longest, 1.4426950408889634 / width**0.5,
            REPEAT=repeat, SPLIT=splits > 1, K=width, BLOCK_N=tile.rows, BLOCK_S=tile.outputs, **tile.launch,
        )  # fmt: skip
    if rows and splits > 1:
        join_parts_kernel[(rows * heads,)](part, stat, out_RE, SPLITS=splits, K=width)
    return out_RE


@span_attention.register_fake
def _(q_RHK: Tensor, k_GPK: Tensor, v_GPK: Tensor, sight_R4: Tensor, longest: int) -> Tensor:
    rows, heads, width = q_RHK.shape
    return q_RHK.new_empty((rows, heads * width))


POINTERS = {"q_ptr": "*bf16", "k_ptr": "*bf16", "v_ptr": "*bf16", "out_ptr": "*bf16"}
FP32 = {"part_ptr": "*fp32", "stat_ptr": "*fp32"}
STRIDES = ("k_group", "k_place", "v_group", "v_place")


def specimens() -> list[Specimen]:
    """Every tile in bf16 with 7 query heads a group, as the default model has: split and whole; and the joining."""
    types = POINTERS | FP32 | dict.fromkeys(STRIDES, "i32") | {"sight_ptr": "*i32"}
    types |= {"rows": "i32", "longest": "i32", "scale": "fp32"}
    found = []
    for tile, width, split in product_of(TILES, (64, 128), (True, False)):
        constants = {"REPEAT": 7, "SPLIT": split, "K": width, "BLOCK_N": tile.rows, "BLOCK_S": tile.outputs}
        name = f"span_attention {tile.outputs}x{tile.rows} head {width} {'split' if split else 'whole'}"
        aligned = (*POINTERS, *FP32, *STRIDES, "sight_ptr")
        found.append(Specimen(name, span_attention_kernel, types, constants, aligned, tile.launch))
    types, constants = {"out_ptr": "*bf16", **FP32}, {"SPLITS": 16, "K": 64}
    join = Specimen("span_attention join", join_parts_kernel, types, constants, tuple(types), {}, product=False)
    return [found[0], join, *found[1:]]
