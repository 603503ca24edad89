"""The part of a product that one GPU program computes, by op. Plain Python: the plan reads it where there is no Triton.

TILES were not tuned: chosen so that every kernel compiles on all targets without spills (`kernels/triton/FACTS.md`).
`kernels.tune` finds better ones on a GPU that is at hand; `use` puts them in force.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tile:
    """`outputs` x `rows`, `inputs` at a time."""

    outputs: int
    rows: int
    inputs: int
    warps: int
    stages: int

    @property
    def launch(self) -> dict[str, int]:
        """As Triton calls them."""
        return {"num_warps": self.warps, "num_stages": self.stages}


@dataclass(frozen=True, slots=True)
class Shape:
    """What a tile is tuned for. Of attention: outputs are query heads a group, inputs the width of a head."""

    op: str
    outputs: int
    inputs: int
    rows: int  # as `rounded` says


TILES = {
    "masked_head": (Tile(128, 16, 64, 4, 4), Tile(128, 64, 64, 8, 3)),
    "span_attention": (Tile(64, 16, 0, 4, 3), Tile(32, 64, 0, 4, 2)),  # outputs: keys; rows: query heads of a group
    "qkv_rope": (Tile(16, 16, 128, 4, 3), Tile(32, 64, 64, 4, 3)),  # outputs: pairs of numbers
    "gated_mlp": (Tile(32, 16, 128, 4, 3), Tile(64, 64, 64, 8, 3)),
    "lora_linear": (Tile(32, 16, 128, 4, 4), Tile(64, 64, 64, 4, 3)),
}
TUNED_BYTES = 2  # of a weight: what fits with these need not fit with wider ones
ROWS = (16, 64, 1024)  # tiles are tuned for up to so many rows; the last ones serve all above
_tuned: dict[Shape, Tile] = {}


def for_rows(tiles: Sequence[Tile], rows: int) -> Tile:
    """The smallest tile that holds all rows, or the largest there is; `tiles` in order of their rows."""
    return next((tile for tile in tiles if tile.rows >= rows), tiles[-1])


def rounded(rows: int) -> int:
    """The number of rows that tiles were tuned with."""
    return next((size for size in ROWS if size >= rows), ROWS[-1])


def tile_for(op: str, rows: int, outputs: int, inputs: int, size: int = TUNED_BYTES) -> Tile:
    """The tile in force: the tuned one, where there is one for the shape and weights of `size` bytes."""
    tuned = _tuned.get(Shape(op, outputs, inputs, rounded(rows))) if size == TUNED_BYTES else None
    return tuned or for_rows(TILES[op], rows)


def use(table: Mapping[Shape, Tile]) -> None:
    """Put tuned tiles in force, in place of those before. What was captured with others keeps them."""
    _tuned.clear()
    _tuned.update(table)


def in_force() -> dict[Shape, Tile]:
    """The tuned tiles."""
    return dict(_tuned)
