"""GPUs that need not be here: what their makers say they can do, and what follows for a model's forwards.

Every rate is published, none was measured. A forecast is the roofline's floor: a real kernel reaches less, and the time
to launch kernels is not in it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from diffcode.kernels.plan import BF16, Cost, Rates, Sizes, SpanRows, forward_cost, tokens_a_second
from diffcode.kernels.tiles import TILES, for_rows

# The models' own config.json, as published.
MODELS = {
    "qwen2.5-coder-0.5b": Sizes(24, 896, 14, 2, 64, 4864, 151_936),
    "qwen2.5-coder-1.5b": Sizes(28, 1536, 12, 2, 128, 8960, 151_936),
    "qwen2.5-coder-7b": Sizes(28, 3584, 28, 4, 128, 18_944, 152_064),
}
BATCHES = (1, 8, 32, 128, 512)
MOST = 65_536  # fills or rows: what is bound by memory up to here is called so always


@dataclass(frozen=True, slots=True)
class Target:
    """One GPU."""

    title: str
    rates: Rates  # of memory; of dense bf16 products
    processors: int  # streaming multiprocessors, or compute units
    source: str


TARGETS = {
    "a100": Target(
        "NVIDIA A100 SXM 80 GB",
        Rates(2.039e12, 312e12),
        108,
        "NVIDIA A100 datasheet (nvidia-1758950-r4); Ampere architecture whitepaper",
    ),
    "h100": Target(
        "NVIDIA H100 SXM5 80 GB",
        Rates(3.35e12, 989.4e12),
        132,
        "NVIDIA H100 datasheet; Hopper architecture whitepaper",
    ),
    "b200": Target(
        "NVIDIA B200, HGX at 1000 W",
        Rates(8e12, 2250e12),
        148,
        "NVIDIA Blackwell architecture brief and HGX B200 datasheet (4,500 with sparsity)",
    ),
    "mi300x": Target(
        "AMD Instinct MI300X",
        Rates(5.3e12, 1307.4e12),
        304,
        "AMD Instinct MI300X data sheet",
    ),
}


@dataclass(frozen=True, slots=True)
class Forecast:
    """A forward of `batch` fills, each of one token, as many drafts as `span_rows`, and these, at the published rates.

    What it checks must be computed too: that is nothing while memory is the limit, and half of the rows after that.
    """

    batch: int
    span_rows: int
    rows: int  # in all
    bytes: int
    operations: int
    bound: str
    floor: float  # seconds
    tokens_a_second: float  # at best
    against_leftmost: float  # the same batch, one token a forward


@dataclass(frozen=True, slots=True)
class Fit:
    """How one map of the model fits the tiles of its kernel and the processors of the GPU."""

    name: str
    outputs: int
    inputs: int
    tile: int  # outputs of one program
    programs: int
    used: float  # share of the tiles' outputs, times that of their inputs, that exist
    busy: float  # share of the processors' turns that have a program, if each takes one at a time


@dataclass(frozen=True, slots=True)
class TargetPlan:
    """What is to be expected of a model on a GPU."""

    target: Target
    context: int
    agrees: tuple[float, ...]
    forecasts: tuple[Forecast, ...]
    span_limit: int | None  # one fill is bound by memory up to this many span rows; None: always
    batch_limit: int | None  # forwards of the widest window are bound by memory up to this many fills
    fits: tuple[Fit, ...]


def plan_for(target: Target, sizes: Sizes, agrees: Sequence[float], context: int, batches: Sequence[int]) -> TargetPlan:
    """`agrees`: share of drafts that the base confirms, by distance; its length is the widest window."""
    widest = len(agrees)
    windows = sorted({0, 1, 2, widest} & set(range(widest + 1)))
    found = tuple(forecast(target, sizes, agrees, context, b, w) for b in batches for w in windows)
    span_limit = _last_in_memory(lambda rows: _bound(target, sizes, context, 1, rows))
    batch_limit = _last_in_memory(lambda batch: _bound(target, sizes, context, batch, widest))
    every = fits(target, sizes, 1 + 2 * widest)
    return TargetPlan(target, context, tuple(agrees), found, span_limit, batch_limit, every)


def forecast(target: Target, sizes: Sizes, agrees: Sequence[float], context: int, batch: int, window: int) -> Forecast:
    """One line of the plan."""
    cost, plain, alone = (_cost(sizes, context, batch, *of) for of in ((window, window), (0, window), (0, 0)))
    floor = cost.floor(target.rates)
    tokens = tokens_a_second(agrees, SpanRows(window), plain.floor(target.rates), floor)
    return Forecast(
        batch, window, batch * (1 + 2 * window), cost.bytes, cost.operations, cost.bound(target.rates), floor,
        batch * tokens, tokens * alone.floor(target.rates),
    )  # fmt: skip


def _cost(sizes: Sizes, context: int, batch: int, drafts: int, span_rows: int) -> Cost:
    return forward_cost(sizes, 1 + drafts, span_rows, context, guesses=1 + drafts, batch=batch, formats=BF16)


def fits(target: Target, sizes: Sizes, rows: int) -> tuple[Fit, ...]:
    """Every map of the model at forwards of so many rows."""
    s = sizes
    pairs = (s.heads + 2 * s.kv_heads) * s.head_width // 2
    maps = [
        ("queries, keys, values", "qkv_rope", pairs, s.width, 2),
        ("attention's output", "lora_linear", s.width, s.heads * s.head_width, 1),
        ("gate and up", "gated_mlp", s.ffn, s.width, 2),
        ("down", "lora_linear", s.width, s.ffn, 1),
        ("head", "masked_head", s.vocabulary, s.width, 1),
    ]
    if s.kept:
        maps.append(("span rows' head", "masked_head", s.kept, s.width, 1))
    return tuple(_fit(target, rows, *given) for given in maps)


def _fit(target: Target, rows: int, name: str, op: str, lanes: int, inputs: int, outputs_a_lane: int) -> Fit:
    tile = for_rows(TILES[op], rows)
    blocks = -(-lanes // tile.outputs)
    programs = blocks * -(-rows // tile.rows)
    turns = -(-programs // target.processors) * target.processors
    whole = blocks * tile.outputs * -(-inputs // tile.inputs) * tile.inputs
    used, each = lanes * inputs / whole, tile.outputs * outputs_a_lane
    return Fit(name, lanes * outputs_a_lane, inputs, each, programs, used, programs / turns)


def _bound(target: Target, sizes: Sizes, context: int, batch: int, span_rows: int) -> bool:
    return _cost(sizes, context, batch, span_rows, span_rows).bound(target.rates) == "memory"


def _last_in_memory(is_bound: Callable[[int], bool]) -> int | None:
    """The largest number up to MOST that is bound by memory, 0 if none is, None if all are."""
    if is_bound(MOST):
        return None
    low, high = 0, MOST  # more rows never turn it back: operations grow as fast as they or faster, bytes more slowly
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_bound(middle) else (low, middle)
    return low
