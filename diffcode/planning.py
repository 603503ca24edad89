"""The plan of a model on this machine: measured rates, what forwards take, and how many span rows are worth one.

Made by `diffcode plan`, kept in the cache, and looked at when a model is loaded.
"""

import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from diffcode.adapter import SpanAdapter
from diffcode.config import DEFAULT_SPAN_ROWS
from diffcode.engine import Model
from diffcode.hub import cache_home
from diffcode.kernels.cpu.engine import default_threads, rates
from diffcode.kernels.plan import Cost, Formats, Rates, Sizes, choose_window, forward_cost
from diffcode.kernels.processor import processor
from diffcode.loading import ModelShape

CONTEXT = 256  # tokens behind which forwards are timed
REPEATS = 9
# Share of drafts that the base confirms at each distance where the adapter does not say: the starter's, roughly.
AGREES = (0.45, 0.4, 0.35, 0.3)


@dataclass(frozen=True, slots=True)
class Measured:
    """One kind of forward."""

    name: str
    rows: int
    span_rows: int
    context: int
    bytes: int
    operations: int
    floor: float  # seconds
    seconds: float  # median
    bound: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What was measured, and what follows."""

    isa: str
    threads: int
    rates: Rates
    forwards: tuple[Measured, ...]
    agrees: tuple[float, ...]
    window: int


def make_plan(model: Model, isa: str, report: Callable[[str], None] = lambda _: None) -> Plan:
    """Measure this machine with a model that runs on the CPU engine, some five seconds."""
    assert model.engine is not None
    assert model.packed is not None
    report("the machine's rates")
    machine = Rates(*rates(model.packed.head.weights, model.engine.threads))
    sizes, agrees = sizes_of(model), agreement(model)
    forwards = []
    for name, rows, span_rows, context in kinds(model):
        report(name)
        cost = forward_cost(sizes, rows, span_rows, context, formats=formats_of(model))
        forwards.append(_measure(model, name, rows, span_rows, context, cost, machine))
    seconds = {f.span_rows: f.seconds for f in forwards if f.rows == 1}
    window = choose_window({w: s for w, s in seconds.items() if w}, agrees) if len(seconds) > 1 else 0
    return Plan(isa, model.engine.threads, machine, tuple(forwards), tuple(agrees), window)


def kinds(model: Model) -> list[tuple[str, int, int, int]]:
    """(name, context rows, span rows, cached context) of the forwards that are timed."""
    found = [("context of 256 tokens", 256, 0, 0), ("one token", 1, 0, CONTEXT)]
    if model.adapter is not None:
        found += [(f"one token and {w} span rows", 1, w, CONTEXT) for w in range(1, len(agreement(model)) + 1)]
    return found


def sizes_of(model: Model) -> Sizes:
    """The model's numbers as the roofline wants them."""
    sizes = shape_sizes(model.backbone.shape)
    return sizes if model.adapter is None else adapted(sizes, model.adapter)


def formats_of(model: Model) -> Formats:
    """What the CPU engine reads, the head's form standing for all."""
    assert model.packed is not None
    head = model.packed.head
    return Formats(head.bits, head.group, head.scales.element_size(), 4)


def shape_sizes(s: ModelShape) -> Sizes:
    """Those of a model without an adapter."""
    return Sizes(s.layers, s.width, s.heads, s.kv_heads, s.head_width, s.ffn, s.vocabulary)


def adapted(sizes: Sizes, adapter: SpanAdapter) -> Sizes:
    """`sizes` with an adapter's."""
    kept = sizes.vocabulary if adapter.kept_N is None else len(adapter.kept_N)
    return replace(sizes, kept=kept, rank=len(adapter.layers[0]["out"].down_rD))


def agreement(model: Model) -> Sequence[float]:
    """How often the base confirms the adapter's drafts, by distance; its length is the widest window worth a try."""
    known = model.adapter.agrees if model.adapter else ()
    return known or AGREES[:DEFAULT_SPAN_ROWS]


def _measure(model: Model, name: str, rows: int, span_rows: int, context: int, cost: Cost, machine: Rates) -> Measured:
    ids = [7 + i * 31 % 5000 for i in range(context + rows)]
    session = model.session()
    if context:
        session.step(ids[:context], (), (), (), 0, [None])
        session.keep(context)
    window, anchors = [None] * span_rows, (0,) if span_rows else ()
    times = []
    for _ in range(REPEATS if rows == 1 else 3):
        session = session if context else model.session()
        began = time.perf_counter()
        session.step(ids[context:], (), window, anchors, 0, [None])
        times.append(time.perf_counter() - began)
    return Measured(
        name, rows, span_rows, context, cost.bytes, cost.operations, cost.floor(machine),
        statistics.median(times), cost.bound(machine),
    )  # fmt: skip


# ---- kept


def plan_file(model: Model) -> Path:
    """Where a model's plan for this machine lies."""
    adapter = model.adapter
    sizes, formats = asdict(sizes_of(model)), asdict(formats_of(model)) if model.packed else None
    key = (sizes, formats, default_threads(), processor(), adapter.agrees if adapter else None)
    return cache_home() / "plans" / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.json"


def save_plan(plan: Plan, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=file.parent, prefix=file.name)
    with os.fdopen(handle, "w", encoding="utf8") as out:
        json.dump(asdict(plan), out, indent=1)
    os.replace(part, file)


def span_rows(model: Model) -> int:
    """The width of a model's window: what an earlier plan chose for it here, or the default."""
    if model.adapter is None:
        return 0
    return (planned_window(model) if model.engine else None) or min(DEFAULT_SPAN_ROWS, len(agreement(model)))


def planned_window(model: Model) -> int | None:
    """The window that an earlier plan chose for this model here."""
    try:
        window = json.loads(plan_file(model).read_text(encoding="utf8"))["window"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return window if isinstance(window, int) and 1 <= window <= len(agreement(model)) else None
