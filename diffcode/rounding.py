"""A model's maps rounded for the CPU engine: to bf16 or 8 bits each by itself, to fewer by what they read in code.

In the last case the model runs over some thousand tokens of canvases, layer by layer with what is already rounded,
and each map is fitted to the rows that reach it (kernels/fit.py). The texts are this package's own modules.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcode.backbone import Backbone
from diffcode.kernels import reference as ops
from diffcode.kernels.fit import Moments, fit
from diffcode.kernels.pack import Form, PackedLinear, group_of, pack_linear, pack_numbers, unpack_linear
from diffcode.tokens import Tokens

CANVASES = 48  # 13,000 tokens. Twice as many as 24, for 12 % less error of int4; from 9,000 to 27,000 it falls by 6 %
WINDOW = 24  # lines of a canvas
HOLES = (1, 6)  # lines of the middle
Named = Iterator[tuple[str, PackedLinear]]


def rounded(backbone: Backbone, tokens: Tokens, form: Form) -> Named:
    """Every map that the engine reads, "layers.0.qkv" to "head"."""
    return plain(backbone, form) if form.bits >= 8 else fitted(backbone, canvases(tokens, CANVASES), form)


def plain(backbone: Backbone, form: Form) -> Named:
    for i, layer in enumerate(backbone.layers):
        gate_up = torch.cat([layer.gate_FD, layer.up_FD])
        maps = {"qkv": (layer.qkv_ED, layer.qkv_bias_E), "out": (layer.out_DE, None), "gate_up": (gate_up, None)}
        for name, (weight, bias) in (maps | {"down": (layer.down_DF, None)}).items():
            yield f"layers.{i}.{name}", pack_linear(weight, bias, form)
    yield "head", pack_linear(backbone.head_VD, None, form)


@torch.inference_mode()
def fitted(backbone: Backbone, texts: Sequence[Sequence[int]], form: Form) -> Named:
    """Rows of all texts go through a layer together, in fp32: torch's bf16 is slow on many a machine."""
    eps, lengths = backbone.shape.norm_eps, [len(text) for text in texts]
    x_RD = backbone.embed([token for text in texts for token in text]).float()
    for i, layer in enumerate(backbone.layers):
        normed_RD = ops.rms_norm(x_RD, layer.input_norm_D.float(), eps)
        qkv = _map(layer.qkv_ED, layer.qkv_bias_E, normed_RD, form)
        mixed_RE = _attention(backbone, _apply(qkv, normed_RD), lengths)
        out = _map(layer.out_DE, None, mixed_RE, form)
        x_RD = x_RD + _apply(out, mixed_RE)
        normed_RD = ops.rms_norm(x_RD, layer.post_norm_D.float(), eps)
        gate_up = _map(torch.cat([layer.gate_FD, layer.up_FD]), None, normed_RD, form)
        gate_RF, up_RF = _apply(gate_up, normed_RD).chunk(2, dim=1)
        inner_RF = F.silu(gate_RF) * up_RF
        down = _map(layer.down_DF, None, inner_RF, form)
        x_RD = x_RD + _apply(down, inner_RF)
        for name, packed in (("qkv", qkv), ("out", out), ("gate_up", gate_up), ("down", down)):
            yield f"layers.{i}.{name}", packed
    yield "head", _map(backbone.head_VD, None, ops.rms_norm(x_RD, backbone.norm_D.float(), eps), form)


def _map(weight_ED: Tensor, bias_E: Tensor | None, x_RD: Tensor, form: Form) -> PackedLinear:
    group = group_of(weight_ED.shape[1], form.group)
    if group % 8:
        return pack_linear(weight_ED, bias_E, form)
    moments = Moments(weight_ED.shape[1], group)
    moments.add(x_RD)
    return pack_numbers(*fit(weight_ED, moments, form.bits, group), bias_E, form.bits)


def _apply(packed: PackedLinear, x_RD: Tensor) -> Tensor:
    return F.linear(x_RD, unpack_linear(packed), packed.bias if packed.bias is None else packed.bias[: packed.outputs])


def _attention(backbone: Backbone, qkv_RE: Tensor, lengths: Sequence[int]) -> Tensor:
    """Each text by itself, causally."""
    s = backbone.shape
    mixed = []
    for qkv_TE in qkv_RE.split(list(lengths)):
        rows = len(qkv_TE)
        q_THK, k_TGK, v_TGK = qkv_TE.view(rows, -1, s.head_width).split([s.heads, s.kv_heads, s.kv_heads], 1)
        cos_TK, sin_TK = (part.float() for part in backbone.rotary(torch.arange(rows)))
        q_THK, k_TGK = (ops.rotate(x, cos_TK, sin_TK) for x in (q_THK, k_TGK))
        seen_TT = torch.ones(rows, rows, dtype=torch.bool).tril()
        mixed.append(ops.span_attention(q_THK, k_TGK.transpose(0, 1), v_TGK.transpose(0, 1), seen_TT))
    return torch.cat(mixed)


def canvases(tokens: Tokens, count: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Texts as the model meets them, suffix first (canvas.py), with what belongs into the hole and an end behind it."""
    rng = random.Random(seed)
    texts = [file.read_text(encoding="utf8") for file in sorted(Path(__file__).parent.rglob("*.py"))]
    texts = [text for text in texts if text.count("\n") > 2 * WINDOW]
    return [_canvas(rng.choice(texts), rng, tokens) for _ in range(count)]


def _canvas(text: str, rng: random.Random, tokens: Tokens) -> tuple[int, ...]:
    lines = text.splitlines(keepends=True)
    first = rng.randrange(len(lines) - WINDOW)
    window = lines[first : first + WINDOW]
    start = rng.randrange(WINDOW // 4, WINDOW - HOLES[1])
    end = start + rng.randint(*HOLES)
    prefix, middle, suffix = (tokens.encode("".join(p)) for p in (window[:start], window[start:end], window[end:]))
    return (*tokens.fim.canvas(suffix, prefix), *middle, tokens.fim.end)
