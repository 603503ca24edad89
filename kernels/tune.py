"""Tiles chosen on the GPU at hand: each op and shape of a model is tried with other tiles, and the quickest one that
gives the same numbers is kept, in a file a GPU.

One number of a tile is varied at a time, starting from the shipped tile: compiling takes longer than timing, and all
combinations would be a thousand compilations.
"""

import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from diffcode.kernels import tiles
from diffcode.kernels.calls import Call, Draw, call
from diffcode.kernels.dispatch import SLICED_ROWS
from diffcode.kernels.plan import Sizes
from diffcode.kernels.tiles import TILES, Shape, Tile, for_rows
from diffcode.kernels.timing import Clock
from diffcode.kernels.work import Work, works

VERSION = 1
CHOICES = {"outputs": (16, 32, 64, 128), "inputs": (32, 64, 128, 256), "warps": (2, 4, 8), "stages": (2, 3, 4, 5)}
CLOSE = 0.03  # bf16 results of two tiles differ by the order of their sums
CONTEXT = 1024
GAIN = 0.98  # a tile must take less than this share of the best one's time: less is noise


def shapes(sizes: Sizes, span_rows: int, rows: Sequence[int] = tiles.ROWS, context: int = CONTEXT) -> dict[Shape, Work]:
    """What is tuned for a model: every op at every number of rows that has tiles of its own."""
    found: dict[Shape, Work] = {}
    for size in rows:
        spans = min(span_rows, size - 1)
        for work in works(sizes, size - spans, spans, context, guesses=size):
            if work.op == "masked_head" and size >= SLICED_ROWS:
                continue  # the library's product
            lanes = size * work.outputs if work.op == "span_attention" else size
            # Attention has a row a query head and so one tile for all of them: that of a step counts.
            found.setdefault(Shape(work.op, work.outputs, work.inputs, tiles.rounded(lanes)), replace(work, rows=size))
    return found


def tune(
    asked: Mapping[Shape, Work], sizes: Sizes, draw: Draw, clock: Clock,
    report: Callable[[str], None] = lambda _: None, context: int = CONTEXT,
) -> dict[Shape, Tile]:  # fmt: skip
    """The best tile found for each shape. The tiles in force are afterwards what they were."""
    before, found = tiles.in_force(), {}
    try:
        for shape, work in asked.items():
            report(f"{work.name}, {work.rows} rows")
            made = call(work, sizes, context, draw)
            first = for_rows(TILES[shape.op], work.rows * (work.outputs if shape.op == "span_attention" else 1))
            found[shape] = best_tile(shape, first, made, clock)
    finally:
        tiles.use(before)
    return found


def best_tile(shape: Shape, first: Tile, made: Call, clock: Clock) -> Tile:
    """From the shipped tile downhill, one of its numbers at a time."""
    tiles.use({shape: first})
    wanted = made.ours().float()
    best, least = first, clock(made.ours)
    for name, values in CHOICES.items():
        for tile in [replace(best, **{name: value}) for value in values]:
            if tile == best or (shape.op == "span_attention" and name == "inputs"):
                continue
            seconds = _seconds(shape, tile, made, clock, wanted)
            if seconds < GAIN * least:
                best, least = tile, seconds
    return best


def _seconds(shape: Shape, tile: Tile, made: Call, clock: Clock, wanted: torch.Tensor) -> float:
    """Endless where the tile does not run here, or gives other numbers."""
    tiles.use({shape: tile})
    try:
        off = (made.ours().float() - wanted).abs().max()
        return clock(made.ours) if float(off) <= CLOSE else math.inf
    except Exception:  # Triton's errors have no common base: too many registers, too much shared memory, its compiler's
        return math.inf


# ---- kept


def file_of(folder: Path, gpu: str) -> Path:
    """Where a GPU's tiles lie."""
    return folder / f"{re.sub(r'[^a-z0-9]+', '-', gpu.lower()).strip('-')}.json"


def save(folder: Path, gpu: str, found: Mapping[Shape, Tile]) -> Path:
    """Add tiles to those that are kept for a GPU; other models' stay."""
    file = file_of(folder, gpu)
    every = kept(folder, gpu) | dict(found)
    rows = [asdict(shape) | {"tile": asdict(tile)} for shape, tile in every.items()]
    folder.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=folder, prefix=file.name)
    with os.fdopen(handle, "w", encoding="utf8") as out:
        json.dump({"version": VERSION, "gpu": gpu, "tiles": rows}, out, indent=1)
    os.replace(part, file)
    return file


def kept(folder: Path, gpu: str) -> dict[Shape, Tile]:
    """What is kept for a GPU; nothing where the file is missing or damaged."""
    try:
        document = json.loads(file_of(folder, gpu).read_text(encoding="utf8"))
        if document["version"] != VERSION or document["gpu"] != gpu:
            return {}
        found = {}
        for row in document["tiles"]:
            tile = Tile(**row.pop("tile"))
            if _runs(tile) and row["op"] in TILES:
                found[Shape(**row)] = tile
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _runs(tile: Tile) -> bool:
    """Whole numbers that a kernel could be launched with."""
    numbers = (tile.outputs, tile.rows, tile.inputs or 1, tile.warps)
    right = all(isinstance(n, int) and 1 <= n <= 512 and n & (n - 1) == 0 for n in numbers)
    return right and isinstance(tile.stages, int) and 1 <= tile.stages <= 8


def use_kept(folder: Path, gpu: str) -> int:
    """Put a GPU's kept tiles in force; returns how many."""
    found = kept(folder, gpu)
    tiles.use(found)
    return len(found)
