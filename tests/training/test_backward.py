"""The backward passes written by hand against those that autograd makes of the specification."""

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from diffcode.kernels import reference
from diffcode.training import gradients

Op = Callable[..., Tensor]
EPS = 1e-6
sizes = st.integers(1, 9)


def gradients_of(op: Op, inputs: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """The result and, of a weighted sum of it, each input's gradient."""
    leaves = [x.to(dtype).requires_grad_() for x in inputs]
    out = op(*leaves)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(7)).to(dtype)
    return [out.detach(), *torch.autograd.grad(out, leaves, weights)]


def assert_same(ours: Op, plain: Op, inputs: Sequence[Tensor]) -> None:
    """The same in fp32, and in bf16 no farther from it than the plain one (both round at places of their own)."""
    wanted = gradients_of(plain, inputs, torch.float32)
    for found, gold in zip(gradients_of(ours, inputs, torch.float32), wanted, strict=True):
        assert found.shape == gold.shape
        assert torch.allclose(found, gold, atol=2e-5, rtol=2e-4)
    halves = [gradients_of(op, inputs, torch.bfloat16) for op in (ours, plain)]
    for mine, theirs, gold in zip(*halves, wanted, strict=True):
        assert mine.dtype == torch.bfloat16
        scale = float(gold.abs().max())
        assert float((mine - gold).abs().max()) <= 1.5 * float((theirs - gold).abs().max()) + 0.02 * scale


def drawn(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    """Numbers that bf16 can hold, so that both formats begin at the same ones."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).bfloat16().float() for shape in shapes]


def plain_linear(x_RD: Tensor, weight_ED: Tensor, bias_E: Tensor, down_rD: Tensor, up_Er: Tensor) -> Tensor:
    return F.linear(x_RD, weight_ED, bias_E) + reference.gated_low_rank(x_RD, down_rD, up_Er)


def plain_attention(seen_RS: Tensor) -> Op:
    def attend(q_RHK: Tensor, k_SGK: Tensor, v_SGK: Tensor) -> Tensor:
        return reference.span_attention(q_RHK, k_SGK.transpose(0, 1), v_SGK.transpose(0, 1), seen_RS)

    return attend


@given(seed=st.integers(0, 999), rows=st.integers(0, 9), inputs=sizes, outputs=sizes, rank=st.integers(1, 3))
def test_linear(seed: int, rows: int, inputs: int, outputs: int, rank: int) -> None:
    shapes = ((rows, inputs), (outputs, inputs), (outputs,), (rank, inputs), (outputs, rank))
    if rows:
        assert_same(gradients.linear, plain_linear, drawn(seed, *shapes))
    else:  # a short text has no span rows
        assert not any(g.any() for g in gradients_of(gradients.linear, drawn(seed, *shapes), torch.float32))


def test_linear_without_a_bias_and_with_frozen_weights() -> None:
    """As it is in LoRA training: what needs no gradient gets none."""
    x, weight, down, up = drawn(1, (5, 6), (4, 6), (2, 6), (4, 2))
    x, down, up = (t.requires_grad_() for t in (x, down, up))
    out = gradients.linear(x, weight, None, down, up)
    assert torch.allclose(out, x @ (weight + up @ down).T, atol=1e-5)
    out.sum().backward()
    assert weight.grad is None
    assert all(t.grad is not None for t in (x, down, up))


@given(seed=st.integers(0, 999), rows=sizes, width=sizes)
def test_gated(seed: int, rows: int, width: int) -> None:
    assert_same(gradients.gated, lambda gate, up: F.silu(gate) * up, drawn(seed, (rows, width), (rows, width)))


@given(seed=st.integers(0, 999), rows=sizes, width=st.integers(2, 40))
def test_rms_norm(seed: int, rows: int, width: int) -> None:
    def of(op: Op) -> Op:
        return lambda x, weight: op(x, weight, EPS)

    assert_same(of(gradients.rms_norm), of(reference.rms_norm), drawn(seed, (rows, width), (width,)))


@given(seed=st.integers(0, 999), rows=sizes, heads=st.integers(1, 3), half=st.integers(1, 8))
def test_rotate(seed: int, rows: int, heads: int, half: int) -> None:
    (angle,) = drawn(seed, (rows, half))
    angle = angle.repeat(1, 2)

    def of(op: Op) -> Op:
        return lambda x: op(x, angle.cos().to(x.dtype), angle.sin().to(x.dtype))

    assert_same(of(gradients.rotate), of(reference.rotate), drawn(seed, (rows, heads, 2 * half)))


@given(seed=st.integers(0, 999), rows=sizes, groups=st.integers(1, 3), shared=st.integers(1, 3), width=sizes)
def test_causal_attention(seed: int, rows: int, groups: int, shared: int, width: int) -> None:
    seen = torch.ones(rows, rows, dtype=torch.bool).tril()
    shapes = ((rows, groups * shared, width), (rows, groups, width), (rows, groups, width))
    assert_same(lambda q, k, v: gradients.attention(q, k, v, None), plain_attention(seen), drawn(seed, *shapes))


@given(seed=st.integers(0, 999), rows=sizes, keys=sizes, groups=st.integers(1, 3), shared=st.integers(1, 3))
def test_attention_under_a_mask(seed: int, rows: int, keys: int, groups: int, shared: int) -> None:
    seen = torch.rand(rows, keys, generator=torch.Generator().manual_seed(seed)) < 0.5
    seen[:, seed % keys] = True  # every row sees something
    shapes = ((rows, groups * shared, 8), (keys, groups, 8), (keys, groups, 8))
    assert_same(lambda q, k, v: gradients.attention(q, k, v, seen), plain_attention(seen), drawn(seed, *shapes))


def test_scores_are_fp32_where_rows_are_bf16() -> None:
    """Scores of about 60, whose differences decide: in bf16 they are multiples of a quarter."""
    q, k, v = drawn(5, (24, 4, 64), (24, 2, 64), (24, 2, 64))
    q, k = ((3 * x).bfloat16().float() for x in (q, k))
    seen = torch.ones(24, 24, dtype=torch.bool).tril()
    gold = gradients_of(plain_attention(seen), (q, k, v), torch.float32)
    found = gradients_of(lambda q, k, v: gradients.attention(q, k, v, None), (q, k, v), torch.bfloat16)
    for mine, wanted in zip(found, gold, strict=True):
        assert float((mine - wanted).norm() / wanted.norm()) < 0.006


@pytest.mark.parametrize("rows", [1, 70])
def test_attention_that_learns_nothing_is_torchs(rows: int) -> None:
    q, k, v = drawn(3, (rows, 4, 16), (rows, 2, 16), (rows, 2, 16))
    with torch.no_grad():
        plain = gradients.attention(q, k, v, None)
    assert torch.equal(plain, gradients.attention(q.requires_grad_(), k, v, None))
