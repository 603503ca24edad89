"""The linear ops in the interpreter against their specification."""

import random
from dataclasses import dataclass, replace

import pytest
import torch
from closeness import check_close, normal
from torch import Tensor

from diffcode.kernels.reference import Cache, Map, Norm
from diffcode.kernels.reference import gated_mlp as gated_mlp_spec
from diffcode.kernels.reference import lora_linear as lora_linear_spec
from diffcode.kernels.reference import qkv_rope as qkv_rope_spec
from diffcode.kernels.triton.gated_mlp import gated_mlp
from diffcode.kernels.triton.lora_linear import lora_linear
from diffcode.kernels.triton.qkv_rope import qkv_rope

EPS = 1e-6


@dataclass(frozen=True)
class Case:
    """A shape, and what is switched on."""

    rows: int
    inputs: int
    outputs: int
    dtype: torch.dtype = torch.float32
    rank: int = 0
    span_rows: int = 0
    norm: bool = False
    bias: bool = False
    residual: bool = False
    groups: int = 0  # of inputs with a scale of their own; 0: no int8
    seed: int = 0


def drawn(seed: int) -> Case:
    """Any shape; int8 groups are of 16 or 32 inputs."""
    r = random.Random(seed)
    rows, dtype = r.choice((1, 2, 5, 16, 17, 65)), r.choice((torch.float32, torch.float16))
    size = r.choice((0, 16, 32))
    groups = r.randint(1, 5)
    inputs = groups * size if size else r.randint(1, 150)
    more = {"rank": r.choice((0, 1, 4, 32)), "norm": r.random() < 0.7, "bias": r.random() < 0.5}
    return Case(
        rows, inputs, 2 * r.randint(1, 45), dtype, span_rows=r.randint(0, rows), residual=r.random() < 0.5,
        groups=groups if size else 0, seed=seed, **more,
    )  # fmt: skip


EDGES = [
    Case(0, 8, 8, norm=True),
    Case(1, 1, 2),
    Case(1, 128, 32, torch.float16, rank=4, span_rows=1, norm=True, bias=True, residual=True),
    Case(15, 64, 34, rank=3, span_rows=0, norm=True),
    Case(16, 129, 64, rank=8, span_rows=16),
    Case(17, 127, 66, torch.float16, rank=8, span_rows=4, norm=True, residual=True),
    Case(65, 31, 2, rank=1, span_rows=64, bias=True),
    Case(3, 96, 32, groups=3, norm=True, rank=4, span_rows=2),
    Case(64, 128, 48, torch.float16, groups=2, bias=True),
    Case(5, 72, 34, torch.bfloat16, rank=4, span_rows=3, norm=True, bias=True, residual=True),
]
CASES = EDGES + [drawn(seed) for seed in range(8)]


def parts(case: Case) -> tuple[Tensor, Map, Norm | None, Tensor | None]:
    """Rows, map, norm, residual, in the case's type; the results stay under 2, where fp16 rounds by less than 1e-3."""
    seed, dtype = case.seed, case.dtype
    weight = normal(case.outputs, case.inputs, seed=seed + 1, spread=0.3 * case.inputs**-0.5)
    scales = None
    if case.groups:
        weight = torch.randint(-127, 128, weight.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.int8)
        scales = 0.004 * normal(case.outputs, case.groups, seed=seed + 2).abs() * case.inputs**-0.5
    bias = normal(case.outputs, seed=seed + 3, spread=0.1).to(dtype) if case.bias else None
    down = normal(case.rank, case.inputs, seed=seed + 4, spread=case.inputs**-0.5).to(dtype) if case.rank else None
    up = normal(case.outputs, case.rank, seed=seed + 5, spread=0.2 * case.rank**-0.5).to(dtype) if case.rank else None
    linear = Map(weight if case.groups else weight.to(dtype), scales, bias, down, up)
    norm = Norm((1 + normal(case.inputs, seed=seed + 6, spread=0.2)).to(dtype), EPS) if case.norm else None
    residual = normal(case.rows, case.outputs, seed=seed + 7, spread=0.3).to(dtype) if case.residual else None
    return normal(case.rows, case.inputs, seed=seed + 8, spread=0.7).to(dtype), linear, norm, residual


def wide(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if t is None else t if t.dtype == torch.int8 else t.float() for t in tensors]


def wide_map(linear: Map) -> Map:
    return Map(*wide(linear.weight_ED, linear.scales_EG, linear.bias_E, linear.down_rD, linear.up_Er))


def wide_norm(norm: Norm | None) -> Norm | None:
    return None if norm is None else Norm(norm.weight_D.float(), norm.eps)


def guarded(guards, *tensors: Tensor | None) -> list[Tensor | None]:
    return [None if t is None else guards.inside(t) for t in tensors]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_lora_linear(case: Case, guards) -> None:
    x, linear, norm, residual = parts(case)
    more = {"span_rows": case.span_rows}
    reference = lora_linear_spec(x, linear, norm=norm, residual_RE=residual, **more)
    gold = lora_linear_spec(x.float(), wide_map(linear), norm=wide_norm(norm), residual_RE=wide(residual)[0], **more)
    maps = guarded(guards, x, linear.weight_ED, linear.scales_EG, linear.bias_E, linear.down_rD, linear.up_Er)
    out = lora_linear(*maps, *guarded(guards, norm.weight_D if norm else None, residual), case.span_rows, EPS)
    assert out.dtype == case.dtype
    check_close(out, gold, reference, case.dtype)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gated_mlp(case: Case, guards) -> None:
    x, linear, norm, _ = parts(case)
    linear = Map(linear.weight_ED, linear.scales_EG, None, linear.down_rD, linear.up_Er)
    reference = gated_mlp_spec(x, linear, norm=norm, span_rows=case.span_rows)
    gold = gated_mlp_spec(x.float(), wide_map(linear), norm=wide_norm(norm), span_rows=case.span_rows)
    maps = guarded(guards, x, linear.weight_ED, linear.scales_EG, linear.down_rD, linear.up_Er)
    out = gated_mlp(*maps, *guarded(guards, norm.weight_D if norm else None), case.span_rows, EPS)
    check_close(out, gold, reference, case.dtype)


@pytest.mark.parametrize(("heads", "groups", "width"), [(4, 2, 8), (7, 1, 32), (3, 3, 64)])
@pytest.mark.parametrize("case", [CASES[0], CASES[2], CASES[5], CASES[7], *CASES[-4:]], ids=str)
def test_qkv_rope(case: Case, heads: int, groups: int, width: int, guards) -> None:
    case = replace(case, outputs=(heads + 2 * groups) * width)
    x, linear, norm, _ = parts(case)
    angle = 9 * normal(case.rows, width // 2, seed=20).repeat(1, 2)
    cos, sin = angle.cos().to(case.dtype), angle.sin().to(case.dtype)
    places = case.rows + 5
    slot = torch.randperm(places, generator=torch.Generator().manual_seed(case.seed))[: case.rows]
    before = normal(2, groups, places, width, seed=21).to(case.dtype)
    caches = [Cache(*before.to(t).clone()) for t in (case.dtype, torch.float32)]
    reference = qkv_rope_spec(x, linear, cos, sin, slot, caches[0], norm=norm, span_rows=case.span_rows)
    gold = qkv_rope_spec(
        x.float(), wide_map(linear), cos.float(), sin.float(), slot, caches[1],
        norm=wide_norm(norm), span_rows=case.span_rows,
    )  # fmt: skip
    maps = guarded(guards, x, linear.weight_ED, linear.scales_EG, linear.bias_E, linear.down_rD, linear.up_Er)
    k, v = guarded(guards, *before)
    more = guarded(guards, norm.weight_D if norm else None, cos, sin, slot)
    q = qkv_rope(*maps, *more, k, v, case.span_rows, EPS)
    check_close(q, gold, reference, case.dtype)
    check_close(k, caches[1].k_GPK, caches[0].k_GPK, case.dtype)
    check_close(v, caches[1].v_GPK, caches[0].v_GPK, case.dtype)
    others = [p for p in range(places) if p not in slot.tolist()]
    assert torch.equal(k[:, others], before[0][:, others]), "other places' keys were written"
    assert torch.equal(v[:, others], before[1][:, others])


def test_span_rows_alone_are_gated(guards) -> None:
    x, linear, norm, _ = parts(Case(9, 24, 16, rank=4, norm=True))
    maps = (x, linear.weight_ED, None, None, linear.down_rD, linear.up_Er, norm.weight_D, None)
    plain, gated = lora_linear(*maps, 0, EPS), lora_linear(*maps, 3, EPS)
    assert torch.equal(plain[:6], gated[:6])
    assert (plain[6:] != gated[6:]).any(1).all()


def test_rows_are_strangers(guards) -> None:
    """A row's numbers are the same bits in any company that runs in the same tile."""
    x, linear, norm, _ = parts(Case(16, 100, 40, torch.float16, norm=True))
    maps = (linear.weight_ED, None, None, None, None, norm.weight_D, None)
    whole = lora_linear(x, *maps, 0, EPS)
    for row in (0, 7, 15):
        assert torch.equal(lora_linear(x[row : row + 1], *maps, 0, EPS)[0], whole[row])


def test_wrong_shapes_are_refused() -> None:
    x, linear, _, _ = parts(Case(2, 8, 4))
    with pytest.raises(ValueError, match="inputs"):
        lora_linear(x[:, :6].contiguous(), linear.weight_ED, None, None, None, None, None, None, 0, EPS)
    with pytest.raises(ValueError, match="contiguous"):
        lora_linear(x, linear.weight_ED.T.contiguous().T, None, None, None, None, None, None, 0, EPS)
    for bias, norm, what in ((torch.zeros(3), None, "bias"), (None, torch.ones(16)[::2], "norm")):
        with pytest.raises(ValueError, match=f"the {what} must be"):
            lora_linear(x, linear.weight_ED, None, bias, None, None, norm, None, 0, EPS)
    with pytest.raises(ValueError, match="32-bit"):
        gated_mlp(x[:1].expand(2**20, -1), torch.zeros(2**12, 8), None, None, None, None, 0, EPS)
    with pytest.raises(ValueError, match="int8"):
        lora_linear(x, linear.weight_ED.half(), None, None, None, None, None, None, 0, EPS)
