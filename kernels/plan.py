"""What a step costs at best, and how many span rows are worth a forward: the roofline of one model on one machine.

A step reads every weight once and multiplies each with every row. It takes at least as long as the slower of the two:
`floor = max(bytes / memory rate, operations / arithmetic rate)` (Williams et al. 2009).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Formats:
    """What a forward reads."""

    bits: int  # of a weight
    group: int  # weights that share a scale, 0: they have none
    scale: int  # bytes
    cache: int  # bytes of a number in the context's cache

    def weight_bytes(self, count: int) -> int:
        """Of `count` weights with their scales."""
        return count * self.bits // 8 + (count // self.group * self.scale if self.group else 0)


INT8 = Formats(8, 128, 2, 4)  # the CPU engine's
BF16 = Formats(16, 0, 0, 2)


@dataclass(frozen=True, slots=True)
class Sizes:
    """The numbers of a model that its costs follow from."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    ffn: int
    vocabulary: int
    kept: int = 0  # outputs of the span rows' head, 0: there is no adapter
    rank: int = 0

    @property
    def layer_weights(self) -> int:
        """Numbers in all linear maps of all layers."""
        attention = self.width * (2 * self.heads + 2 * self.kv_heads) * self.head_width
        return self.layers * (attention + 3 * self.width * self.ffn)

    @property
    def adapter_weights(self) -> int:
        qkv = (self.heads + 2 * self.kv_heads) * self.head_width
        ends = (self.width + qkv) + (self.heads * self.head_width + self.width) + 3 * self.ffn + 2 * self.width
        return self.layers * self.rank * ends


@dataclass(frozen=True, slots=True)
class Rates:
    """What the machine can do."""

    bytes_a_second: float
    operations_a_second: float  # multiplications and additions of bytes, or of bf16 where the weights are


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes read and operations done by one forward."""

    bytes: int
    operations: int

    def floor(self, rates: Rates) -> float:
        """Seconds that it takes at least."""
        return max(self.bytes / rates.bytes_a_second, self.operations / rates.operations_a_second)

    def bound(self, rates: Rates) -> str:
        """What holds it up: "memory" or "arithmetic"."""
        by_memory = self.bytes / rates.bytes_a_second >= self.operations / rates.operations_a_second
        return "memory" if by_memory else "arithmetic"


def forward_cost(
    sizes: Sizes,
    rows: int,
    span_rows: int,
    context: int,
    guesses: int = 1,
    batch: int = 1,
    formats: Formats = INT8,
) -> Cost:
    """A forward of `rows` context rows and `span_rows` behind `context` cached places, `guesses` rows over the whole
    vocabulary; `batch` such fills at once read the weights once, and each its own cache."""
    every, head = rows + span_rows, sizes.vocabulary * sizes.width
    kept, low = (sizes.kept * sizes.width, sizes.adapter_weights) if span_rows else (0, 0)
    weights = sizes.layer_weights + head + kept + low
    places = context + every
    cache = sizes.layers * 2 * sizes.kv_heads * sizes.head_width * places * formats.cache
    seen = every * context + rows * (rows + 1) // 2 + span_rows * every
    attention = sizes.layers * 2 * sizes.heads * sizes.head_width * seen
    products = sizes.layer_weights * every + head * guesses + (kept + low) * span_rows
    return Cost(formats.weight_bytes(weights) + batch * cache, 2 * batch * (products + attention))


@dataclass(frozen=True, slots=True)
class SpanRows:
    """The span rows of a forward: a window of so many places behind each of so many outcomes of the drafts' check.

    No outcomes: none, where they cost more than they bring. No places: there is no adapter.
    """

    places: int
    outcomes: int = 1


NO_SPAN = SpanRows(0, 0)  # of a model without an adapter


def pace(agrees: Sequence[float], span: SpanRows) -> tuple[float, float]:
    """(share of the forwards that have drafts to check, tokens a forward) of `verified` in the long run.

    `agrees[d]`: share of the drafts at distance d + 1 that the base confirms where all before were. A forward has
    drafts if the one before it had a window behind what its check kept; one without drafts always has. The windows
    stand behind the likeliest outcomes.
    """
    shares, run, drafts = [], 1.0, 0.0
    for share in agrees[: span.places]:
        shares.append(run * (1 - share))
        run *= share
        drafts += run
    ready = sum(sorted((*shares, run), reverse=True)[: span.outcomes])
    checked = 1 / (2 - min(ready, 1.0)) if span.outcomes else 0.0
    return checked, 1 + checked * drafts


def choose_span(seconds: Mapping[SpanRows, tuple[float, float]], agrees: Sequence[float]) -> SpanRows:
    """The span rows with most tokens a second; `seconds` of a forward without drafts, and of one that checks as many
    as a window has places."""
    return max(seconds, key=lambda span: tokens_a_second(agrees, span, *seconds[span]))


def tokens_a_second(agrees: Sequence[float], span: SpanRows, plain: float, checking: float) -> float:
    """`plain` and `checking` as in `choose_span`."""
    checked, tokens = pace(agrees, span)
    return tokens / (checked * checking + (1 - checked) * plain)
