"""One whole denoising step out of the ops of `kernels.dispatch`: embedding, all layers, both heads.

What a step is told of its rows lies in one flat table of int64: the host sends it in one copy, a captured graph finds
it where it was, and `kernels.ahead` writes it on the device. Rows are C of the chain (context tokens, then drafts, at
the chain's END: what fills it up stands in front), then A windows of S span rows each; R = C + A S. Other shapes as in
`kernels.reference`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcode.kernels import dispatch, reference
from diffcode.kernels.arena import JUNK
from diffcode.kernels.reference import Cache, HeadRows, Map, Norm
from diffcode.kernels.reference_commit import MASKED

Favour = tuple[int, float] | None
COLUMNS = 7  # of the table: token, position, slot, and four of sight


@dataclass(frozen=True, slots=True)
class LayerMaps:
    """One decoder layer."""

    input_norm: Norm
    qkv: Map
    out: Map
    post_norm: Norm
    gate_up: Map
    down: Map


@dataclass(frozen=True, slots=True)
class SpanWeights:
    """What span rows have beside the low-rank maps in the layers."""

    mask_D: Tensor
    head: Map
    ids_N: Tensor | None  # int32: the tokens behind the head's outputs
    successor: tuple[Tensor, Tensor] | None  # `reference.successor`'s maps


@dataclass(frozen=True, slots=True)
class StepWeights:
    """A whole model. Its adapter is None where it has none: then there are no span rows."""

    layers: Sequence[LayerMaps]
    norm: Norm
    embedding_VD: Tensor
    frequencies_K: Tensor  # K / 2 of them
    head: Map
    kv_heads: int
    head_width: int
    span: SpanWeights | None


@dataclass(frozen=True, slots=True)
class Layout:
    """The numbers of a step that are fixed when it is captured."""

    chain: int
    windows: int
    window: int
    headed: int  # rows at the chain's end that go through the head
    longest: int  # places that a row may see; it only decides how attention is cut
    base_favour: Favour = None
    span_favour: Favour = None

    @property
    def span_rows(self) -> int:
        return self.windows * self.window

    @property
    def rows(self) -> int:
        return self.chain + self.span_rows

    @property
    def numbers(self) -> int:
        """Of the table."""
        return COLUMNS * self.rows + self.windows


@dataclass(frozen=True, slots=True)
class Table:
    """A step's rows."""

    token_R: Tensor  # int64, MASKED for a masked place
    position_R: Tensor  # int64
    slot_R: Tensor  # int64: where keys and values go
    sight_R4: Tensor  # int32, as in `reference.seen_places`
    first_A: Tensor  # int64: which headed row guesses the place that a window begins with

    @classmethod
    def of(cls, flat: Tensor, layout: Layout) -> "Table":
        rows = layout.rows
        token_R, position_R, slot_R, sight, first_A = flat[: layout.numbers].split(
            [rows, rows, rows, 4 * rows, layout.windows]
        )
        return cls(token_R, position_R, slot_R, sight.view(rows, 4).int(), first_A)

    def flat(self) -> Tensor:
        return torch.cat([self.token_R, self.position_R, self.slot_R, self.sight_R4.flatten().long(), self.first_A])


@dataclass(frozen=True, slots=True)
class Said:
    """What a step says: of the headed chain rows, and of the span rows [A S]."""

    base: HeadRows
    span: HeadRows

    def numbers(self) -> Tensor:
        """Token, probability, margin, entropy of all rows as fp64 [rows, 4]: one copy brings them to the host."""
        both = (self.base, self.span)
        names = ("token_R", "probability_R", "margin_R", "entropy_R")
        return torch.stack([torch.cat([getattr(h, name).double() for h in both]) for name in names], 1)


def forward(
    weights: StepWeights, caches: Sequence[Cache], table: Table, layout: Layout, barred_RV: Tensor | None = None
) -> Said:
    """The step. Keys and values of all rows are written to the caches (a layer each) at the rows' slots."""
    span_rows, x_RD = layout.span_rows, _embedded(weights, table.token_R)
    angle_RK = torch.outer(table.position_R.float(), weights.frequencies_K).repeat(1, 2)
    cos_RK, sin_RK = angle_RK.cos().to(x_RD.dtype), angle_RK.sin().to(x_RD.dtype)
    for layer, cache in zip(weights.layers, caches, strict=True):
        turned = (cos_RK, sin_RK, table.slot_R, cache)
        q_RHK = dispatch.qkv_rope(x_RD, layer.qkv, *turned, norm=layer.input_norm, span_rows=span_rows)
        mixed_RE = dispatch.span_attention(q_RHK, cache, table.sight_R4, layout.longest)
        x_RD = dispatch.lora_linear(mixed_RE, layer.out, residual_RE=x_RD, span_rows=span_rows)
        inner_RF = dispatch.gated_mlp(x_RD, layer.gate_up, norm=layer.post_norm, span_rows=span_rows)
        x_RD = dispatch.lora_linear(inner_RF, layer.down, residual_RE=x_RD, span_rows=span_rows)
    base_RD = x_RD[layout.chain - layout.headed : layout.chain]
    choice = {"norm": weights.norm, "barred_RV": barred_RV, "favour": layout.base_favour}
    base = dispatch.masked_head(base_RD, weights.head, **choice)  # type: ignore[arg-type]
    return Said(base, _span_heads(weights, x_RD[layout.chain :], base.token_R, table, layout))


def _embedded(weights: StepWeights, token_R: Tensor) -> Tensor:
    x_RD = F.embedding(token_R.clamp_min(0), weights.embedding_VD)
    return x_RD if weights.span is None else torch.where((token_R == MASKED)[:, None], weights.span.mask_D, x_RD)


def _span_heads(weights: StepWeights, x_RD: Tensor, base_R: Tensor, table: Table, layout: Layout) -> HeadRows:
    """Of all windows. With a successor map place after place, each told the token before it."""
    span = weights.span
    if span is None or not layout.span_rows:
        nothing = x_RD.new_zeros(0, dtype=torch.float32)
        return HeadRows(nothing.long(), nothing, nothing, nothing)
    if span.successor is None:
        return dispatch.masked_head(x_RD, span.head, norm=weights.norm, ids_V=span.ids_N, favour=layout.span_favour)
    normed_RD = reference.rms_norm(x_RD, weights.norm.weight_D, weights.norm.eps)
    x_ASD = normed_RD.view(layout.windows, layout.window, -1)
    shown_AS = table.token_R[layout.chain :].view(layout.windows, layout.window)
    before_A, found = base_R[table.first_A], []
    for s in range(layout.window):
        previous_A = torch.where(shown_AS[:, s] == MASKED, before_A, shown_AS[:, s])
        previous_AD = F.embedding(previous_A, weights.embedding_VD)
        x_AD = reference.successor(x_ASD[:, s], previous_AD, *span.successor, weights.norm.eps)
        found.append(dispatch.masked_head(x_AD, span.head, ids_V=span.ids_N, favour=layout.span_favour))
        before_A = found[-1].token_R
    names = ("token_R", "probability_R", "margin_R", "entropy_R")
    return HeadRows(*(torch.stack([getattr(h, name) for h in found], 1).flatten() for name in names))


@dataclass(frozen=True, slots=True)
class Asked:
    """A step of one canvas as the host asks for it; sights are `Rows.sights()`."""

    tokens: Sequence[int]  # the chain, then the windows; MASKED where masked
    positions: Sequence[int]
    sights: Sequence[tuple[int, int, int]]
    anchors: Sequence[int]  # numbers of drafts behind which windows stand
    window: int
    base_rows: int  # drafts and one more
    base_favour: Favour = None
    span_favour: Favour = None

    @property
    def chain(self) -> int:
        return len(self.tokens) - len(self.anchors) * self.window


def layout_for(asked: Asked, length: int) -> Layout:
    """With the chain filled up to one of a few sizes, so that few graphs serve all steps.

    A tile of few rows holds 16 anyway. The same rows then run in the same tiles whoever stands beside them, so that
    `verified` and `leftmost` get the same bits.
    """
    span_rows = len(asked.anchors) * asked.window
    rows = asked.chain + span_rows
    padded = next((size for size in PADDED if size >= rows), rows)
    chain = padded - span_rows
    headed = min(chain, HEADED) if rows <= PADDED[-1] and asked.base_rows <= HEADED else asked.base_rows
    longest = max(FEWEST_PLACES, 1 << (length + rows - 1).bit_length())
    favours = (asked.base_favour, asked.span_favour)
    return Layout(chain, len(asked.anchors), asked.window, headed, longest, *favours)


PADDED = (16, 32, 64)  # rows of a step; larger ones run as they are
HEADED = 16
FEWEST_PLACES = 512


def table_of(asked: Asked, layout: Layout, start: int, length: int) -> list[int]:
    """The flat table of a canvas that lies at `start` and has read `length` places."""
    idle, new = layout.chain - asked.chain, start + length

    def column(idle_value: int, values: Sequence[int]) -> list[int]:
        return [idle_value] * idle + list(values)

    slots = range(new, new + len(asked.tokens))
    sights = [number for a, b, c in asked.sights for number in (start, new + a, new + b, new + c)]
    # Headed rows end with the chain, whose last one stands behind all drafts.
    firsts = [layout.headed - asked.base_rows + anchor for anchor in asked.anchors]
    return [
        *column(0, asked.tokens), *column(0, asked.positions), *column(JUNK, slots), *[0] * (4 * idle), *sights, *firsts
    ]  # fmt: skip
