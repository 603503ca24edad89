"""The sliced loss against torch's own cross-entropy and KL divergence in fp64."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from diffcode.training import loss as loss_module
from diffcode.training.loss import SLICE, Scored, scored_loss

D, N = 16, 37
SIZES = (0, 1, 5, SLICE - 1, SLICE, SLICE + 1, 2 * SLICE + 9)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Case:
    """Rows, a head, a teacher, targets of which some are unknown, weights of which some are 0."""

    def __init__(self, rows: int, seed: int = 0, dtype: torch.dtype = torch.float32, unknown: bool = True):
        generator = torch.Generator().manual_seed(seed)
        self.x_RD = normal(rows, D, seed=seed).to(dtype).requires_grad_()
        self.head_ND = normal(N, D, seed=seed + 1).to(dtype).requires_grad_()
        self.teacher_RD = normal(rows, D, seed=seed + 2).to(dtype)
        self.target_R = torch.randint(-2 if unknown else 0, N, (rows,), generator=generator).clamp_min(-1)
        self.weight_R = 2 * torch.rand(rows, generator=generator)
        self.weight_R[::7] = 0

    def gold(self, distill: float | None) -> tuple[Tensor, Tensor, Tensor, float]:
        """(loss, gradient of rows, gradient of the head, weight) in fp64, by torch's functions."""
        x, head = self.x_RD.detach().double().requires_grad_(), self.head_ND.detach().double().requires_grad_()
        known = self.target_R >= 0
        weight = (self.weight_R.double() * known)[known]
        logp = (x @ head.T).log_softmax(-1)[known]
        tokens = F.cross_entropy(logp, self.target_R[known], reduction="none")
        rows = tokens
        if distill is not None:
            q = (self.teacher_RD.double() @ head.detach().T).softmax(-1)[known]
            # the KL divergence and the teacher's entropy, which has no gradient, make the cross-entropy
            entropy = -torch.special.xlogy(q, q).sum(-1)
            rows = (1 - distill) * tokens + distill * (F.kl_div(logp, q, reduction="none").sum(-1) + entropy)
        loss = (rows * weight).sum()
        loss.backward()
        assert x.grad is not None
        assert head.grad is not None
        return loss.detach(), x.grad, head.grad, float(weight.sum())

    def scored(self, distill: float | None) -> Scored:
        teacher = None if distill is None else self.teacher_RD
        return scored_loss(self.x_RD, self.head_ND, self.target_R, self.weight_R, teacher, distill or 0.0)


@pytest.mark.parametrize("distill", [None, 0.0, 0.7, 1.0])
@pytest.mark.parametrize("rows", SIZES)
def test_value_and_gradients_are_torchs(rows: int, distill: float | None) -> None:
    case = Case(rows, seed=rows)
    loss, dx, dhead, weight = case.gold(distill)
    scored = case.scored(distill)
    (3.0 * scored.loss).backward()  # whatever stands behind the loss has a say
    assert case.x_RD.grad is not None
    assert case.head_ND.grad is not None
    assert float(scored.loss.detach()) == pytest.approx(float(loss), rel=1e-5, abs=1e-5)
    assert scored.weight == pytest.approx(weight, rel=1e-5)
    assert torch.allclose(case.x_RD.grad.double(), 3 * dx, atol=1e-4)
    if distill is None:
        assert torch.allclose(case.head_ND.grad.double(), 3 * dhead, atol=1e-3)


def test_gradients_in_fp64_are_the_finite_differences() -> None:
    """With the head that training moves; there is no teacher then."""
    case = Case(5, seed=3, dtype=torch.float64, unknown=False)
    weight_R = case.weight_R.double()

    def loss(x: Tensor, head: Tensor) -> Tensor:
        return scored_loss(x, head, case.target_R, weight_R).loss.double()

    # the logits are taken to fp32 inside, so steps must not be too small
    assert torch.autograd.gradcheck(loss, (case.x_RD, case.head_ND), eps=1e-2, atol=2e-2, rtol=1e-2)


@pytest.mark.parametrize("distill", [None, 0.7])
@pytest.mark.parametrize("rows", [7, SLICE + 3])
def test_bf16_rows_are_near(rows: int, distill: float | None) -> None:
    case = Case(rows, seed=11, dtype=torch.bfloat16)
    loss, dx, _, _ = case.gold(distill)
    scored = case.scored(distill)
    scored.loss.backward()
    assert case.x_RD.grad is not None
    assert case.x_RD.grad.dtype == torch.bfloat16
    assert float(scored.loss.detach()) == pytest.approx(float(loss), rel=0.02)
    assert (case.x_RD.grad.double() - dx).abs().max() < 0.02 * dx.abs().max()


def test_an_fp32_head_under_bf16_rows_learns_in_fp32() -> None:
    """Full fine-tuning: masters are fp32, rows are not."""
    case = Case(9, seed=5, dtype=torch.bfloat16, unknown=False)
    case.head_ND = case.head_ND.detach().float().requires_grad_()
    _, _, dhead, _ = case.gold(None)
    case.scored(None).loss.backward()
    assert case.head_ND.grad is not None
    assert case.head_ND.grad.dtype == torch.float32
    assert (case.head_ND.grad.double() - dhead).abs().max() < 0.02 * dhead.abs().max()


@pytest.mark.parametrize("distill", [None, 0.7])
def test_what_is_said_of_each_row(distill: float | None) -> None:
    case = Case(2 * SLICE + 9, seed=8)
    scored = case.scored(distill)
    p_RN = (case.x_RD.detach().double() @ case.head_ND.detach().double().T).softmax(-1)
    q_RN = (case.teacher_RD.double() @ case.head_ND.detach().double().T).softmax(-1)
    right = 0
    for r, target in enumerate(case.target_R.tolist()):
        likeliest = int(p_RN[r].argmax())
        assert bool(scored.right_R[r]) == (target == likeliest)
        assert float(scored.top_R[r]) == pytest.approx(float(p_RN[r].max()), abs=1e-5)
        same = likeliest == (int(q_RN[r].argmax()) if distill is not None else target)
        assert bool(scored.agrees_R[r]) == same
        if target >= 0:
            assert float(scored.nll_R[r]) == pytest.approx(-math.log(p_RN[r, target]), abs=1e-4)
            right += target == likeliest
    assert right
    assert not any(t.requires_grad for t in (scored.nll_R, scored.right_R, scored.agrees_R, scored.top_R))


@pytest.mark.parametrize("distill", [None, 0.7])
def test_rows_outside_the_kept_tokens_have_no_say(distill: float | None) -> None:
    case = Case(30, seed=2)
    case.target_R[:] = -1
    scored = case.scored(distill)
    scored.loss.backward()
    assert (float(scored.loss.detach()), scored.weight) == (0.0, 0.0)
    assert case.x_RD.grad is not None
    assert not case.x_RD.grad.any()
    assert not scored.right_R.any()


@given(st.integers(1, 2 * SLICE), st.integers(0, 2 * SLICE), st.sampled_from([None, 0.3]))
def test_rows_may_be_scored_in_any_parts(rows: int, cut: int, distill: float | None) -> None:
    case, cut = Case(rows, seed=rows), min(cut, rows)
    whole = case.scored(distill)
    teacher = case.teacher_RD if distill is not None else None
    parts = [
        scored_loss(
            case.x_RD[part], case.head_ND, case.target_R[part], case.weight_R[part],
            None if teacher is None else teacher[part], distill or 0.0,
        )
        for part in (slice(cut), slice(cut, None))
    ]  # fmt: skip
    assert sum(float(p.loss.detach()) for p in parts) == pytest.approx(float(whole.loss.detach()), rel=1e-4, abs=1e-4)
    assert sum(p.weight for p in parts) == pytest.approx(whole.weight, rel=1e-5)
    assert torch.equal(torch.cat([p.right_R for p in parts]), whole.right_R)


def test_a_frozen_head_gets_no_gradient() -> None:
    case = Case(5)
    scored = scored_loss(case.x_RD, case.head_ND.detach(), case.target_R, case.weight_R)
    scored.loss.backward()
    assert case.head_ND.grad is None
    assert case.x_RD.grad is not None


def pretended(x_RD: Tensor, head_ND: Tensor, target_R: Tensor, *, reduction: str) -> Tensor:
    """What Liger's function computes, where there is no GPU for it."""
    assert (target_R >= 0).all()
    return F.cross_entropy(F.linear(x_RD, head_ND), target_R, reduction=reduction)


@pytest.mark.parametrize("rows", [0, 1, SLICE + 9])
@pytest.mark.parametrize("weights", [(1.0,), (1.0, 4.0), (0.0, 1.0, 0.5), (0.0,)])
def test_with_liger_the_loss_is_the_same(rows: int, weights: tuple[float, ...]) -> None:
    case, other = Case(rows, seed=rows), Case(rows, seed=rows)
    case.weight_R = other.weight_R = torch.tensor(weights).repeat(rows)[:rows]
    plain = case.scored(None)
    weight_R = torch.where(other.target_R >= 0, other.weight_R, 0.0)
    fused = loss_module._with_liger(
        pretended, other.x_RD, other.head_ND, other.target_R, weight_R, float(weight_R.sum())
    )
    assert float(fused.loss.detach()) == pytest.approx(float(plain.loss.detach()), rel=1e-5, abs=1e-6)
    assert fused.weight == plain.weight
    for mine, theirs in zip(fused[2:], plain[2:], strict=True):
        assert torch.equal(mine, theirs)
    plain.loss.backward()
    fused.loss.backward()
    for mine, theirs in ((other.x_RD.grad, case.x_RD.grad), (other.head_ND.grad, case.head_ND.grad)):
        assert mine is not None or not weight_R.any()
        assert torch.allclose(torch.zeros(1) if mine is None else mine, theirs, atol=1e-5)
