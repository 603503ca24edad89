"""Steps kept as CUDA graphs: launching a step's hundreds of kernels then costs the host one call.

The first time that a kind of step is asked for it simply runs, which compiles its kernels; the second time it is
captured, and from then on replayed. Capturing runs nothing, so a step that changes its own inputs may be captured too.
Graphs are bounded in number, the least recently used goes first; all share one memory pool, for only one runs at a
time and what it returns is read before the next. `DIFFCODE_GRAPHS=0` runs everything as it comes.
"""

import os
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, Protocol, TypeVar

import torch

Out = TypeVar("Out")
MOST = 16  # graphs: span rows x contexts of 512, 1024, 2048, ... places


class Captured(Protocol):
    """A captured step."""

    def replay(self) -> None:
        """Run it once more."""


class Capture(Protocol):
    """How steps are captured: returns the graph, and what the step returned, to be filled by replays."""

    def __call__(self, step: Callable[[], Out]) -> tuple[Captured, Out]: ...


class CudaCapture:
    """torch's, on the GPU that is the current one: the stream that torch would take is of the first GPU that captured.

    What other threads do meanwhile, loading weights for example, is no error of the capture.
    """

    def __init__(self) -> None:
        self._pool: Any = None
        self._stream: Any = None

    def __call__(self, step: Callable[[], Out]) -> tuple[Captured, Out]:
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        if self._pool is None:
            self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
            out = step()
        return graph, out


class Graphs(Generic[Out]):
    """Runs steps, captured where that works."""

    def __init__(self, capture: Capture | None, most: int = MOST):
        self._capture = capture if os.environ.get("DIFFCODE_GRAPHS") != "0" else None
        self._most = most
        self._known: OrderedDict[Hashable, tuple[Captured, Out] | None] = OrderedDict()  # None: ran once

    def run(self, kind: Hashable, step: Callable[[], Out]) -> Out:
        """What `step` returns; a later run of the same kind may overwrite it. Steps of a kind must do the same work
        on the same addresses."""
        if self._capture is None:
            return step()
        if kind not in self._known:
            out = step()
            self._remember(kind, None)
            return out
        self._known.move_to_end(kind)
        found = self._known[kind]
        if found is None:
            try:
                found = self._capture(step)
            except RuntimeError as error:  # torch's and CUDA's own, out of memory among them
                self._give_up(error)
                return step()
            self._known[kind] = found
        found[0].replay()
        return found[1]

    def _remember(self, kind: Hashable, what: tuple[Captured, Out] | None) -> None:
        self._known[kind] = what
        while len(self._known) > self._most:
            self._known.popitem(last=False)

    def _give_up(self, error: RuntimeError) -> None:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        warnings.warn(f"steps cannot be captured as CUDA graphs here ({reason}): they run as they come", stacklevel=4)
        self._capture = None
        self.forget()

    def forget(self) -> None:
        """Memory has moved: what was captured is worthless."""
        self._known.clear()

    def __len__(self) -> int:
        return sum(found is not None for found in self._known.values())


def current(device: torch.device) -> AbstractContextManager[object]:
    """Makes a GPU the current one for a while: Triton launches on that, wherever the tensors lie."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def graphs_for(device: torch.device) -> "Graphs[Any]":
    """Captured on a GPU, plain elsewhere."""
    return Graphs(CudaCapture() if device.type == "cuda" else None)
