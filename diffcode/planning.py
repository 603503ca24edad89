"""The plan of a model on this machine: measured rates, what forwards take, and which span rows are worth one.

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
from diffcode.kernels.plan import (
    NO_SPAN,
    Formats,
    Rates,
    Sizes,
    SpanRows,
    choose_span,
    forward_cost,
    tokens_a_second,
)
from diffcode.kernels.processor import processor
from diffcode.loading import ModelShape

CONTEXT = 256  # tokens behind which forwards are timed
REPEATS = 9
MOST_OUTCOMES = 3  # of a check that windows are tried behind
# Share of drafts that the base confirms at each distance where the adapter does not say: the starter's, roughly.
AGREES = (0.45, 0.4, 0.35, 0.3)


@dataclass(frozen=True, slots=True)
class Kind:
    """A forward of so many tokens that join the context, of drafts behind them, and of span rows."""

    tokens: int
    context: int = CONTEXT  # cached tokens
    drafts: int = 0
    span: SpanRows = NO_SPAN

    @property
    def name(self) -> str:
        if not self.context:
            return f"context of {self.tokens} tokens"
        parts = ["one token", *([f"{self.drafts} drafts"] if self.drafts else [])]
        if self.span.places:
            windows = f"{self.span.outcomes} times " if self.span.outcomes > 1 else ""
            parts.append(f"{windows}{self.span.places} span rows")
        return f"{', '.join(parts[:-1])} and {parts[-1]}" if parts[1:] else parts[0]


@dataclass(frozen=True, slots=True)
class Measured:
    """One kind of forward."""

    name: str
    kind: Kind
    bytes: int
    operations: int
    floor: float  # seconds
    seconds: float  # median
    bound: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Span rows that may be used."""

    span: SpanRows
    plain: float  # seconds of a forward without drafts
    checking: float  # ... with as many as a window has places
    tokens_a_second: float  # expected


@dataclass(frozen=True, slots=True)
class Plan:
    """What was measured, and what follows."""

    isa: str
    threads: int
    rates: Rates
    forwards: tuple[Measured, ...]
    agrees: tuple[float, ...]
    choices: tuple[Choice, ...]
    span: SpanRows

    def seconds(self, kind: Kind) -> float:
        """Of a forward that was measured."""
        return next(f.seconds for f in self.forwards if f.kind == kind)


def make_plan(model: Model, isa: str, report: Callable[[str], None] = lambda _: None) -> Plan:
    """Measure this machine with a model that runs on the CPU engine, some ten seconds."""
    assert model.engine is not None
    assert model.packed is not None
    report("the machine's rates")
    machine = Rates(*rates(model.packed.head, model.engine.threads))
    agrees = tuple(agreement(model)) if model.adapter else ()
    forwards = []
    for kind in kinds(len(agrees)):
        report(kind.name)
        forwards.append(_measure(model, kind, machine))
    seconds = {f.kind: f.seconds for f in forwards}
    pairs = {span: (seconds[plain_kind(span)], seconds[checking_kind(span)]) for span in spans(len(agrees))}
    choices = tuple(Choice(span, *pair, tokens_a_second(agrees, span, *pair)) for span, pair in pairs.items())
    return Plan(isa, model.engine.threads, machine, tuple(forwards), agrees, choices, choose_span(pairs, agrees))


def spans(widest: int) -> list[SpanRows]:
    """What may be chosen: none first, for where span rows cost more than they bring."""
    some = [SpanRows(w, o) for w in range(1, widest + 1) for o in range(1, min(w + 1, MOST_OUTCOMES) + 1)]
    return [SpanRows(widest, 0), *some]


def plain_kind(span: SpanRows) -> Kind:
    """A forward without drafts: its check has one outcome."""
    return Kind(1, span=SpanRows(span.places)) if span.outcomes else Kind(1)


def checking_kind(span: SpanRows) -> Kind:
    """A forward with as many drafts as a window has places."""
    return Kind(1, drafts=span.places, span=span) if span.outcomes else Kind(1)


def kinds(widest: int) -> list[Kind]:
    """The forwards that are timed."""
    pairs = [(plain_kind(span), checking_kind(span)) for span in spans(widest)]
    return [Kind(CONTEXT, 0), *dict.fromkeys([plain for plain, _ in pairs] + [checking for _, checking in pairs])]


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


def _measure(model: Model, kind: Kind, machine: Rates) -> Measured:
    context, chain, span = kind.context, kind.tokens + kind.drafts, kind.span
    known = min(5000, model.backbone.shape.vocabulary - 7)
    ids = [7 + i * 31 % known for i in range(context + chain)]
    session = model.session()
    if context:
        session.step(ids[:context], (), (), (), 0, [None])
        session.keep(context)
    fresh, drafts = ids[context : context + kind.tokens], ids[context + kind.tokens :]
    window, anchors = [None] * span.places, range(span.outcomes if span.places else 0)
    times = []
    for _ in range(REPEATS if context else 3):
        session = session if context else model.session()
        began = time.perf_counter()
        session.step(fresh, drafts, window, anchors, 0, [None] * (kind.drafts + 1))
        times.append(time.perf_counter() - began)
    rows = span.places * len(anchors)
    cost = forward_cost(
        sizes_of(model), chain, rows, context, guesses=kind.drafts + 1, formats=formats_of(model)
    )  # fmt: skip
    seconds, floor = statistics.median(times), cost.floor(machine)
    return Measured(kind.name, kind, cost.bytes, cost.operations, floor, seconds, cost.bound(machine))


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


def span_rows(model: Model) -> SpanRows:
    """A model's span rows: what an earlier plan chose for it here, or the default."""
    if model.adapter is None:
        return NO_SPAN
    planned = planned_span(model) if model.engine else None
    return SpanRows(min(DEFAULT_SPAN_ROWS, len(agreement(model)))) if planned is None else planned


def planned_span(model: Model) -> SpanRows | None:
    """The span rows that an earlier plan chose for this model here."""
    try:
        span = SpanRows(**json.loads(plan_file(model).read_text(encoding="utf8"))["span"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return span if span in spans(len(agreement(model))) else None
