"""The measuring process of `make gpu`: all parts one after the other, told to the process that watches it, a line of
JSON each (`gpu_watch`)."""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TextIO

import torch

from diffcode import hub
from diffcode.evals import gpu_parts
from diffcode.evals.cuts import library_lines
from diffcode.evals.gpu_parts import LEFT_OUT, Bench, Row, reason
from diffcode.evals.gpu_real import real_rows
from diffcode.evals.gpu_watch import DEAD
from diffcode.fused import tiles_folder
from diffcode.infill import Infiller
from diffcode.kernels import dispatch, tune
from diffcode.kernels.calls import Run
from diffcode.kernels.plan import Sizes
from diffcode.kernels.step import StepWeights
from diffcode.kernels.targets import MODELS
from diffcode.kernels.timing import CudaClock, WallClock, measured_rates

KEPT, RANK = 32_768, 32  # of the default model's adapter, roughly
TINY = Sizes(2, 64, 4, 2, 16, 96, 288, kept=144, rank=4)
SPARE = 60.0  # what a part that was begun may still take
MEMORY = 3.0  # bytes a weight that a model needs to be drawn and run


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows that are measured together."""

    model: str
    what: str
    rows: Callable[[], Iterator[Row]]


def work(told: TextIO, seconds: float, first: int, rehearses: bool) -> int:
    """All parts from the `first` on, for about so long. Returns DEAD if the GPU answers no more."""
    deadline = time.monotonic() + seconds
    bench, models = rehearsal(deadline) if rehearses else on_gpu(deadline)
    tell(told, about=about(bench, rehearses))
    for number, part in list(enumerate(parts(bench, models)))[first:]:
        tell(told, part=number, model=part.model, what=part.what)
        for row in part_rows(bench, part):
            tell(told, row=dataclasses.asdict(row))
        if not alive(bench.device):
            return DEAD
    return 0


def tell(told: TextIO, **message: object) -> None:
    told.write(json.dumps(message) + "\n")
    told.flush()


def alive(device: torch.device) -> bool:
    """A kernel that reads beyond its memory ends the GPU's work for the whole process."""
    try:
        if device.type == "cuda":
            torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def about(bench: Bench, rehearses: bool) -> dict[str, object]:
    """Where and with what."""
    gpu = "none, a rehearsal" if rehearses else torch.cuda.get_device_name()
    return {
        "gpu": gpu, "torch": torch.__version__, "triton": triton_version(),
        "tuned": 0 if rehearses else tune.use_kept(tiles_folder(), gpu),
        "machine": dispatch.machine("lora_linear", torch.empty(0, dtype=bench.dtype, device=bench.device)),
        "rates": dataclasses.asdict(bench.rates),
    }  # fmt: skip


def on_gpu(deadline: float) -> tuple[Bench, dict[str, Sizes]]:
    device, clock = torch.device("cuda"), CudaClock()
    torch.backends.cuda.matmul.allow_tf32 = False  # fp32 results are what others are compared with
    rates = measured_rates(clock, device)
    compiled = partial(torch.compile, dynamic=False)  # for these shapes alone, as our kernels are
    bench = Bench(device, torch.bfloat16, clock, rates, compiled, 1024, 64, 30, deadline)
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


def parts(bench: Bench, models: dict[str, Sizes]) -> Iterator[Part]:
    """In the order of their worth: what is right, then steps and fills, the smaller model first."""
    yield Part("any", "commit", lambda: iter([gpu_parts.commit_row(bench)]))
    for name, sizes in models.items():
        for op in gpu_parts.works_of(bench, sizes):
            yield Part(name, op.name, partial(gpu_parts.op_rows, bench, name, sizes, op))
        for what, rows in (("steps", gpu_parts.step_rows), ("fills", gpu_parts.fill_rows)):
            yield Part(name, what, partial(whole, rows, bench, name, sizes))
    yield Part("default", "fills", partial(default_rows, bench))
    name, sizes = next(iter(models.items()))  # last, for it may take a minute to compile
    yield Part(name, "compiled step", partial(gpu_parts.compiled_step_rows, bench, name, sizes))


def whole(
    rows: Callable[[Bench, str, Sizes, StepWeights], Iterator[Row]], bench: Bench, name: str, sizes: Sizes
) -> Iterator[Row]:
    """Of a model with random weights, where it fits."""
    if not fits(bench, sizes):
        yield Row(name, "steps and fills", "ours", note=f"{LEFT_OUT} the GPU has too little memory")
        return
    yield from rows(bench, name, sizes, weights_of(sizes, bench))


@lru_cache(1)
def weights_of(sizes: Sizes, bench: Bench) -> StepWeights:
    """Kept for a model's next part; another model's take their place."""
    return gpu_parts.random_weights(sizes, bench)


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


def part_rows(bench: Bench, part: Part) -> Iterator[Row]:
    """While there is time; its failure is a row too, and not the end of the others."""
    try:
        for row in part.rows() if bench.left() > SPARE else ():
            yield row
            if bench.left() < 0:
                break
        else:
            if bench.left() > SPARE:
                return
        yield Row(part.model, part.what, "ours", note=f"{LEFT_OUT} no time")
    except Exception as error:
        yield Row(part.model, part.what, "ours", note=reason(error))


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


if __name__ == "__main__":
    watcher = os.fdopen(os.dup(1), "w", encoding="utf8")
    os.dup2(2, 1)  # what libraries print is no message
    sys.exit(work(watcher, float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] == ["rehearse"]))
