"""Attention by sights in the interpreter against attention by a mask."""

import random

import pytest
import torch
from closeness import check_close, normal
from torch import Tensor

from diffcode.kernels import reference as ops
from diffcode.kernels.triton import span_attention as module
from diffcode.kernels.triton.span_attention import span_attention
from diffcode.rows import Rows

Shape = tuple[int, int, int]  # query heads, groups, width of a head


def compare(sight_R4: Tensor, places: int, shape: Shape, dtype: torch.dtype, guards, seed: int = 0) -> None:
    heads, groups, width = shape
    rows = len(sight_R4)
    q, k, v = (
        normal(*s, seed=seed + i, spread=0.8).to(dtype)
        for i, s in enumerate([(rows, heads, width), (groups, places, width), (groups, places, width)])
    )
    seen_RS = ops.seen_places(sight_R4, places)
    reference = ops.span_attention(q, k, v, seen_RS)
    gold = ops.span_attention(q.float(), k.float(), v.float(), seen_RS)
    for unseen in (~seen_RS.any(0)).nonzero()[:, 0].tolist():
        k[:, unseen], v[:, unseen] = 1e4, -1e4  # must not matter
    longest = int((sight_R4[:, [1, 3]].amax(1) - sight_R4[:, 0]).max()) if rows else 1
    out = span_attention(*(guards.inside(t) for t in (q, k, v, sight_R4)), longest)
    check_close(out, gold, reference, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(4, 2, 16), (14, 2, 64), (3, 1, 8)], ids=str)
@pytest.mark.parametrize(
    ("rows", "length"),
    [
        (Rows(1, 0, 4, (0,)), 0),
        (Rows(1, 0, 0, ()), 64),
        (Rows(1, 2, 4, (0, 2)), 63),
        (Rows(3, 2, 5, (1, 2)), 130),
        (Rows(17, 0, 0, ()), 0),
        (Rows(2, 0, 8, (0,)), 301),
    ],
    ids=str,
)
def test_span_rows_behind_a_context(rows: Rows, length: int, shape: Shape, dtype: torch.dtype, guards) -> None:
    sight_R4 = ops.span_sights(rows.sights(), length)
    compare(sight_R4, length + rows.chain + rows.span_rows + 3, shape, dtype, guards)


@pytest.mark.parametrize("lengths", [[1], [5, 1, 12], [64, 7], [31, 33, 2]], ids=str)
def test_full_bidirectional_without_padding(lengths: list[int], guards) -> None:
    compare(ops.whole_sights(lengths), sum(lengths) + 4, (4, 2, 16), torch.float16, guards)


@pytest.mark.parametrize(("length", "block"), [(1, 4), (16, 4), (33, 8), (70, 32)])
def test_block_causal(length: int, block: int, guards) -> None:
    compare(ops.block_sights(length, block), length, (4, 1, 16), torch.float32, guards)


def test_canvases_of_different_lengths_in_one_cache(guards) -> None:
    layouts = [(Rows(1, 0, 4, (0,)), 150), (Rows(2, 1, 3, (0, 1)), 9), (Rows(1, 0, 0, ()), 0)]
    sights, start = [], 5
    for rows, length in layouts:
        sights.append(ops.span_sights(rows.sights(), length, start))
        start += length + rows.chain + rows.span_rows + 2
    compare(torch.cat(sights), start, (6, 2, 16), torch.float32, guards)


@pytest.mark.parametrize("seed", range(6))
def test_random_sights(seed: int, guards) -> None:
    r = random.Random(seed)
    places, rows = r.randint(1, 200), r.randint(1, 20)
    sights = []
    for _ in range(rows):
        first, until, second, end = sorted(r.randint(0, places) for _ in range(4))
        sights.append((first, until, second, end) if first < until or second < end else (0, 1, 0, 0))
    shape = r.choice(((4, 2, 16), (7, 1, 8), (2, 2, 32)))
    dtype = r.choice((torch.float32, torch.float16))
    compare(torch.tensor(sights, dtype=torch.int32), places, shape, dtype, guards, seed)


@pytest.mark.parametrize("longest", [1, 70, 10_000])
def test_the_number_of_parts_changes_nothing_but_rounding(longest: int, guards) -> None:
    sight_R4 = torch.tensor([(0, 90, 0, 0), (3, 4, 80, 99), (0, 0, 99, 100)], dtype=torch.int32)
    q, k, v = normal(3, 4, 16), normal(2, 100, 16, seed=1), normal(2, 100, 16, seed=2)
    gold = ops.span_attention(q, k, v, ops.seen_places(sight_R4, 100))
    check_close(span_attention(q, k, v, sight_R4, longest), gold, gold, torch.float32)


def test_rows_are_strangers(guards) -> None:
    """A row's numbers are the same bits beside rows that see more, also where its keys are split over programs."""
    q, k, v = normal(2, 10, 16), normal(1, 600, 16, seed=1), normal(1, 600, 16, seed=2)
    own, more = (0, 510, 0, 0), (0, 520, 520, 530)
    beside = [span_attention(q, k, v, torch.tensor([own, s], dtype=torch.int32), 1024)[0] for s in (own, more)]
    assert torch.equal(*beside)


def test_who_sees_nothing_gets_nothing(guards) -> None:
    sight_R4 = torch.tensor([(0, 0, 0, 0), (0, 9, 0, 0), (5, 5, 7, 7)], dtype=torch.int32)
    q, k, v = normal(3, 2, 16), normal(1, 9, 16, seed=1), normal(1, 9, 16, seed=2)
    for longest in (9, 600):
        out = span_attention(q, k, v, sight_R4, longest)
        assert torch.equal(out[[0, 2]], torch.zeros(2, 32))
        assert (out[1] != 0).any()


def test_no_rows() -> None:
    empty = torch.zeros(0, 4, dtype=torch.int32)
    assert span_attention(normal(0, 2, 16), normal(1, 9, 16), normal(1, 9, 16), empty, 9).shape == (0, 32)


def test_parts_are_a_power_of_two_and_not_too_many() -> None:
    for programs in (1, 2, 7, 64, 500):
        for places in (1, 63, 64, 65, 1000, 100_000):
            splits = module.splits_for(programs, places)
            assert splits & (splits - 1) == 0
            assert 1 <= splits <= module.MOST_SPLITS
            assert splits == 1 or (splits * programs <= module.PROGRAMS * 2 and splits * 64 < places + 64)
