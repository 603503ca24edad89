"""`make gpu`: ten minutes on a GPU turned into rows. Prints one table last; with --out the rows are kept.

    python -m diffcode.evals.gpu                 on a GPU
    python -m diffcode.evals.gpu --rehearse      every part at toy size on this machine's CPU, nothing is kept

Every op is checked in bf16 against fp32 by the project's rule and timed against torch, torch.compile and other
libraries; whole steps and fills of two models follow. Floors come from rates that were measured in the same run.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from diffcode import hub
from diffcode.evals import gpu_parts
from diffcode.evals.cuts import library_lines
from diffcode.evals.gpu_parts import TORCH, Bench, Row, reason
from diffcode.evals.gpu_real import real_rows
from diffcode.evals.machine import commit
from diffcode.fused import tiles_folder
from diffcode.infill import Infiller
from diffcode.kernels import dispatch, tune
from diffcode.kernels.calls import Run
from diffcode.kernels.plan import Rates, Sizes
from diffcode.kernels.targets import MODELS
from diffcode.kernels.timing import CudaClock, WallClock, measured_rates

if TYPE_CHECKING:
    from rich.table import Table

KEPT, RANK = 32_768, 32  # of the default model's adapter, roughly
TINY = Sizes(2, 64, 4, 2, 16, 96, 288, kept=144, rank=4)
LEFT_OUT = "left out:"
SECONDS = 470.0  # in all
SPARE = 60.0  # what a part that was begun may still take
MEMORY = 3.0  # bytes a weight that a model needs to be drawn and run


@dataclass(frozen=True, slots=True)
class Report:
    """What came of one run, where and with what."""

    gpu: str
    began: str
    commit: str
    torch: str
    triton: str
    tuned: int  # tiles that `diffcode tune` found here before
    machine: str  # who ran the ops
    rates: Rates
    seconds: float
    rows: list[Row]


def main(arguments: Sequence[str]) -> int:
    """Returns 1 if something was wrong or failed, 5 without a GPU."""
    parser = argparse.ArgumentParser(description="Measure the fused kernels on this GPU.")
    parser.add_argument("--out", type=Path, help="add the run to this file, a line of JSON")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="begin nothing after so many")
    parser.add_argument("--rehearse", action="store_true", help="every part at toy size on the CPU; keeps nothing")
    asked = parser.parse_args(arguments)
    if not asked.rehearse and not torch.cuda.is_available():
        print("diffcode: make gpu measures a GPU, and torch finds none here: nothing was measured", file=sys.stderr)
        return 5
    began = time.monotonic()
    bench, models = rehearsal(began + asked.seconds) if asked.rehearse else on_gpu(began + asked.seconds)
    gpu = "none, a rehearsal" if asked.rehearse else torch.cuda.get_device_name()
    tuned = 0 if asked.rehearse else tune.use_kept(tiles_folder(), gpu)
    rows = []
    for row in measured(bench, models):
        rows.append(row)
        print(f"{time.monotonic() - began:6.1f} s  {line(row)}", flush=True)
    run = Report(
        gpu, datetime.now(UTC).isoformat(timespec="seconds"), commit(), torch.__version__, triton_version(), tuned,
        dispatch.machine("lora_linear", torch.empty(0, dtype=bench.dtype, device=bench.device)), bench.rates,
        time.monotonic() - began, rows,
    )  # fmt: skip
    if asked.out is not None and not asked.rehearse:
        keep(asked.out, run)
    show(run)
    return int(any(failed(row) for row in rows))


def failed(row: Row) -> bool:
    """Ours, and wrong or not to be had. What other libraries do is theirs."""
    if not row.who.startswith("ours"):
        return row.who == "agreement" and row.right is False
    missing = row.seconds is None and not row.note.startswith(LEFT_OUT)
    return row.right is False or missing


def on_gpu(deadline: float) -> tuple[Bench, dict[str, Sizes]]:
    device, clock = torch.device("cuda"), CudaClock()
    torch.backends.cuda.matmul.allow_tf32 = False  # fp32 results are what others are compared with
    rates = measured_rates(clock, device)
    bench = Bench(device, torch.bfloat16, clock, rates, torch.compile, 1024, 64, 30, deadline)
    names = {"0.5B": "qwen2.5-coder-0.5b", "7B": "qwen2.5-coder-7b"}
    return bench, {
        short: dataclasses.replace(MODELS[name], kept=KEPT, rank=RANK) for short, name in names.items()
    }  # fmt: skip


def rehearsal(deadline: float) -> tuple[Bench, dict[str, Sizes]]:
    """Nothing of a GPU is used but Triton's interpreter, if TRITON_INTERPRET=1."""
    device, clock = torch.device("cpu"), WallClock()
    rates = measured_rates(clock, device, copied=1 << 16, side=32)

    def compiled(run: Run) -> Run:
        found: Run = torch.compile(run, backend="aot_eager")
        return found

    return Bench(device, torch.float32, clock, rates, compiled, 20, 3, 1, deadline), {"tiny": TINY}


def measured(bench: Bench, models: dict[str, Sizes]) -> Iterator[Row]:
    """All parts in the order of their worth: what is right, then steps and fills, the smaller model first."""
    yield gpu_parts.commit_row(bench)
    for name, sizes in models.items():
        yield from part(bench, name, "ops", partial(gpu_parts.op_rows, bench, name, sizes))
        if not fits(bench, sizes):
            yield Row(name, "steps and fills", "ours", note=f"{LEFT_OUT} the GPU has too little memory")
            continue
        weights = gpu_parts.random_weights(sizes, bench)
        yield from part(bench, name, "steps", partial(gpu_parts.step_rows, bench, name, sizes, weights))
        yield from part(bench, name, "fills", partial(gpu_parts.fill_rows, bench, name, weights))
        del weights
    yield from part(bench, "default", "fills", partial(default_rows, bench))
    name, sizes = next(iter(models.items()))  # last, for it may take a minute to compile
    yield from part(bench, name, "compiled step", partial(gpu_parts.compiled_step_rows, bench, name, sizes))


def default_rows(bench: Bench) -> Iterator[Row]:
    """Fills of the default model, if its weights are at hand."""
    if bench.device.type != "cuda":
        yield Row("default", "fills", "ours", note=f"{LEFT_OUT} a rehearsal")
    elif hub.cached() is None:
        yield Row("default", "fills", "ours", note=f"{LEFT_OUT} no weights here, run diffcode pull")
    else:
        yield from real_rows(
            bench, "default", lambda: Infiller.from_pretrained(device="cuda"), library_lines(8, seed=1)
        )


def part(bench: Bench, model: str, what: str, rows: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """Its rows, while there is time; its failure is a row too, and not the end of the others."""
    try:
        for row in rows() if bench.left() > SPARE else ():
            yield row
            if bench.left() < 0:
                break
        else:
            if bench.left() > SPARE:
                return
        yield Row(model, what, "ours", note=f"{LEFT_OUT} no time")
    except Exception as error:
        yield Row(model, what, "ours", note=reason(error))


def fits(bench: Bench, sizes: Sizes) -> bool:
    weights = sizes.layer_weights + sizes.vocabulary * sizes.width
    free = torch.cuda.mem_get_info()[0] if bench.device.type == "cuda" else 1 << 40
    return MEMORY * weights < free


def triton_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("triton")
    except PackageNotFoundError:
        return "none"


# ---- what came of it


def keep(file: Path, run: Report) -> None:
    """One more line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf8") as out:
        out.write(json.dumps(dataclasses.asdict(run)) + "\n")


def line(row: Row) -> str:
    took = "" if row.seconds is None else f"{row.seconds * 1e3:.4f} ms"
    right = {None: "", True: "right", False: "WRONG"}[row.right]
    return "  ".join(filter(None, (row.model, row.what, row.who, took, right, row.note)))


def show(run: Report) -> None:
    from rich.console import Console

    Console(width=None if Console().is_terminal else 160).print(table(run))


def table(run: Report) -> "Table":
    """A line a row. Reached: the floor at measured rates by the time, the share of what the GPU can do."""
    from rich import box
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, caption=caption(run))
    for name in ("model", "what", "who"):
        grid.add_column(name)
    for name in ("ms", "reached", "torch's x", "off"):
        grid.add_column(name, justify="right")
    for name in ("bound by", "right", "note"):
        grid.add_column(name)
    plain = {(r.model, r.what): r.seconds for r in run.rows if r.who == TORCH}
    for row in run.rows:
        base = plain.get((row.model, row.what))
        ms = "" if row.seconds is None else f"{row.seconds * 1e3:.4f}"
        reached = f"{row.floor / row.seconds:.0%}" if row.seconds and row.floor else ""
        times = f"{base / row.seconds:.2f}" if row.seconds and base else ""
        right = {None: "", True: "yes", False: "NO"}[row.right]
        off = "" if row.off is None else f"{row.off:.1e}"
        grid.add_row(row.model, row.what, row.who, ms, reached, times, off, row.bound, right, row.note)
    return grid


def caption(run: Report) -> str:
    r, tiles = run.rates, f"{run.tuned} tuned tiles" if run.tuned else "no tuned tiles"
    return (
        f"{run.gpu}: {r.bytes_a_second / 1e12:.2f} TB/s copied, {r.operations_a_second / 1e12:.0f} TFLOP/s of a bf16 "
        f"product, both measured; ops by {run.machine}, {tiles}; torch {run.torch}, triton {run.triton}, "
        f"commit {run.commit}, {run.began[:10]}, {run.seconds:.0f} s"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
