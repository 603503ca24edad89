"""An op of a step with random arguments of its shape: through `kernels.dispatch`, in plain torch, and in fp32."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from diffcode.kernels import dispatch, reference
from diffcode.kernels.plan import Sizes
from diffcode.kernels.reference import Cache, HeadRows, Map, Norm
from diffcode.kernels.work import Work

EPS = 1e-6
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}
Run = Callable[[], Tensor]


@dataclass(frozen=True, slots=True)
class Call:
    """Three ways to the same numbers; `torch` also in the type of `ours`."""

    ours: Run
    torch: Run
    gold: Run
    parts: Mapping[str, Any] = field(default_factory=dict)  # what other libraries are given
    tolerance: float = 0.0  # of the rows' type

    def off(self, other: Run) -> tuple[float, float]:
        """How far a way's numbers are from those in fp32 at most, and by how much that is too far: elementwise no
        more than torch is off in the same type and a tolerance (DESIGN section 5)."""
        out, plain, gold = other(), self.torch(), self.gold()
        away = (out.double() - gold.double()).abs()
        over = away - (plain.double() - gold.double()).abs() - self.tolerance
        return float(away.nan_to_num(math.inf).max()), float(over.nan_to_num(math.inf).max())


class Draw:
    """Random tensors of one type on one device."""

    def __init__(self, dtype: torch.dtype, device: torch.device, seed: int = 0):
        self.dtype, self.device = dtype, device
        self._random = torch.Generator(device).manual_seed(seed)

    def __call__(self, *shape: int, spread: float = 1.0) -> Tensor:
        plain = torch.randn(*shape, generator=self._random, device=self.device, dtype=torch.float32)
        return (spread * plain).to(self.dtype)

    def norm(self, width: int) -> Norm:
        return Norm(1 + self(width, spread=0.2), EPS)

    def map(self, outputs: int, inputs: int, rank: int, biased: bool = False) -> Map:
        """Results stay near 1, so that tolerances mean the same everywhere."""
        weight = self(outputs, inputs, spread=0.3 * inputs**-0.5)
        bias = self(outputs, spread=0.1) if biased else None
        if not rank:
            return Map(weight, None, bias)
        return Map(weight, None, bias, self(rank, inputs, spread=inputs**-0.5), self(outputs, rank, spread=0.1))


def call(work: Work, sizes: Sizes, context: int, draw: Draw) -> Call:
    """Of a canvas that has read `context` places."""
    return replace(CALLS[work.op](work, sizes, context, draw), tolerance=TOLERANCE[draw.dtype])


def _wide(t: Tensor | None) -> Tensor | None:
    return None if t is None else t.float()


def _wide_map(m: Map) -> Map:
    return Map(m.weight_ED.float(), None, _wide(m.bias_E), _wide(m.down_rD), _wide(m.up_Er))


def _wide_norm(n: Norm) -> Norm:
    return replace(n, weight_D=n.weight_D.float())


def _lora_linear(work: Work, sizes: Sizes, context: int, draw: Draw) -> Call:
    linear = draw.map(work.outputs, work.inputs, sizes.rank if work.span_rows else 0)
    x, residual, spans = draw(work.rows, work.inputs), draw(work.rows, work.outputs), work.span_rows
    x32, linear32, residual32 = x.float(), _wide_map(linear), residual.float()
    return Call(
        lambda: dispatch.lora_linear(x, linear, residual_RE=residual, span_rows=spans),
        lambda: reference.lora_linear(x, linear, residual_RE=residual, span_rows=spans),
        lambda: reference.lora_linear(x32, linear32, residual_RE=residual32, span_rows=spans),
    )


def _gated_mlp(work: Work, sizes: Sizes, context: int, draw: Draw) -> Call:
    linear, norm = draw.map(work.outputs, work.inputs, sizes.rank if work.span_rows else 0), draw.norm(work.inputs)
    x, spans = draw(work.rows, work.inputs), work.span_rows
    x32, linear32, norm32 = x.float(), _wide_map(linear), _wide_norm(norm)
    return Call(
        lambda: dispatch.gated_mlp(x, linear, norm=norm, span_rows=spans),
        lambda: reference.gated_mlp(x, linear, norm=norm, span_rows=spans),
        lambda: reference.gated_mlp(x32, linear32, norm=norm32, span_rows=spans),
        {"x": x, "map": linear, "norm": norm, "span_rows": spans},
    )


def _qkv_rope(work: Work, sizes: Sizes, context: int, draw: Draw) -> Call:
    """The result is queries, keys and values in one."""
    rank, spans = sizes.rank if work.span_rows else 0, work.span_rows
    qkv, norm, x = (
        draw.map(work.outputs, work.inputs, rank, biased=True),
        draw.norm(work.inputs),
        draw(work.rows, work.inputs),
    )
    angle = 9 * draw(work.rows, sizes.head_width // 2).float().repeat(1, 2)
    slot = context + torch.arange(work.rows, device=draw.device)
    shape = (sizes.kv_heads, context + work.rows, sizes.head_width)
    caches = [Cache(*torch.zeros(2, *shape, dtype=dtype, device=draw.device)) for dtype in (draw.dtype, torch.float32)]
    turns = [(angle.cos().to(t), angle.sin().to(t)) for t in (draw.dtype, torch.float32)]

    def written(q: Tensor, cache: Cache) -> Tensor:
        return torch.cat([q.flatten(), cache.k_GPK[:, context:].flatten(), cache.v_GPK[:, context:].flatten()])

    x32, qkv32, norm32 = x.float(), _wide_map(qkv), _wide_norm(norm)

    def ours() -> Tensor:
        q = dispatch.qkv_rope(x, qkv, *turns[0], slot, caches[0], norm=norm, span_rows=spans)
        return written(q, caches[0])

    def plain() -> Tensor:
        q = reference.qkv_rope(x, qkv, *turns[0], slot, caches[0], norm=norm, span_rows=spans)
        return written(q, caches[0])

    def gold() -> Tensor:
        q = reference.qkv_rope(x32, qkv32, *turns[1], slot, caches[1], norm=norm32, span_rows=spans)
        return written(q, caches[1])

    return Call(ours, plain, gold)


def _span_attention(work: Work, sizes: Sizes, context: int, draw: Draw) -> Call:
    q = draw(work.rows, sizes.heads, sizes.head_width)
    places = context + work.rows
    cache = Cache(*(draw(sizes.kv_heads, places, sizes.head_width) for _ in range(2)))
    chain = work.rows - work.span_rows
    sights = [(i + 1, 0, 0) for i in range(chain)] + [(chain, chain, work.rows)] * work.span_rows
    sight = reference.span_sights(sights, context).to(draw.device)
    seen = reference.seen_places(sight, places)
    q32, k32, v32 = q.float(), cache.k_GPK.float(), cache.v_GPK.float()
    return Call(
        lambda: dispatch.span_attention(q, cache, sight, places),
        lambda: reference.span_attention(q, cache.k_GPK, cache.v_GPK, seen),
        lambda: reference.span_attention(q32, k32, v32, seen),
        {"q": q, "k": cache.k_GPK, "v": cache.v_GPK, "seen": seen},
    )


def _masked_head(work: Work, sizes: Sizes, context: int, draw: Draw) -> Call:
    """The result is probability, margin and entropy: tokens of nearly equal logits may differ in narrow types."""
    head, norm, x = (
        Map(draw(work.outputs, work.inputs, spread=0.1)),
        draw.norm(work.inputs),
        draw(work.rows, work.inputs),
    )
    x32, head32, norm32 = x.float(), head.weight_ED.float(), _wide_norm(norm)

    def numbers(found: HeadRows) -> Tensor:
        return torch.stack([found.probability_R, found.margin_R, found.entropy_R])

    def plain(x: Tensor, norm: Norm, head: Tensor) -> Tensor:
        return numbers(reference.masked_head(reference.rms_norm(x, norm.weight_D, norm.eps), head))

    return Call(
        lambda: numbers(dispatch.masked_head(x, head, norm=norm)),
        lambda: plain(x, norm, head.weight_ED),
        lambda: plain(x32, norm32, head32),
    )


CALLS = {
    "lora_linear": _lora_linear,
    "gated_mlp": _gated_mlp,
    "qkv_rope": _qkv_rope,
    "span_attention": _span_attention,
    "masked_head": _masked_head,
}
