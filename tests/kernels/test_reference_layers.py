"""The specifications of whole layers' ops: against the backbone that computes them today, and formulas by hand."""

import random

import pytest
import tiny
import torch
from closeness import normal

from diffcode.backbone import Backbone
from diffcode.kernels import reference as ops
from diffcode.kernels.reference import Cache, Map, Norm
from diffcode.loading import ModelShape
from diffcode.rows import Rows


def test_widen_gives_every_group_its_scale() -> None:
    weight = torch.tensor([[1, -2, 3, 4], [5, 6, -7, 8]], dtype=torch.int8)
    scales = torch.tensor([[0.5, 2.0], [1.0, 0.25]])
    wide = ops.widen(weight, scales, torch.float32)
    assert wide.tolist() == [[0.5, -1.0, 6.0, 8.0], [5.0, 6.0, -1.75, 2.0]]
    assert ops.widen(wide, None, torch.float16).dtype == torch.float16


@pytest.mark.parametrize("span_rows", [0, 1, 4])
def test_lora_linear_equals_merged_weights_on_span_rows(span_rows: int) -> None:
    x, w, b = normal(4, 12), normal(6, 12, seed=1), normal(6, seed=2)
    down, up, residual = normal(3, 12, seed=3), normal(6, 3, seed=4), normal(4, 6, seed=5)
    norm = Norm(1 + normal(12, seed=6, spread=0.2), 1e-6)
    out = ops.lora_linear(x, Map(w, None, b, down, up), norm=norm, span_rows=span_rows, residual_RE=residual)
    normed = ops.rms_norm(x, norm.weight_D, norm.eps)
    for row in range(4):
        full = w + up @ down if row >= 4 - span_rows else w
        assert torch.allclose(out[row], full @ normed[row] + b + residual[row], atol=1e-4)


def test_gated_mlp_equals_its_formula() -> None:
    x, gate_up = normal(3, 8), normal(10, 8, seed=1)
    both = x.double() @ gate_up.double().T
    gate, up = both[:, :5], both[:, 5:]
    assert torch.allclose(ops.gated_mlp(x, Map(gate_up)).double(), gate * torch.sigmoid(gate) * up, atol=1e-5)


def test_the_ops_put_together_are_the_backbone(tmp_path) -> None:
    """Context and span rows of a tiny model, every map from its op, the sights instead of a mask."""
    settings = tiny.config()
    shape = ModelShape.from_config(settings, tmp_path)
    backbone = Backbone(shape, tiny.weights(settings), torch.float32, torch.device("cpu"))
    rows, length = Rows(2, 1, 3, (0, 1)), 5
    cache = backbone.new_cache(512)
    past = backbone.embed(range(10, 10 + length))
    backbone.forward(past, torch.arange(length), cache, torch.ones(length, length, dtype=torch.bool).tril())
    cache.length = length
    mine = [Cache(cache.k_LGSK[i].clone(), cache.v_LGSK[i].clone()) for i in range(shape.layers)]
    x = backbone.embed(range(30, 30 + rows.chain + rows.span_rows))
    positions = torch.tensor(rows.positions(length))
    wanted = backbone.forward(x, positions, cache, rows.seen())
    cos, sin = backbone.rotary(positions)
    slot = torch.arange(length, length + len(x))
    seen = ops.seen_places(ops.span_sights(rows.sights(), length), length + len(x))
    for layer, kept in zip(backbone.layers, mine, strict=True):
        eps = shape.norm_eps
        qkv = Map(layer.qkv_ED, None, layer.qkv_bias_E)
        q = ops.qkv_rope(x, qkv, cos, sin, slot, kept, norm=Norm(layer.input_norm_D, eps))
        k, v = (t[:, : length + len(x)] for t in (kept.k_GPK, kept.v_GPK))
        x = ops.lora_linear(ops.span_attention(q, k, v, seen), Map(layer.out_DE), residual_RE=x)
        gate_up = Map(torch.cat([layer.gate_FD, layer.up_FD]))
        inner = ops.gated_mlp(x, gate_up, norm=Norm(layer.post_norm_D, eps))
        x = ops.lora_linear(inner, Map(layer.down_DF), residual_RE=x)
    assert torch.allclose(ops.rms_norm(x, backbone.norm_D, shape.norm_eps), wanted, atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_sights_say_what_the_mask_says(seed: int) -> None:
    r = random.Random(seed)
    drafts = r.randint(0, 4)
    rows = Rows(
        r.randint(1, 3), drafts, r.randint(1, 4), tuple(sorted(r.sample(range(drafts + 1), r.randint(1, drafts + 1))))
    )
    length, start = r.randint(0, 9), r.randint(0, 4)
    new = rows.chain + rows.span_rows
    seen = ops.seen_places(ops.span_sights(rows.sights(), length, start), start + length + new + 2)
    assert not seen[:, :start].any()
    assert seen[:, start : start + length].all()
    assert torch.equal(seen[:, start + length : start + length + new], rows.seen())
    assert not seen[:, start + length + new :].any()


def test_whole_and_block_sights() -> None:
    whole = ops.seen_places(ops.whole_sights([2, 3]), 6)
    assert whole.int().tolist() == [[1, 1, 0, 0, 0, 0]] * 2 + [[0, 0, 1, 1, 1, 0]] * 3
    block = ops.seen_places(ops.block_sights(5, 2), 5)
    assert block.int().tolist() == [[1, 1, 0, 0, 0]] * 2 + [[1, 1, 1, 1, 0]] * 2 + [[1] * 5]


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # kat_vectors of Random123, philox4x32 10
        ((0,) * 4, (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_words(
    counter: tuple[int, ...], key: tuple[int, int], words: tuple[int, ...]
) -> None:
    found = ops.philox([torch.tensor([c]) for c in counter], *(torch.tensor([k]) for k in key))
    assert tuple(int(word) for word in found) == words


def test_counted_gumbel_is_gumbel_and_depends_on_seed_place_and_token_alone() -> None:
    draw = torch.tensor([[3, 0], [3, 1], [4, 0], [2**40 + 3, 0]])
    noise = ops.counted_gumbel(draw, 4000)
    assert noise.isfinite().all()
    assert abs(float(noise.mean()) - 0.5772) < 0.05, "Euler's constant"
    assert abs(float(noise.var()) - 1.6449) < 0.1, "pi^2 / 6"
    assert len({tuple(row.tolist()) for row in noise}) == 4
    ids = torch.tensor([7, 3999, 0], dtype=torch.int32)
    assert torch.equal(ops.counted_gumbel(draw[1:2], 3, ids), noise[1:2, [7, 3999, 0]])
