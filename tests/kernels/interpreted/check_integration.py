"""The ops as torch sees them: schema, mutation, fake kernels, and a compiled graph without a break."""

import pytest
import torch
from closeness import normal
from commits import ENDS, forwarded
from torch import Tensor

from diffcode.kernels.reference import whole_sights
from diffcode.kernels.triton.commit import commit, flat
from diffcode.kernels.triton.gated_mlp import gated_mlp
from diffcode.kernels.triton.lora_linear import lora_linear
from diffcode.kernels.triton.masked_head import masked_head
from diffcode.kernels.triton.qkv_rope import qkv_rope
from diffcode.kernels.triton.span_attention import span_attention

EPS = 1e-6
X, NORM = normal(3, 16), 1 + normal(16, seed=1, spread=0.1)
DOWN, UP = normal(4, 16, seed=2), normal(32, 4, seed=3)
WEIGHT = normal(32, 16, seed=4, spread=0.2)


def calls() -> dict[str, tuple[object, tuple[object, ...]]]:
    """Every op with small arguments, once with what may be left out and once without."""
    cos = sin = normal(3, 8, seed=5)
    cache = normal(2, 1, 6, 8, seed=6)
    draw = torch.tensor([[7, 0], [7, 1], [7, 2]])
    barred = torch.zeros(3, 32, dtype=torch.bool)
    ids = torch.arange(32, dtype=torch.int32) * 3
    slot = torch.tensor([1, 4, 2])
    whole = (X, WEIGHT, None, normal(32, seed=7), DOWN, UP, NORM)
    seen = forwarded(2, 3, 5, 1, 4, seed=1)
    bound, left = torch.full((2,), 0.5, dtype=torch.float64), torch.tensor([3, 9])
    sights = whole_sights([3])
    return {
        "lora_linear": (lora_linear, (*whole, normal(3, 32, seed=8), 2, EPS)),
        "lora_linear bare": (lora_linear, (X, WEIGHT, None, None, None, None, None, None, 0, EPS)),
        "gated_mlp": (gated_mlp, (X, WEIGHT, None, DOWN, UP, NORM, 1, EPS)),
        "qkv_rope": (qkv_rope, (*whole, cos, sin, slot, cache[0].clone(), cache[1].clone(), 1, EPS)),
        "span_attention": (span_attention, (normal(3, 2, 8), cache[0], cache[1], sights, 6)),
        "masked_head": (masked_head, (X, WEIGHT, None, NORM, EPS, barred, ids, draw, 0.7, 3, 1.4, False)),
        "masked_head sliced": (masked_head, (X, WEIGHT, None, None, EPS, None, None, None, 0.0, -1, 0.0, True)),
        "commit": (commit, flat("threshold", seen, bound, left, ENDS)),
    }


@pytest.mark.parametrize("name", calls())
def test_opcheck(name: str) -> None:
    op, arguments = calls()[name]
    torch.library.opcheck(op, arguments)


QKV, OUT, GATE_UP, MLP_DOWN = (normal(*s, seed=9, spread=0.2) for s in ((32, 16), (16, 16), (48, 16), (16, 24)))


def layer(x: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A decoder layer and its head, from nothing but our ops."""
    angle = torch.arange(3.0)[:, None] * torch.ones(8)
    slot, sights = torch.arange(3), whole_sights([3])
    q = qkv_rope(x, QKV, None, None, None, None, NORM, angle.cos(), angle.sin(), slot, k, v, 0, EPS)
    mixed = span_attention(q, k, v, sights, 3)
    x = lora_linear(mixed, OUT, None, None, None, None, None, x, 0, EPS)
    inner = gated_mlp(x, GATE_UP, None, None, None, NORM, 0, EPS)
    x = lora_linear(inner, MLP_DOWN, None, None, None, None, None, x, 0, EPS)
    return masked_head(x, WEIGHT, None, NORM, EPS, None, None, None, 0.0, -1, 0.0, False)[3]


def test_a_layer_compiles_without_a_break() -> None:
    caches = [[torch.zeros(1, 4, 8) for _ in range(2)] for _ in range(2)]
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.inference_mode():
        assert torch.equal(compiled(X, *caches[0]), layer(X, *caches[1]))
    assert torch.equal(caches[0][0], caches[1][0])
    assert caches[0][0].any()
