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
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from diffcode.evals.gpu_parts import LEFT_OUT, TORCH, Row
from diffcode.evals.gpu_watch import messages
from diffcode.evals.machine import commit
from diffcode.kernels.plan import Rates

if TYPE_CHECKING:
    from rich.table import Table

SECONDS = 470.0  # in which parts are begun
END = 55.0  # what the last one may still take; then it is killed, and the table is printed


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

    def worker(left: float, first: int) -> list[str]:
        more = ["rehearse"] if asked.rehearse else []
        return [sys.executable, "-P", "-m", "diffcode.evals.gpu_worker", f"{left - END:.0f}", str(first), *more]

    about, rows = None, []
    for message in messages(worker, began + asked.seconds + END):
        about = about or message.get("about")
        if "row" in message:
            rows.append(Row(**message["row"]))
        elif "failed" in message:
            rows.append(Row(message["model"], message["what"], "ours", note=message["failed"]))
        else:
            continue
        print(f"{time.monotonic() - began:6.1f} s  {line(rows[-1])}", flush=True)
    if about is None:
        print("diffcode: the measuring process did not start: nothing was measured", file=sys.stderr)
        return 1
    rates, when = Rates(**about.pop("rates")), datetime.now(UTC).isoformat(timespec="seconds")
    run = Report(began=when, commit=commit(), rates=rates, seconds=time.monotonic() - began, rows=rows, **about)
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
