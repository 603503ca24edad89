"""How long something takes on a GPU, and what the GPU can do at best.

The weights of a step come out of memory, not out of the cache that the repetition before filled: so the cache is
overwritten before every run. Launching from Python takes longer than a small kernel runs: so runs are replays of a CUDA
graph where they can be captured.
"""

import statistics
import time
from collections.abc import Callable
from typing import Protocol

import torch

from diffcode.kernels.plan import Rates

FLUSH = 512 << 20  # bytes, more than any GPU's cache: MI300X has 256 MiB
COPIED = 1 << 30  # bytes
MATRIX = 8192  # its side


class Clock(Protocol):
    """Median seconds of a run."""

    def __call__(self, run: Callable[[], object]) -> float: ...


class WallClock:
    """For a machine without a GPU: rehearsals and tests."""

    def __init__(self, repeats: int = 1):
        self._repeats = repeats

    def __call__(self, run: Callable[[], object]) -> float:
        times = []
        for _ in range(self._repeats):
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
        return statistics.median(times)


class CudaClock:
    """Between two events on the GPU's own clock."""

    def __init__(self, repeats: int = 25, captured: bool = True):
        self._repeats, self._captured = repeats, captured
        self._flush = torch.empty(FLUSH, dtype=torch.int8, device="cuda")

    def __call__(self, run: Callable[[], object]) -> float:
        for _ in range(3):
            run()
        torch.cuda.synchronize()
        again = self._replay(run) if self._captured else run
        times = []
        for _ in range(self._repeats):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self._flush.zero_()
            begin.record()
            again()
            end.record()
            torch.cuda.synchronize()
            times.append(float(begin.elapsed_time(end)) / 1e3)
        return statistics.median(times)

    def _replay(self, run: Callable[[], object]) -> Callable[[], object]:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                run()
        except RuntimeError:  # it looks at its own results, say: then its launches are in the time
            torch.cuda.synchronize()
            return run
        return graph.replay


def measured_rates(clock: Clock, device: torch.device, copied: int = COPIED, side: int = MATRIX) -> Rates:
    """Bytes a second of a copy, read and written ones counted; operations a second of a square bf16 product."""
    a, b = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    product = clock(lambda: a @ b)
    source = torch.zeros(copied, dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    return Rates(2 * copied / clock(lambda: target.copy_(source)), 2 * side**3 / product)
