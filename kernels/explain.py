"""Where a step's time goes, op by op: what must be read and computed, the least that this takes, and what to expect."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diffcode.kernels.plan import Rates
from diffcode.kernels.targets import Fit
from diffcode.kernels.tiles import TILES, for_rows
from diffcode.kernels.work import Work


@dataclass(frozen=True, slots=True)
class Explained:
    """All runs of one op in a step."""

    name: str
    op: str
    times: int
    bytes: int
    operations: int
    bound: str
    floor: float  # seconds
    predicted: float  # seconds
    measured: float | None = None  # seconds; None where it was not


def on_gpu(
    parts: Sequence[Work], rates: Rates, fits: Sequence[Fit], measured: Mapping[str, float] | None = None
) -> list[Explained]:
    """Predicted: whole tiles are computed though a part of them stays empty, and processors that have no program in
    the last turn leave their share of both rates unused. `measured`: seconds of one run, by name."""
    by_name = {fit.name: fit for fit in fits}
    return [_on_gpu(work, rates, by_name.get(work.name), (measured or {}).get(work.name)) for work in parts]


def _on_gpu(work: Work, rates: Rates, fit: Fit | None, measured: float | None) -> Explained:
    computed, busy = float(work.cost.operations), 1.0
    if fit is not None:
        tile = for_rows(TILES[work.op], work.rows)
        whole = -(-work.rows // tile.rows) * tile.rows
        computed, busy = computed * whole / work.rows / fit.used, fit.busy
    memory, arithmetic = work.cost.bytes / rates.bytes_a_second, computed / rates.operations_a_second
    return _explained(work, rates, max(memory, arithmetic) / busy, measured)


def on_cpu(parts: Sequence[Work], rates: Rates, forward: float) -> list[Explained]:
    """Predicted: the measured forward, in seconds, dealt out by the floors. One native call cannot be looked into."""
    whole = sum(work.times * work.cost.floor(rates) for work in parts)
    return [_explained(work, rates, work.cost.floor(rates) * forward / whole, None) for work in parts]


def _explained(work: Work, rates: Rates, predicted: float, measured: float | None) -> Explained:
    n, cost = work.times, work.cost
    measured = None if measured is None else n * measured
    return Explained(
        work.name, work.op, n, n * cost.bytes, n * cost.operations, cost.bound(rates), n * cost.floor(rates),
        n * predicted, measured,
    )  # fmt: skip
