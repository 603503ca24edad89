"""A model on one device that runs steps: weights, the arena of its canvases, a table that stays in place, graphs."""

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from diffcode.kernels.arena import PLACES, Arena, Stretch
from diffcode.kernels.graphs import Graphs, current, graphs_for
from diffcode.kernels.step import (
    COLUMNS,
    PADDED,
    Asked,
    Layout,
    Said,
    StepWeights,
    Table,
    forward,
    layout_for,
    table_of,
)

Number = tuple[int, float, float, float]  # token, probability, margin, entropy
AHEAD = 256  # places that a canvas gets beyond those it needs now


class Stepper:
    """Runs steps, one at a time."""

    def __init__(self, weights: StepWeights, graphs: Graphs[Any] | None = None, places: int = PLACES):
        self.weights, self.device = weights, weights.embedding_VD.device
        self.graphs = graphs_for(self.device) if graphs is None else graphs
        self._places = places
        self._arena: Arena | None = None
        self._flat = torch.zeros((COLUMNS + 1) * PADDED[-1], dtype=torch.int64, device=self.device)
        self.lock = threading.RLock()

    @property
    def arena(self) -> Arena:
        """Made when the first canvas is: a model that is only trained needs none."""
        if self._arena is None:
            w, dtype = self.weights, self.weights.embedding_VD.dtype
            sizes = (len(w.layers), w.kv_heads, w.head_width)
            self._arena = Arena(*sizes, dtype, self.device, self._places, self.graphs.forget)
        return self._arena

    def canvas(self) -> "Canvas":
        """A new, empty one."""
        return Canvas(self)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around every step."""
        with self.lock, torch.inference_mode(), current(self.device):
            yield

    def said(self, asked: Asked, start: int, length: int, barred_RV: Tensor | None = None) -> tuple[Said, Layout]:
        """A step without a look at what it says."""
        layout = layout_for(asked, length)
        flat = torch.tensor(table_of(asked, layout, start, length), dtype=torch.int64).to(self.device)
        with self.running():
            return forward(self.weights, self.arena.caches, Table.of(flat, layout), layout, barred_RV), layout

    def step(
        self, asked: Asked, start: int, length: int, barred_RV: Tensor | None = None
    ) -> tuple[list[Number], list[Number]]:
        """What the base rows and the span rows say. `barred_RV` is of the base rows."""
        layout = layout_for(asked, length)
        if barred_RV is not None:
            barred_RV = torch.nn.functional.pad(barred_RV, (0, 0, layout.headed - len(barred_RV), 0))
        with self.running():
            if barred_RV is not None or layout.rows > PADDED[-1]:
                numbers = self.said(asked, start, length, barred_RV)[0].numbers()
            else:
                numbers = self._captured(asked, layout, start, length)
            rows: list[list[float]] = numbers.tolist()
        found: list[Number] = [(int(token), p, margin, entropy) for token, p, margin, entropy in rows]
        return found[layout.headed - asked.base_rows : layout.headed], found[layout.headed :]

    def _captured(self, asked: Asked, layout: Layout, start: int, length: int) -> Tensor:
        self._flat[: layout.numbers].copy_(torch.tensor(table_of(asked, layout, start, length)))

        def run() -> Tensor:
            return forward(self.weights, self.arena.caches, Table.of(self._flat, layout), layout).numbers()

        numbers: Tensor = self.graphs.run(layout, run)
        return numbers


class Canvas:
    """A context that grows, step by step."""

    def __init__(self, stepper: Stepper):
        self._stepper = stepper
        self._stretch: Stretch | None = None
        self._give: weakref.finalize[[Stretch], Canvas] | None = None
        self.length = 0  # places that were read for good

    def step(self, asked: Asked, barred_RV: Tensor | None = None) -> tuple[list[Number], list[Number]]:
        """`Stepper.step` behind what was read. The asked rows are forgotten by the next step, but for `length`."""
        with self._stepper.lock:
            return self._stepper.step(asked, self.room(len(asked.tokens)), self.length, barred_RV)

    def room(self, rows: int) -> int:
        """Where the canvas lies, with room for so many new rows."""
        arena, needed = self._stepper.arena, self.length + rows
        if self._stretch is None:
            self._hold(arena.take(needed + AHEAD))
        elif needed > self._stretch.places:
            self._let_go()
            self._hold(arena.move(self._stretch, self.length, 2 * needed))
        assert self._stretch is not None
        return self._stretch.start

    def _hold(self, stretch: Stretch) -> None:
        self._stretch = stretch
        self._give = weakref.finalize(self, self._stepper.arena.give, stretch)

    def _let_go(self) -> None:
        if self._give is not None:
            self._give.detach()
            self._give = None

    def close(self) -> None:
        """The stretch is for others now."""
        with self._stepper.lock:
            if self._give is not None:
                self._give()
            self._stretch = self._give = None
            self.length = 0
