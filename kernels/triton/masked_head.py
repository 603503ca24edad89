"""`reference.masked_head` with the final norm before it: the vocabulary's logits are boiled down where they are made.

Pass one is split over the vocabulary: a program multiplies its tokens with the asked rows and keeps seven numbers of
each. Pass two joins them. The variant for many rows is `sliced`: the library multiplies a slice of the vocabulary at a
time into one small buffer, and the same boiling down reads it from there.
"""

from collections.abc import Sequence
from itertools import product as product_of

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffcode.kernels.reference import HeadRows, rms_norm
from diffcode.kernels.tiles import TILES as BY_OP
from diffcode.kernels.tiles import Tile, tile_for
from diffcode.kernels.triton.common import (
    Specimen,
    check_map,
    checked,
    fresh,
    group_of,
    inputs_of,
    load_rows,
    rms_scale,
    times,
)

TILES = BY_OP["masked_head"]
DIGEST = Tile(512, 4, 0, 4, 1)  # of the sliced variant: tokens x rows
SLICE = 16_384  # tokens of a library product
COMPARED = ("R", "V", "favoured", "blocks")  # numbers that are only compared with, as `common.COUNTS`
FIELDS = 6  # fp32 of a row and block: peak, second, sum, tilted sum, best rank, logit of the best


@triton.jit
def gumbel_noise(draw_ptr, row_R, ok_R, token_V, BLOCK_V: tl.constexpr, BLOCK_R: tl.constexpr):
    """`reference.counted_gumbel` of some tokens and rows, [V, R]."""
    seed_R = tl.load(draw_ptr + row_R * 2, mask=ok_R, other=0)
    place_R = tl.load(draw_ptr + row_R * 2 + 1, mask=ok_R, other=0)
    nil_VR = tl.zeros([BLOCK_V, BLOCK_R], tl.uint32)
    c0_VR = token_V.to(tl.uint32)[:, None] + nil_VR
    c1_VR = place_R.to(tl.uint32)[None, :] + nil_VR
    low_VR = (seed_R & 0xFFFFFFFF).to(tl.uint32)[None, :] + nil_VR
    high_VR = ((seed_R >> 32) & 0xFFFFFFFF).to(tl.uint32)[None, :] + nil_VR
    word_VR, _, _, _ = tl.philox_impl(c0_VR, c1_VR, nil_VR, nil_VR, low_VR, high_VR)
    uniform_VR = ((word_VR >> 9).to(tl.float32) + 0.5) * 1.1920928955078125e-07
    return -tl.log(-tl.log(uniform_VR))


@triton.jit
def digest(
    logit_VR, at_V, row_R, V, R, barred_ptr, ids_ptr, draw_ptr, temperature, favoured, nats,
    part_ptr, best_ptr, block, blocks, BLOCK_V: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """What is kept of a block of logits."""
    ok_V, ok_R = at_V < V, row_R < R
    logit_VR = tl.where(ok_V[:, None], logit_VR, float("-inf"))
    if barred_ptr is not None:
        ok_VR = ok_V[:, None] & ok_R[None, :]
        at_VR = row_R.to(tl.int64)[None, :] * V + at_V[:, None]
        barred_VR = tl.load(barred_ptr + at_VR, mask=ok_VR, other=0).to(tl.int32)
        logit_VR = tl.where(barred_VR != 0, float("-inf"), logit_VR)
    rank_VR = logit_VR
    if draw_ptr is not None:
        token_V = at_V
        if ids_ptr is not None:
            token_V = tl.load(ids_ptr + at_V, mask=ok_V, other=0)
        rank_VR = logit_VR / temperature + gumbel_noise(draw_ptr, row_R, ok_R, token_V, BLOCK_V, BLOCK_R)
    rank_VR = tl.where((at_V == favoured)[:, None], rank_VR + nats, rank_VR)
    at_BV = tl.arange(0, BLOCK_V)[:, None]
    best_R = tl.argmax(rank_VR, 0, tie_break_left=True)
    first_R = tl.argmax(logit_VR, 0, tie_break_left=True)
    peak_R = tl.max(logit_VR, 0)
    second_R = tl.max(tl.where(at_BV == first_R[None, :], float("-inf"), logit_VR), 0)
    chosen_R = tl.max(tl.where(at_BV == best_R[None, :], logit_VR, float("-inf")), 0)
    away_VR = logit_VR - tl.where(peak_R == float("-inf"), 0.0, peak_R)[None, :]
    weight_VR = tl.exp(away_VR)
    away_VR = tl.where(weight_VR > 0, away_VR, 0.0)  # 0 times -inf is no number
    part = part_ptr + (row_R.to(tl.int64) * blocks + block) * 6
    tl.store(part, peak_R, mask=ok_R)
    tl.store(part + 1, second_R, mask=ok_R)
    tl.store(part + 2, tl.sum(weight_VR, 0), mask=ok_R)
    tl.store(part + 3, tl.sum(weight_VR * away_VR, 0), mask=ok_R)
    tl.store(part + 4, tl.max(rank_VR, 0), mask=ok_R)
    tl.store(part + 5, chosen_R, mask=ok_R)
    best_R = tl.minimum(block * BLOCK_V + best_R, V - 1)  # of NaNs the GPU's argmax is the last one, even beyond V
    tl.store(best_ptr + row_R.to(tl.int64) * blocks + block, best_R, mask=ok_R)


@triton.jit(do_not_specialize=COMPARED)
def masked_head_kernel(
    x_ptr, x_stride, norm_ptr, eps, w_ptr, scales_ptr, barred_ptr, ids_ptr, draw_ptr, temperature, favoured, nats,
    part_ptr, best_ptr, R, D, V,
    GROUP: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    at_V = block * BLOCK_V + tl.arange(0, BLOCK_V)
    row_R = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R)
    ok_V, ok_R, wide_V = at_V < V, row_R < R, at_V.to(tl.int64)  # a vocabulary times a width may pass 2^31
    scale_R = tl.full([BLOCK_R], 1.0, tl.float32)
    if norm_ptr is not None:
        scale_R = rms_scale(x_ptr, x_stride, row_R, ok_R, D, eps, BLOCK_R, BLOCK_D)
    acc_VR = tl.zeros([BLOCK_V, BLOCK_R], tl.float32)
    for d in range(0, D, BLOCK_D):
        at_D = d + tl.arange(0, BLOCK_D)
        x_DR = load_rows(x_ptr, x_stride, norm_ptr, scale_R, row_R, ok_R, at_D, D)
        acc_VR = times(w_ptr, scales_ptr, wide_V, ok_V, at_D, d, D, x_DR, acc_VR, GROUP)
    digest(
        acc_VR, at_V, row_R, V, R, barred_ptr, ids_ptr, draw_ptr, temperature, favoured, nats,
        part_ptr, best_ptr, block, tl.num_programs(0), BLOCK_V, BLOCK_R,
    )  # fmt: skip


@triton.jit(do_not_specialize=COMPARED)
def digest_slice_kernel(
    logit_ptr, begin, columns, barred_ptr, ids_ptr, draw_ptr, temperature, favoured, nats,
    part_ptr, best_ptr, blocks, R, V, BLOCK_V: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """The tokens from `begin` on, a multiple of BLOCK_V, whose logits lie in a buffer [R, columns]."""
    at_S = tl.program_id(0) * BLOCK_V + tl.arange(0, BLOCK_V)
    row_R = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R)
    ok_VR = (at_S < columns)[:, None] & (row_R < R)[None, :]
    at_VR = row_R.to(tl.int64)[None, :] * columns + at_S[:, None]
    logit_VR = tl.load(logit_ptr + at_VR, mask=ok_VR, other=0).to(tl.float32)
    digest(
        logit_VR, begin + at_S, row_R, V, R, barred_ptr, ids_ptr, draw_ptr, temperature, favoured, nats,
        part_ptr, best_ptr, begin // BLOCK_V + tl.program_id(0), blocks, BLOCK_V, BLOCK_R,
    )  # fmt: skip


@triton.jit(do_not_specialize=COMPARED)
def join_head_kernel(
    part_ptr, best_ptr, ids_ptr, token_ptr, probability_ptr, margin_ptr, entropy_ptr, blocks, BLOCK: tl.constexpr
):
    """One row: all blocks' numbers into the row's four. Of equal ranks the first block's counts, as in argmax."""
    row = tl.program_id(0).to(tl.int64)
    at_B = tl.arange(0, BLOCK)
    ok_B, part = at_B < blocks, part_ptr + (row * blocks + at_B) * 6
    least = float("-inf")
    peak_B = tl.load(part, mask=ok_B, other=least)
    second_B = tl.load(part + 1, mask=ok_B, other=least)
    sum_B = tl.load(part + 2, mask=ok_B, other=0)
    tilted_B = tl.load(part + 3, mask=ok_B, other=0)
    rank_B = tl.load(part + 4, mask=ok_B, other=least)
    chosen_B = tl.load(part + 5, mask=ok_B, other=least)
    peak, first = tl.max(peak_B, 0), tl.argmax(peak_B, 0, tie_break_left=True)
    second = tl.max(tl.where(at_B == first, second_B, peak_B), 0)
    away_B = tl.where(peak_B == least, 0.0, peak_B - peak)
    weight_B = tl.where(peak_B == least, 0.0, tl.exp(away_B))
    total = tl.sum(weight_B * sum_B, 0)
    tilted = tl.sum(weight_B * (tilted_B + away_B * sum_B), 0)
    winner = tl.minimum(tl.argmax(rank_B, 0, tie_break_left=True), blocks - 1)
    token = tl.load(best_ptr + row * blocks + winner)
    if ids_ptr is not None:
        token = tl.load(ids_ptr + token)
    chosen = tl.max(tl.where(at_B == winner, chosen_B, least), 0)
    tl.store(token_ptr + row, token.to(tl.int64))
    tl.store(probability_ptr + row, tl.exp(chosen - peak) / total)
    tl.store(margin_ptr + row, (1 - tl.exp(second - peak)) / total)
    tl.store(entropy_ptr + row, tl.log(total) - tilted / total)


Four = tuple[Tensor, Tensor, Tensor, Tensor]


def _check_rest(
    rows: int, outputs: int, barred_RV: Tensor | None, ids_V: Tensor | None, draw_R2: Tensor | None
) -> None:
    fits = barred_RV is None or (barred_RV.shape == (rows, outputs) and barred_RV.dtype == torch.bool)
    checked(fits, lambda: "barred tokens are bool [R, V]")
    checked(ids_V is None or (ids_V.shape == (outputs,) and ids_V.dtype == torch.int32), lambda: "ids are int32 [V]")
    fits = draw_R2 is None or (draw_R2.shape == (rows, 2) and draw_R2.dtype == torch.int64)
    checked(fits, lambda: "a draw is (seed, place), int64 [R, 2]")
    checked(all(t is None or t.is_contiguous() for t in (barred_RV, ids_V, draw_R2)), lambda: "take contiguous tensors")


def _join(part: Tensor, best: Tensor, ids_V: Tensor | None, rows: int, blocks: int) -> Four:
    token_R = fresh((rows,), torch.int64, part.device)
    numbers = [fresh((rows,), torch.float32, part.device) for _ in range(3)]
    if rows:
        size = max(triton.next_power_of_2(blocks), 16)
        join_head_kernel[(rows,)](part, best, ids_V, token_R, *numbers, blocks, BLOCK=size, num_warps=4)
    return token_R, numbers[0], numbers[1], numbers[2]


@torch.library.custom_op("diffcode::masked_head", mutates_args=())
def masked_head(
    x_RD: Tensor,
    head_VD: Tensor,
    scales_VG: Tensor | None,
    norm_D: Tensor | None,
    eps: float,
    barred_RV: Tensor | None,
    ids_V: Tensor | None,
    draw_R2: Tensor | None,
    temperature: float,
    favoured: int,
    nats: float,
    sliced: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`reference.masked_head(rms_norm(x))`: token, probability, margin and entropy, [R] each.

    `ids_V` (int32): the tokens behind the outputs, where they are not counted from 0: they are what is returned.
    `draw_R2` (int64): seed and place of each row, for a draw with `reference.counted_gumbel`'s noise. `favoured` is an
    output or -1. `sliced` takes the library's product; it has no int8. Raises ValueError for shapes that do not fit.
    """
    check_map(x_RD, head_VD, scales_VG, None, None, norm_D)
    (rows, inputs), outputs = x_RD.shape, head_VD.shape[0]
    if temperature <= 0:
        draw_R2 = None
    _check_rest(rows, outputs, barred_RV, ids_V, draw_R2)
    checked(not (sliced and scales_VG is not None), lambda: "the library's product takes no int8 weights")
    some = rows if draw_R2 is None else 1  # noise takes registers: with the larger tile they were too few on gfx942
    tile = DIGEST if sliced else tile_for("masked_head", some, outputs, inputs, head_VD.element_size())
    blocks, group = triton.cdiv(outputs, tile.outputs), group_of(head_VD, scales_VG)
    part = fresh((rows, blocks, FIELDS), torch.float32, x_RD.device)
    best = fresh((rows, blocks), torch.int32, x_RD.device)
    nats = nats if draw_R2 is None else nats / temperature
    choice = (barred_RV, ids_V, draw_R2, temperature, favoured, nats, part, best)
    if rows and sliced:
        _digest_slices(x_RD if norm_D is None else rms_norm(x_RD, norm_D, eps), head_VD, choice, blocks)
    elif rows:
        masked_head_kernel[(blocks, triton.cdiv(rows, tile.rows))](
            x_RD, x_RD.stride(0), norm_D, eps, head_VD, scales_VG, *choice, rows, inputs, outputs,
            GROUP=group, BLOCK_V=tile.outputs, BLOCK_R=tile.rows, BLOCK_D=inputs_of(tile, group), **tile.launch,
        )  # fmt: skip
    return _join(part, best, ids_V, rows, blocks)


def _digest_slices(x_RD: Tensor, head_VD: Tensor, choice: Sequence[object], blocks: int) -> None:
    rows, outputs = x_RD.shape[0], head_VD.shape[0]
    buffer = fresh((rows * min(SLICE, outputs),), x_RD.dtype, x_RD.device)
    for begin in range(0, outputs, SLICE):
        columns = min(SLICE, outputs - begin)
        logits_RS = buffer[: rows * columns].view(rows, columns)
        torch.mm(x_RD, head_VD[begin : begin + columns].T, out=logits_RS)
        grid = (triton.cdiv(columns, DIGEST.outputs), triton.cdiv(rows, DIGEST.rows))
        digest_slice_kernel[grid](
            logits_RS, begin, columns, *choice, blocks, rows, outputs,
            BLOCK_V=DIGEST.outputs, BLOCK_R=DIGEST.rows, **DIGEST.launch,
        )  # fmt: skip


@masked_head.register_fake
def _(x_RD: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    numbers = [x_RD.new_empty((x_RD.shape[0],), dtype=torch.float32) for _ in range(3)]
    return x_RD.new_empty((x_RD.shape[0],), dtype=torch.int64), numbers[0], numbers[1], numbers[2]


def head_rows(four: Four) -> HeadRows:
    """What the op returns, named."""
    return HeadRows(*four)


def specimens() -> list[Specimen]:
    """Every tile in bf16, greedy and drawn, and in int8; the sliced variant; the joining of the default vocabulary."""
    rows = {"x_ptr": "*bf16", "norm_ptr": "*bf16", "w_ptr": "*bf16", "x_stride": "i32", "eps": "fp32", "D": "i32"}
    choice = {"barred_ptr": "*i1", "ids_ptr": "*i32", "draw_ptr": "*i64", "temperature": "fp32", "favoured": "i32"}
    choice |= {"nats": "fp32", "part_ptr": "*fp32", "best_ptr": "*i32", "R": "i32", "V": "i32"}
    bare: dict[str, object] = {"barred_ptr": None, "ids_ptr": None, "draw_ptr": None}
    plain = {name: kind for name, kind in choice.items() if name not in bare}
    found = []
    for tile, kind in [*product_of(TILES, ("greedy", "int8")), (TILES[0], "drawn")]:
        types = rows | (choice if kind == "drawn" else plain)
        types |= {"w_ptr": "*i8", "scales_ptr": "*fp32"} if kind == "int8" else {}
        constants: dict[str, object] = {
            "GROUP": 128 if kind == "int8" else 0,
            "BLOCK_V": tile.outputs,
            "BLOCK_R": tile.rows,
        }
        constants |= {"BLOCK_D": tile.inputs} | ({} if kind == "drawn" else bare)
        constants |= {} if kind == "int8" else {"scales_ptr": None}
        aligned = [name for name, of in types.items() if of.startswith("*")] + ["x_stride", "D"]
        name = f"masked_head {tile.outputs}x{tile.rows} {kind}"
        found.append(Specimen(name, masked_head_kernel, types, constants, aligned, tile.launch))
    types = {"logit_ptr": "*bf16", "begin": "i32", "columns": "i32", "blocks": "i32"} | plain
    constants = {"BLOCK_V": DIGEST.outputs, "BLOCK_R": DIGEST.rows} | bare
    aligned = ["logit_ptr", "part_ptr", "best_ptr", "begin", "columns"]
    name = f"masked_head slice {DIGEST.outputs}x{DIGEST.rows}"
    found.append(Specimen(name, digest_slice_kernel, types, constants, aligned, DIGEST.launch, product=False))
    types = dict.fromkeys(("part_ptr", "probability_ptr", "margin_ptr", "entropy_ptr"), "*fp32")
    types |= {"best_ptr": "*i32", "token_ptr": "*i64", "blocks": "i32"}
    name, constants = "masked_head join", {"BLOCK": 2048, "ids_ptr": None}
    aligned = [n for n in types if n != "blocks"]
    options = {"num_warps": 4}
    return [*found, Specimen(name, join_head_kernel, types, constants, aligned, options, product=False, wide=False)]
