"""A step's ops one by one: what each reads and computes. Together they are `plan.forward_cost`."""

from dataclasses import dataclass

from diffcode.kernels.plan import BF16, Cost, Formats, Sizes


@dataclass(frozen=True, slots=True)
class Work:
    """One op of a step."""

    name: str
    op: str  # of `kernels.dispatch`
    times: int  # a step
    outputs: int  # of attention: query heads that share keys and values
    inputs: int  # of attention: width of a head
    rows: int
    span_rows: int
    cost: Cost  # of one


def works(
    sizes: Sizes, rows: int, span_rows: int, context: int, guesses: int = 1, formats: Formats = BF16
) -> list[Work]:
    """Of the forward that `plan.forward_cost` is asked about, of one canvas."""
    s, every = sizes, rows + span_rows
    mixed, qkv = s.heads * s.head_width, (s.heads + 2 * s.kv_heads) * s.head_width

    def linear(name: str, op: str, outputs: int, inputs: int) -> Work:
        low = s.rank * (outputs + inputs) if span_rows else 0
        cost = _cost(outputs * inputs + low, outputs * inputs * every + low * span_rows, formats)
        return Work(name, op, s.layers, outputs, inputs, every, span_rows, cost)

    def head(name: str, outputs: int, asked: int) -> Work:
        cost = _cost(outputs * s.width, outputs * s.width * asked, formats)
        return Work(name, "masked_head", 1, outputs, s.width, asked, 0, cost)

    seen = every * context + rows * (rows + 1) // 2 + span_rows * every
    cached = 2 * s.kv_heads * s.head_width * (context + every) * formats.cache
    attention = Cost(cached, 2 * 2 * mixed * seen)
    found = [
        linear("queries, keys, values", "qkv_rope", qkv, s.width),
        Work("attention", "span_attention", s.layers, s.heads // s.kv_heads, s.head_width, every, span_rows, attention),
        linear("attention's output", "lora_linear", s.width, mixed),
        linear("gate and up", "gated_mlp", 2 * s.ffn, s.width),
        linear("down", "lora_linear", s.width, s.ffn),
        head("head", s.vocabulary, guesses),
    ]
    return [*found, head("span rows' head", s.kept, span_rows)] if s.kept and span_rows else found


def _cost(weights: int, products: int, formats: Formats) -> Cost:
    return Cost(formats.weight_bytes(weights), 2 * products)
