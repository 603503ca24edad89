"""Cross-entropy of scored rows against tokens, a teacher, or both; logits of a few rows at a time, never [B, L, V].

The gradient is made in the forward pass, while a slice's logits are there (as Liger-Kernel's fused linear
cross-entropy does), so that no slice is kept or computed twice.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SLICE = 128  # rows: 128 x 151,936 fp32 logits are 78 MB


class Scored(NamedTuple):  # what FSDP can look into for the tensors that a backward pass begins at
    """What a batch's scored rows came to."""

    loss: Tensor  # scalar with gradient: the weighted SUM; divide by the step's weight
    weight: float
    nll_R: Tensor  # minus log p of the text's token
    right_R: Tensor  # bool: the likeliest token is the text's
    agrees_R: Tensor  # bool: it is the teacher's likeliest; `right_R` where there is no teacher
    top_R: Tensor  # the likeliest token's probability


def scored_loss(
    x_RD: Tensor,
    head_ND: Tensor,
    target_R: Tensor,
    weight_R: Tensor,
    teacher_RD: Tensor | None = None,
    distill: float = 0.0,
) -> Scored:
    """Sum over rows of `weight * -(1 - distill) log p[target] - distill sum(q log p)`, q the teacher's distribution.

    `head_ND` may be some rows of the vocabulary only; a target of -1 is outside of them and counts nothing.
    """
    known_R = target_R >= 0
    weight_R = torch.where(known_R, weight_R, 0.0)
    total = float(weight_R.sum())
    if teacher_RD is None and x_RD.is_cuda and (liger := _liger()) is not None:
        return _with_liger(liger, x_RD, head_ND, target_R, weight_R, total)
    loss, nll_R, right_R, agrees_R, top_R = _SlicedLoss.apply(  # type: ignore[no-untyped-call]
        x_RD, head_ND, target_R.clamp_min(0), weight_R, teacher_RD, distill
    )
    right_R = right_R & known_R
    return Scored(loss, total, nll_R, right_R, right_R if teacher_RD is None else agrees_R, top_R)


class _SlicedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_RD: Tensor,
        head_ND: Tensor,
        target_R: Tensor,
        weight_R: Tensor,
        teacher_RD: Tensor | None,
        distill: float,
    ) -> tuple[Tensor, ...]:
        dx_RD = torch.zeros_like(x_RD)
        dhead_ND = torch.zeros_like(head_ND) if ctx.needs_input_grad[1] else None
        loss = torch.zeros((), device=x_RD.device)
        nll_R = torch.zeros(len(x_RD), device=x_RD.device)
        right_R = torch.zeros(len(x_RD), dtype=torch.bool, device=x_RD.device)
        agrees_R, top_R = right_R.clone(), nll_R.clone()
        head = head_ND.to(x_RD.dtype)
        for first in range(0, len(x_RD), SLICE):
            rows = slice(first, first + SLICE)
            logp_RN = torch.log_softmax(F.linear(x_RD[rows], head).float(), dim=-1)
            highest_R, likeliest_R = logp_RN.max(-1)
            top_R[rows] = highest_R.exp()
            nll_R[rows] = -logp_RN.gather(1, target_R[rows, None])[:, 0]
            right_R[rows] = agrees_R[rows] = likeliest_R == target_R[rows]
            slice_loss_R = nll_R[rows]
            grad_RN = logp_RN.exp()
            if teacher_RD is None:
                grad_RN.scatter_add_(1, target_R[rows, None], grad_RN.new_full((len(grad_RN), 1), -1.0))
            else:
                q_RN = torch.softmax(F.linear(teacher_RD[rows], head).float(), dim=-1)
                agrees_R[rows] = likeliest_R == q_RN.argmax(-1)
                slice_loss_R = (1 - distill) * slice_loss_R - distill * (q_RN * logp_RN).sum(-1)
                grad_RN.sub_(q_RN, alpha=distill)
                grad_RN.scatter_add_(1, target_R[rows, None], grad_RN.new_full((len(grad_RN), 1), distill - 1))
            loss += (slice_loss_R * weight_R[rows]).sum()
            grad_RN = (grad_RN * weight_R[rows, None]).to(x_RD.dtype)
            dx_RD[rows] = grad_RN @ head
            if dhead_ND is not None:
                dhead_ND += grad_RN.T @ x_RD[rows]
        ctx.save_for_backward(dx_RD, *([] if dhead_ND is None else [dhead_ND]))
        ctx.mark_non_differentiable(nll_R, right_R, agrees_R, top_R)
        return loss, nll_R, right_R, agrees_R, top_R

    @staticmethod
    def backward(ctx: Any, dloss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        dx_RD, *dhead = ctx.saved_tensors
        return dx_RD * dloss.to(dx_RD.dtype), dhead[0] * dloss if dhead else None, None, None, None, None


def _liger() -> Any:
    """Liger's public function, where the package is installed."""
    try:
        from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy
    except ImportError:
        return None
    return liger_fused_linear_cross_entropy


def _with_liger(liger: Any, x_RD: Tensor, head_ND: Tensor, target_R: Tensor, weight_R: Tensor, total: float) -> Scored:
    """Liger sums over rows of equal weight, so one call for each weight there is: two in stage A."""
    loss = x_RD[:0].sum().float()  # nothing, but with a gradient: there may be no row that counts
    for weight in weight_R.unique().tolist():
        rows_R = (weight_R == weight) & (target_R >= 0)
        if weight and rows_R.any():
            loss = loss + weight * liger(x_RD[rows_R], head_ND.to(x_RD.dtype), target_R[rows_R], reduction="sum")
    with torch.no_grad():  # the numbers for people, from the specification
        plain = _SlicedLoss.apply(  # type: ignore[no-untyped-call]
            x_RD.detach(), head_ND.detach(), target_R.clamp_min(0), weight_R, None, 0.0
        )
    right_R = plain[2] & (target_R >= 0)
    return Scored(loss, total, plain[1], right_R, right_R, plain[4])
