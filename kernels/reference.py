"""Every op of a denoising step in plain torch: the specification that faster machines are tested against.

Shapes: R rows of this forward, S keys (cached context, then the rows themselves), D model width, H query heads,
G key/value heads, K width of a head, V vocabulary.
"""

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
) -> HeadRows:
    """`softmax(x head^T)` of already normed rows, boiled down to a token and three numbers a row.

    `barred_RV` is True where a token may not stand. With `temperature` over 0 the token is the argmax of
    `logits / temperature + gumbel` (the Gumbel-max trick), so the same noise gives the same draw.
    """
    logits_RV = F.linear(x_RD, head_VD).float()
    if barred_RV is not None:
        logits_RV = logits_RV.masked_fill(barred_RV, -torch.inf)
    # argmax, for it takes the first of equals: bf16 logits often tie, and topk's choice then depends on the other rows.
    ranked_RV = logits_RV / temperature + gumbel_RV if gumbel_RV is not None and temperature > 0 else logits_RV
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
