"""The parts of `make gpu` with the kernels in the interpreter, at toy size."""

import time
from itertools import islice

import pytest
import torch

from diffcode.evals import gpu, gpu_parts
from diffcode.evals.gpu_parts import Bench
from diffcode.kernels import tune
from diffcode.kernels.calls import Draw
from diffcode.kernels.plan import Rates
from diffcode.kernels.targets import Sizes
from diffcode.kernels.tiles import TILES

SMALL = Sizes(1, 32, 2, 1, 16, 32, 256, kept=32, rank=4)


def bench(dtype: torch.dtype) -> Bench:
    rates, device = Rates(1e12, 1e14), torch.device("cpu")
    deadline = time.monotonic() + 60
    return Bench(device, dtype, lambda run: run() is None or 1e-3, rates, lambda run: run, 9, 2, 1, deadline)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_ops_are_right(dtype: torch.dtype) -> None:
    """Not in bf16: the interpreter cuts instead of rounding, and takes `other=1` of a load for the bits of a number."""
    of = bench(dtype)
    every = (row for work in gpu_parts.works_of(of, SMALL) for row in gpu_parts.op_rows(of, "small", SMALL, work))
    rows = [row for row in every if row.who == "ours"]
    assert len(rows) == 7
    assert [(row.what, row.off, row.note) for row in rows if not row.right] == []


def test_commit_is_right() -> None:
    row = gpu_parts.commit_row(bench(torch.float32), 5)
    assert row.right, row.note


def test_steps_and_fills_run() -> None:
    weights = gpu_parts.random_weights(SMALL, bench(torch.float32))
    rows = list(gpu_parts.step_rows(bench(torch.float32), "small", SMALL, weights))
    rows += islice(gpu_parts.fill_rows(bench(torch.float32), "small", SMALL, weights), 1)
    assert [gpu.line(row) for row in rows if gpu.failed(row)] == []
    assert [row.note for row in rows if row.who == "agreement"] == [
        "100% of 1 tokens as torch's", "100% of 8 tokens as torch's", "100% of 1 tokens as torch's",
    ]  # fmt: skip


def test_tuning_tries_tiles_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real kernels under other tiles: what gives wrong numbers would be passed over, so all must be tried."""
    monkeypatch.setattr(tune, "CHOICES", {"outputs": (16, 64), "inputs": (32,), "warps": (8,), "stages": (2,)})
    tried = []
    asked = tune.shapes(SMALL, 2, rows=(16,), context=9)

    def clock(run) -> float:
        run()
        tried.append(tune.tiles.in_force())
        return 1.0 / len(tried)  # each tile is quicker than the one before

    found = tune.tune(asked, SMALL, Draw(torch.float16, torch.device("cpu")), clock, context=9)
    for shape, tile in found.items():
        assert tile.stages == 2
        assert tile.warps == 8
        assert tile.outputs == 64
        assert tile.inputs == (0 if shape.op == "span_attention" else 32)
    assert {shape.op for shape in found} == set(TILES)
