"""Every op of a denoising step in plain torch: the specification that faster machines are tested against.

Shapes: R rows of this forward, S keys (cached context, then the rows themselves), D model width, H query heads,
G key/value heads, K width of a head, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def rms_norm(x_RD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """`x / sqrt(mean(x^2) + eps) * weight`, the mean taken in fp32 (as Llama and Qwen were trained)."""
    x32_RD = x_RD.float()
    scale_R1 = torch.rsqrt(x32_RD.square().mean(-1, keepdim=True) + eps)
    return weight_D * (x32_RD * scale_R1).to(x_RD.dtype)


def rotate(x_RHK: Tensor, cos_RK: Tensor, sin_RK: Tensor) -> Tensor:
    """Rotary position embedding in the half-split layout (RoFormer eq. 34; Llama's `rotate_half`)."""
    low, high = x_RHK.chunk(2, dim=-1)
    return x_RHK * cos_RK[:, None] + torch.cat((-high, low), dim=-1) * sin_RK[:, None]


def span_attention(q_RHK: Tensor, k_GSK: Tensor, v_GSK: Tensor, seen_RS: Tensor | None) -> Tensor:
    """`softmax(q k^T / sqrt(K)) v` with grouped heads; `seen_RS` is True where a row may look, None if everywhere.

    The H / G query heads of a group are laid side by side as rows, so keys and values are never copied.
    """
    rows, heads, width = q_RHK.shape
    groups = k_GSK.shape[0]
    q_GNK = q_RHK.view(rows, groups, heads // groups, width).permute(1, 2, 0, 3).reshape(groups, -1, width)
    seen_NS = None if seen_RS is None else seen_RS.repeat(heads // groups, 1)
    out_GNK = F.scaled_dot_product_attention(q_GNK[None], k_GSK[None], v_GSK[None], attn_mask=seen_NS)[0]
    return out_GNK.view(groups, heads // groups, rows, width).permute(2, 0, 1, 3).reshape(rows, heads * width)


def gated_low_rank(x_RD: Tensor, down_rD: Tensor, up_Er: Tensor) -> Tensor:
    """`(x down^T) up^T`: what a LoRA adapter adds to a linear map (Hu et al. 2021), its scale folded into `up`."""
    return F.linear(F.linear(x_RD, down_rD), up_Er)


def successor(x_RD: Tensor, previous_RD: Tensor, down_HE: Tensor, up_DH: Tensor, eps: float) -> Tensor:
    """`x + silu([x, e] down^T) up^T`, x and e normed: a row's final hidden state, told which token stands at its place.

    Span rows are computed all at once and do not know each other's tokens; this small map lets the head take them one
    after the other, so that drafts fit together (the sampler head of Samragh et al. 2025, arXiv 2507.11851, section 3).
    `previous_RD` are the input vectors of the tokens at the rows' own places, E = 2 D, H the map's width.
    """
    ones_D = x_RD.new_ones(x_RD.shape[1])
    both_RE = torch.cat((rms_norm(x_RD, ones_D, eps), rms_norm(previous_RD, ones_D, eps)), dim=-1)
    return x_RD + F.linear(F.silu(F.linear(both_RE, down_HE)), up_DH)


@dataclass(frozen=True, slots=True)
class HeadRows:
    """What the vocabulary head says about each of R rows."""

    token_R: Tensor  # int64: the most likely token, or the one drawn
    probability_R: Tensor  # fp32: softmax probability of that token, at temperature 1
    margin_R: Tensor  # fp32: top-1 minus top-2 probability
    entropy_R: Tensor  # fp32: nats


def masked_head(
    x_RD: Tensor,
    head_VD: Tensor,
    *,
    barred_RV: Tensor | None = None,
    gumbel_RV: Tensor | None = None,
    temperature: float = 0.0,
    favour: tuple[int, float] | None = None,
) -> HeadRows:
    """`softmax(x head^T)` of already normed rows, boiled down to a token and three numbers a row.

    `barred_RV` is True where a token may not stand. With `temperature` over 0 the token is the argmax of
    `logits / temperature + gumbel` (the Gumbel-max trick), so the same noise gives the same draw. `favour`: a token
    whose logit counts as that many nats larger where the token is chosen, not in the numbers.
    """
    logits_RV = F.linear(x_RD, head_VD).float()
    if barred_RV is not None:
        logits_RV = logits_RV.masked_fill(barred_RV, -torch.inf)
    # argmax, for it takes the first of equals: bf16 logits often tie, and topk's choice then depends on the other rows.
    ranked_RV = logits_RV / temperature + gumbel_RV if gumbel_RV is not None and temperature > 0 else logits_RV
    if favour is not None:
        ranked_RV = ranked_RV.clone()
        ranked_RV[:, favour[0]] += favour[1] / temperature if gumbel_RV is not None and temperature > 0 else favour[1]
    token_R = ranked_RV.argmax(-1)
    logp_RV = torch.log_softmax(logits_RV, dim=-1)
    top_R2 = logp_RV.topk(2, dim=-1).values.exp()
    p_RV = logp_RV.exp()
    return HeadRows(
        token_R=token_R,
        probability_R=p_RV.gather(1, token_R[:, None])[:, 0],
        margin_R=top_R2[:, 0] - top_R2[:, 1],
        entropy_R=-torch.nan_to_num(p_RV * logp_RV).sum(-1),
    )


# ---- linear maps of a layer


def widen(weight_ED: Tensor, scales_EG: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Weights as numbers: int8 with a scale for each of G equal groups of inputs, or as they are."""
    if scales_EG is None:
        return weight_ED.to(dtype)
    group = weight_ED.shape[1] // scales_EG.shape[1]
    return (weight_ED.float() * scales_EG.repeat_interleave(group, 1)).to(dtype)


@dataclass(frozen=True, slots=True)
class Map:
    """One linear map and what goes with it."""

    weight_ED: Tensor
    scales_EG: Tensor | None = None  # fp32, of int8 weights
    bias_E: Tensor | None = None
    down_rD: Tensor | None = None  # the gated low-rank term, `up` with its scale folded in
    up_Er: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Norm:
    """What `rms_norm` needs beside the rows."""

    weight_D: Tensor
    eps: float


def lora_linear(
    x_RD: Tensor, linear: Map, *, norm: Norm | None = None, span_rows: int = 0, residual_RE: Tensor | None = None
) -> Tensor:
    """`norm(x) W^T + b`, the low-rank term added on the last `span_rows` rows, plus the residual."""
    x_RD = x_RD if norm is None else rms_norm(x_RD, norm.weight_D, norm.eps)
    y_RE = F.linear(x_RD, widen(linear.weight_ED, linear.scales_EG, x_RD.dtype), linear.bias_E)
    if linear.down_rD is not None and linear.up_Er is not None and span_rows:
        low_RE = gated_low_rank(x_RD[-span_rows:], linear.down_rD, linear.up_Er)
        y_RE = torch.cat((y_RE[:-span_rows], y_RE[-span_rows:] + low_RE))
    return y_RE if residual_RE is None else residual_RE + y_RE


def gated_mlp(x_RD: Tensor, gate_up: Map, *, norm: Norm | None = None, span_rows: int = 0) -> Tensor:
    """`silu(gate) * up` of `gate, up = lora_linear(x)`, [R, F]; `gate_up` holds gate's F outputs, then up's.

    (Shazeer 2020, arXiv 2002.05202, eq. 6.) What is left of the block is `lora_linear` with a residual.
    """
    gate_RF, up_RF = lora_linear(x_RD, gate_up, norm=norm, span_rows=span_rows).chunk(2, dim=-1)
    return F.silu(gate_RF) * up_RF


@dataclass(frozen=True, slots=True)
class Cache:
    """Keys and values of P places in one layer. Several canvases may share it, each in a stretch of its own."""

    k_GPK: Tensor
    v_GPK: Tensor


def qkv_rope(
    x_RD: Tensor,
    qkv: Map,
    cos_RK: Tensor,
    sin_RK: Tensor,
    slot_R: Tensor,
    cache: Cache,
    *,
    norm: Norm | None = None,
    span_rows: int = 0,
) -> Tensor:
    """Rotated queries [R, H, K]; rotated keys and plain values are WRITTEN to the cache at places `slot_R`.

    The outputs of `qkv` are H query heads, then G key heads, then G value heads.
    """
    groups, _, width = cache.k_GPK.shape
    heads = len(qkv.weight_ED) // width - 2 * groups
    fused_RE = lora_linear(x_RD, qkv, norm=norm, span_rows=span_rows)
    heads_RNK = fused_RE.view(len(x_RD), heads + 2 * groups, width)
    cache.k_GPK[:, slot_R] = rotate(heads_RNK[:, heads:-groups], cos_RK, sin_RK).transpose(0, 1).to(cache.k_GPK.dtype)
    cache.v_GPK[:, slot_R] = heads_RNK[:, -groups:].transpose(0, 1).to(cache.v_GPK.dtype)
    return rotate(heads_RNK[:, :heads], cos_RK, sin_RK)


# ---- what rows see: the places before `until` from `first` on, and those of a second stretch


def seen_places(sight_R4: Tensor, places: int) -> Tensor:
    """Which of the cache's places a row sees, bool [R, P]; a sight is (first, until, first, until)."""
    at_P = torch.arange(places, device=sight_R4.device)
    first_R, until_R, second_R, end_R = sight_R4.unbind(1)
    one_RP = (at_P >= first_R[:, None]) & (at_P < until_R[:, None])
    return one_RP | ((at_P >= second_R[:, None]) & (at_P < end_R[:, None]))


def span_sights(sights: list[tuple[int, int, int]], length: int, start: int = 0) -> Tensor:
    """`Rows.sights()` of a canvas at `start` whose context fills `length` places; the new rows stand behind it."""
    new = start + length
    return torch.tensor([(start, new + a, new + b, new + c) for a, b, c in sights], dtype=torch.int32).view(-1, 4)


def whole_sights(lengths: list[int]) -> Tensor:
    """Canvases one behind the other, every row sees all of its own: full bidirectional, and no padding is needed."""
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    rows = [(s, s + n, 0, 0) for s, n in zip(starts, lengths, strict=True) for _ in range(n)]
    return torch.tensor(rows, dtype=torch.int32).view(-1, 4)


def block_sights(length: int, block: int) -> Tensor:
    """Block-causal: a row sees everything up to the end of its own block."""
    rows = [(0, min((i // block + 1) * block, length), 0, 0) for i in range(length)]
    return torch.tensor(rows, dtype=torch.int32).view(-1, 4)


# ---- noise


def philox(counter: Sequence[Tensor], key_lo: Tensor, key_hi: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox-4x32-10 of four counter words and two key words, int64 holding 32 bits (Salmon et al. 2011)."""
    c0, c1, c2, c3 = counter
    for _ in range(10):
        (high_a, low_a), (high_b, low_b) = _wide_product(0xD2511F53, c0), _wide_product(0xCD9E8D57, c2)
        c0, c1, c2, c3 = high_b ^ c1 ^ key_lo, low_b, high_a ^ c3 ^ key_hi, low_a
        key_lo, key_hi = (key_lo + 0x9E3779B9) & 0xFFFFFFFF, (key_hi + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def _wide_product(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low word of a 32-bit product; int64 would overflow."""
    low = a * (b & 0xFFFF)
    middle = a * (b >> 16) + (low >> 16)
    return middle >> 16, ((middle & 0xFFFF) << 16) | (low & 0xFFFF)


def counted_gumbel(draw_R2: Tensor, vocabulary: int, ids_V: Tensor | None = None) -> Tensor:
    """Gumbel noise fp32 [R, V] that follows from (seed, place) of a row and the token alone, on any machine.

    `ids_V`: the tokens behind the outputs, where they are not counted from 0.
    """
    token_V = torch.arange(vocabulary, device=draw_R2.device) if ids_V is None else ids_V.long()
    seed_R1, place_R1 = draw_R2[:, :1], draw_R2[:, 1:]
    token_RV, place_RV = torch.broadcast_tensors(token_V[None], place_R1)
    nil_RV = torch.zeros_like(token_RV)
    key = (seed_R1 & 0xFFFFFFFF, (seed_R1 >> 32) & 0xFFFFFFFF)
    word_RV = philox((token_RV, place_RV, nil_RV, nil_RV), *key)[0]
    # 23 bits and a half step: every value is exact in fp32, and none is 0 or 1.
    uniform_RV = ((word_RV >> 9).float() + 0.5) * 2.0**-23
    return -torch.log(-torch.log(uniform_RV))
