"""A layer's ops with backward passes written by hand: the same sums as autograd's, in fewer passes over memory.

Beside a bf16 matrix unit (AMX, AVX-512 BF16) the products are the smaller part of a training step; the rest is memory.
So a map and its low-rank one write one result, nothing is kept that is cheap to make again, and what is kept is in the
rows' own format. Each forward is the specification's in `kernels.reference`; sums that autograd would round in
between are rounded once. Shapes as there; r the rank of a low-rank map.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from diffcode.kernels import reference as ops


def linear(x_RD: Tensor, weight_ED: Tensor, bias_E: Tensor | None, down_rD: Tensor, up_Er: Tensor) -> Tensor:
    """`x weight^T + bias + (x down^T) up^T`."""
    return _Linear.apply(x_RD, weight_ED, bias_E, down_rD, up_Er)  # type: ignore[no-untyped-call,no-any-return]


def gated(gate_RF: Tensor, up_RF: Tensor) -> Tensor:
    """`silu(gate) * up` (SwiGLU, Shazeer 2020)."""
    return _Gated.apply(gate_RF, up_RF)  # type: ignore[no-untyped-call,no-any-return]


def rms_norm(x_RD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """`kernels.reference.rms_norm`."""
    return _RmsNorm.apply(x_RD, weight_D, eps)  # type: ignore[no-untyped-call,no-any-return]


def rotate(x_RHK: Tensor, cos_RK: Tensor, sin_RK: Tensor) -> Tensor:
    """`kernels.reference.rotate`; both halves of `cos_RK` and `sin_RK` are the same."""
    return _Rotate.apply(x_RHK, cos_RK, sin_RK)  # type: ignore[no-untyped-call,no-any-return]


def attention(q_RHK: Tensor, k_SGK: Tensor, v_SGK: Tensor, seen_RS: Tensor | None) -> Tensor:
    """`softmax(q k^T / sqrt(K)) v` of one text, [R, H * K]; `seen_RS` None: causal, R = S.

    On a CPU torch's own backward pass of bf16 rows takes several times as long.
    """
    if q_RHK.device.type == "cpu" and torch.is_grad_enabled():
        return _Attention.apply(q_RHK, k_SGK, v_SGK, seen_RS)  # type: ignore[no-untyped-call,no-any-return]
    return _attend(q_RHK, k_SGK, v_SGK, seen_RS)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_RD: Tensor, weight_ED: Tensor, bias_E: Tensor | None, down_rD: Tensor, up_Er: Tensor
    ) -> Tensor:
        y_RE = F.linear(x_RD, weight_ED, bias_E)
        y_RE.addmm_(x_RD @ down_rD.T, up_Er.T)
        ctx.save_for_backward(x_RD, weight_ED, down_rD, up_Er)
        return y_RE

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_RE: Tensor) -> tuple[Tensor | None, ...]:
        x_RD, weight_ED, down_rD, up_Er = ctx.saved_tensors
        dx_RD = dweight_ED = dbias_E = ddown_rD = dup_Er = None
        dlow_Rr = dy_RE @ up_Er
        if ctx.needs_input_grad[0]:
            dx_RD = dy_RE @ weight_ED
            dx_RD.addmm_(dlow_Rr, down_rD)
        if ctx.needs_input_grad[1]:
            dweight_ED = dy_RE.T @ x_RD
        if ctx.needs_input_grad[2]:
            dbias_E = dy_RE.sum(0)
        if ctx.needs_input_grad[3]:
            ddown_rD = dlow_Rr.T @ x_RD
        if ctx.needs_input_grad[4]:
            dup_Er = dy_RE.T @ (x_RD @ down_rD.T)
        return dx_RD, dweight_ED, dbias_E, ddown_rD, dup_Er


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_RF: Tensor, up_RF: Tensor) -> Tensor:
        ctx.save_for_backward(gate_RF, up_RF)
        return F.silu(gate_RF).mul_(up_RF)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_RF: Tensor) -> tuple[Tensor, Tensor]:
        gate_RF, up_RF = ctx.saved_tensors
        dup_RF = F.silu(gate_RF).mul_(dy_RF)
        return torch.ops.aten.silu_backward(dy_RF * up_RF, gate_RF), dup_RF


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_RD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x_RD, weight_D)
        ctx.eps = eps
        return ops.rms_norm(x_RD, weight_D, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_RD: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x_RD, weight_D = ctx.saved_tensors
        normed_RD = x_RD.float()
        scale_R1 = torch.rsqrt(normed_RD.square().mean(-1, keepdim=True) + ctx.eps)
        normed_RD = normed_RD * scale_R1
        dx_RD = dweight_D = None
        if ctx.needs_input_grad[1]:
            dweight_D = (dy_RD * normed_RD).sum(0).to(weight_D.dtype)
        if ctx.needs_input_grad[0]:
            # Of n = x / rms(x): dx = (dn - n mean(n dn)) / rms(x).
            dn_RD = dy_RD * weight_D.float()
            along_R1 = (dn_RD * normed_RD).mean(-1, keepdim=True)
            dx_RD = dn_RD.addcmul_(normed_RD, along_R1, value=-1).mul_(scale_R1).to(x_RD.dtype)
        return dx_RD, dweight_D, None


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_RHK: Tensor, cos_RK: Tensor, sin_RK: Tensor) -> Tensor:
        ctx.save_for_backward(cos_RK, sin_RK)
        return ops.rotate(x_RHK, cos_RK, sin_RK)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_RHK: Tensor) -> tuple[Tensor, None, None]:
        cos_RK, sin_RK = ctx.saved_tensors
        return ops.rotate(dy_RHK, cos_RK, -sin_RK), None, None


def _attend(q_RHK: Tensor, k_SGK: Tensor, v_SGK: Tensor, seen_RS: Tensor | None) -> Tensor:
    q, k, v = (x.transpose(0, 1)[None] for x in (q_RHK, k_SGK, v_SGK))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen_RS, is_causal=seen_RS is None, enable_gqa=True)
    return out[0].transpose(0, 1).flatten(1)


class _Attention(torch.autograd.Function):
    """Keeps q, k and v only; the backward pass makes the weights again, all of a text's at once (R S floats a head)."""

    @staticmethod
    def forward(ctx: Any, q_RHK: Tensor, k_SGK: Tensor, v_SGK: Tensor, seen_RS: Tensor | None) -> Tensor:
        ctx.save_for_backward(q_RHK, k_SGK, v_SGK, seen_RS)
        return _attend(q_RHK, k_SGK, v_SGK, seen_RS)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout_RE: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q_RHK, k_SGK, v_SGK, seen_RS = ctx.saved_tensors
        rows, heads, width = q_RHK.shape
        groups, scale = k_SGK.shape[1], width**-0.5
        # A group's heads lie below each other as N = H / G * R rows, so that keys and values are never copied.
        q_GNK = _grouped(q_RHK, groups)
        dout_GNK = _grouped(dout_RE.view(rows, heads, width), groups)
        k_GSK, v_GSK = k_SGK.transpose(0, 1), v_SGK.transpose(0, 1)
        # The scores in fp32: rounded to bf16 they would be off by more than the weights may be.
        scores_GNS = (q_GNK.float() @ k_GSK.float().mT).mul_(scale)
        hidden_RS = torch.ones(rows, rows, dtype=torch.bool).triu(1) if seen_RS is None else ~seen_RS
        scores_GNS.view(heads, rows, len(k_SGK)).masked_fill_(hidden_RS, -torch.inf)
        weights_GNS = torch.softmax(scores_GNS, -1)
        dweights_GNS = (dout_GNK @ v_GSK.mT).float()
        along_GN1 = (weights_GNS * dweights_GNS).sum(-1, keepdim=True)
        dscores_GNS = dweights_GNS.sub_(along_GN1).mul_(weights_GNS).mul_(scale).to(q_GNK.dtype)
        dq_GNK = dscores_GNS @ k_GSK
        dk_GSK = dscores_GNS.mT @ q_GNK
        dv_GSK = weights_GNS.to(dout_GNK.dtype).mT @ dout_GNK
        dq_RHK = dq_GNK.view(heads, rows, width).transpose(0, 1)
        return dq_RHK, dk_GSK.transpose(0, 1), dv_GSK.transpose(0, 1), None


def _grouped(x_RHK: Tensor, groups: int) -> Tensor:
    rows, heads, width = x_RHK.shape
    x_GHRK = x_RHK.view(rows, groups, heads // groups, width).permute(1, 2, 0, 3)
    return x_GHRK.reshape(groups, heads // groups * rows, width)
