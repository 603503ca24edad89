"""A Qwen2- or Llama-style decoder in torch, one forward a denoising step.

Rows come in two kinds. *Context rows* run the base weights under causal attention, and their keys and values stay in
the cache. *Span rows* stand behind them, run the base weights plus the span adapter, see what their mask lets them
see, and leave nothing behind. Shapes as in `kernels.reference`; L is the number of layers.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcode.adapter import LowRank, SpanAdapter
from diffcode.errors import ModelUnavailable
from diffcode.kernels import reference as ops
from diffcode.loading import ModelShape

# A row's result should not depend on the rows beside it: then `verified` equals left-to-right decoding in bf16 too, not
# only up to near-ties. On the CPU two things do it bitwise (measured, torch 2.13.0, 1 to 600 rows): keys in multiples
# of 512 for attention (its block; a row may still differ where the context crosses such a multiple, with 64 it did so
# at 256), and at least two rows for a linear map (one row takes another code path, which differs in 19 % of
# the rows of the widest map).
KEYS_MULTIPLE = 512
FEWEST_ROWS = 2


@dataclass(slots=True)
class KVCache:
    """Keys and values of the context rows of one canvas; `length` of the `capacity` places are filled."""

    k_LGSK: Tensor
    v_LGSK: Tensor
    length: int = 0

    @property
    def capacity(self) -> int:
        return self.k_LGSK.shape[2]

    def grow(self, needed: int) -> None:
        """Make room for `needed` places in all, keeping what is there."""
        if needed <= self.capacity:
            return
        extra = max(needed, self.capacity * 2) - self.capacity
        self.k_LGSK = F.pad(self.k_LGSK, (0, 0, 0, extra))
        self.v_LGSK = F.pad(self.v_LGSK, (0, 0, 0, extra))


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer's weights; maps with a common input are fused where that copies little."""

    input_norm_D: Tensor
    qkv_ED: Tensor
    qkv_bias_E: Tensor | None
    out_DE: Tensor
    post_norm_D: Tensor
    gate_FD: Tensor
    up_FD: Tensor
    down_DF: Tensor


class Backbone:
    """Weights of the base model and the forward over rows."""

    def __init__(self, shape: ModelShape, tensors: dict[str, Tensor], dtype: torch.dtype, device: torch.device):
        self.shape, self.dtype, self.device = shape, dtype, device
        _check_names(shape, tensors)
        self._tensors = tensors
        self.embedding_VD = self._take("model.embed_tokens.weight")
        self.head_VD = self._take("lm_head.weight") if "lm_head.weight" in tensors else self.embedding_VD
        self.norm_D = self._take("model.norm.weight")
        self.frequencies_K = rope_frequencies(shape).to(device)

    @cached_property
    def layers(self) -> list[Layer]:
        """Made when first asked for: the CPU engine has weights of its own."""
        return [self._layer(f"model.layers.{i}.") for i in range(self.shape.layers)]

    @property
    def numbers(self) -> int:
        """Weights of all linear maps and the head."""
        s = self.shape
        attention = 2 * s.width * (s.heads + s.kv_heads) * s.head_width
        return s.layers * (attention + 3 * s.width * s.ffn) + s.vocabulary * s.width

    def _layer(self, stem: str) -> Layer:
        take, qkv = self._take, [f"{stem}self_attn.{p}_proj" for p in "qkv"]
        biased = f"{qkv[0]}.bias" in self._tensors
        return Layer(
            input_norm_D=take(stem + "input_layernorm.weight"),
            qkv_ED=torch.cat([take(f"{n}.weight") for n in qkv]),
            qkv_bias_E=torch.cat([take(f"{n}.bias") for n in qkv]) if biased else None,
            out_DE=take(stem + "self_attn.o_proj.weight"),
            post_norm_D=take(stem + "post_attention_layernorm.weight"),
            gate_FD=take(stem + "mlp.gate_proj.weight"),
            up_FD=take(stem + "mlp.up_proj.weight"),
            down_DF=take(stem + "mlp.down_proj.weight"),
        )

    def _take(self, name: str) -> Tensor:
        return self._tensors[name].to(self.device, self.dtype)

    def merged(self, low_ranks: Sequence[Mapping[str, LowRank]]) -> "Backbone":
        """The same model with an adapter's maps (a layer each) added to copies of its weights."""
        other = copy.copy(self)
        other.layers = [_merged(layer, low) for layer, low in zip(self.layers, low_ranks, strict=True)]
        return other

    def new_cache(self, capacity: int) -> KVCache:
        shape = (self.shape.layers, self.shape.kv_heads, capacity, self.shape.head_width)
        empty = torch.zeros(shape, dtype=self.dtype, device=self.device)
        return KVCache(empty, torch.zeros_like(empty))

    def embed(self, ids: "list[int] | tuple[int, ...]") -> Tensor:
        """Input vectors of tokens, [R, D]."""
        return F.embedding(torch.tensor(ids, dtype=torch.long, device=self.device), self.embedding_VD)

    @torch.inference_mode()
    def forward(
        self,
        x_RD: Tensor,
        positions_R: Tensor,
        cache: KVCache,
        seen_RR: Tensor,
        span_rows: int = 0,
        adapter: SpanAdapter | None = None,
    ) -> Tensor:
        """Final hidden states of R new rows behind the cached context, normed and ready for the head, [R, D].

        Every row sees the whole cached context and the new rows that `seen_RR` allows. The last `span_rows` rows run
        with the adapter. Keys and values of all R rows are written behind `cache.length`, which is NOT moved: the
        caller adds what he keeps (`cache.length += kept`), the rest is overwritten by the next forward.
        """
        rows = x_RD.shape[0]
        end = cache.length + rows
        keys_end = -(-end // KEYS_MULTIPLE) * KEYS_MULTIPLE
        cache.grow(keys_end)
        cos_RK, sin_RK = self.rotary(positions_R)
        seen_RS = F.pad(F.pad(seen_RR, (cache.length, 0), value=True), (0, keys_end - end), value=False)
        for i, layer in enumerate(self.layers):
            low_rank = adapter.layers[i] if adapter is not None and span_rows else {}
            normed_RD = ops.rms_norm(x_RD, layer.input_norm_D, self.shape.norm_eps)
            q_RHK, k_RGK, v_RGK = self._qkv(layer, normed_RD, low_rank.get("qkv"), span_rows)
            cache.k_LGSK[i, :, cache.length : end] = ops.rotate(k_RGK, cos_RK, sin_RK).transpose(0, 1)
            cache.v_LGSK[i, :, cache.length : end] = v_RGK.transpose(0, 1)
            keys, values = cache.k_LGSK[i, :, :keys_end], cache.v_LGSK[i, :, :keys_end]
            mixed_RE = ops.span_attention(ops.rotate(q_RHK, cos_RK, sin_RK), keys, values, seen_RS)
            x_RD = x_RD + _linear(mixed_RE, layer.out_DE, low_rank.get("out"), span_rows)
            normed_RD = ops.rms_norm(x_RD, layer.post_norm_D, self.shape.norm_eps)
            x_RD = x_RD + self._mlp(layer, normed_RD, low_rank, span_rows)
        return ops.rms_norm(x_RD, self.norm_D, self.shape.norm_eps)

    def _qkv(self, layer: Layer, x_RD: Tensor, low: LowRank | None, span_rows: int) -> tuple[Tensor, Tensor, Tensor]:
        s = self.shape
        qkv_RE = _linear(x_RD, layer.qkv_ED, low, span_rows, layer.qkv_bias_E)
        heads_RNK = qkv_RE.view(x_RD.shape[0], s.heads + 2 * s.kv_heads, s.head_width)
        values_at = s.heads + s.kv_heads
        return heads_RNK[:, : s.heads], heads_RNK[:, s.heads : values_at], heads_RNK[:, values_at:]

    def _mlp(self, layer: Layer, x_RD: Tensor, low_rank: dict[str, LowRank], span_rows: int) -> Tensor:
        gate_RF, up_RF = F.linear(x_RD, layer.gate_FD), F.linear(x_RD, layer.up_FD)
        if low := low_rank.get("gate_up"):
            more_RF = ops.gated_low_rank(x_RD[-span_rows:], low.down_rD, low.up_Er)
            gate_RF[-span_rows:] += more_RF[:, : self.shape.ffn]
            up_RF[-span_rows:] += more_RF[:, self.shape.ffn :]
        return _linear(F.silu(gate_RF) * up_RF, layer.down_DF, low_rank.get("down"), span_rows)

    def rotary(self, positions_R: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of positions, [R, K] each."""
        angle_RK = torch.outer(positions_R.float(), self.frequencies_K).repeat(1, 2)
        return angle_RK.cos().to(self.dtype), angle_RK.sin().to(self.dtype)


def _merged(layer: Layer, low: Mapping[str, LowRank]) -> Layer:
    def added(weight: Tensor, name: str, rows: slice = slice(None)) -> Tensor:
        if name not in low:
            return weight
        delta = low[name].up_Er[rows].float() @ low[name].down_rD.float()
        return (weight.float() + delta.to(weight.device)).to(weight.dtype)

    return replace(
        layer,
        qkv_ED=added(layer.qkv_ED, "qkv"),
        out_DE=added(layer.out_DE, "out"),
        gate_FD=added(layer.gate_FD, "gate_up", slice(len(layer.gate_FD))),
        up_FD=added(layer.up_FD, "gate_up", slice(len(layer.gate_FD), None)),
        down_DF=added(layer.down_DF, "down"),
    )


def _linear(
    x_RD: Tensor, weight_ED: Tensor, low: LowRank | None, span_rows: int, bias_E: Tensor | None = None
) -> Tensor:
    """`x W^T + b`, plus the low-rank term on the last `span_rows` rows."""
    rows = x_RD.shape[0]
    wide_RD = x_RD if rows >= FEWEST_ROWS else x_RD.expand(FEWEST_ROWS, -1).contiguous()
    y_RE = F.linear(wide_RD, weight_ED, bias_E)[:rows]
    if low is not None:
        y_RE[-span_rows:] += ops.gated_low_rank(x_RD[-span_rows:], low.down_rD, low.up_Er)
    return y_RE


def _check_names(shape: ModelShape, tensors: Mapping[str, Tensor]) -> None:
    """Every tensor that the model needs, and no other. Raises ModelUnavailable."""
    maps: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
    maps += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm", "post_attention_layernorm")
    stems = [f"model.layers.{i}." for i in range(shape.layers)]
    needed = {"model.embed_tokens.weight", "model.norm.weight"} | {f"{s}{m}.weight" for s in stems for m in maps}
    biases = {f"{s}self_attn.{p}_proj.bias" for s in stems for p in "qkv"}
    if biases & tensors.keys():
        needed |= biases
    if missing := needed - tensors.keys():
        raise ModelUnavailable(f"the weights have no tensor {min(missing)!r}: the folder is damaged, fetch it again")
    known = needed | {"lm_head.weight"}
    unknown = {name for name in tensors if name not in known and not name.endswith("rotary_emb.inv_freq")}
    if unknown:  # say, biases that Llama may have: leaving them out would change every answer
        raise ModelUnavailable(f"tensor {min(unknown)!r} is unknown: diffcode runs plain Qwen2 and Llama models")


def rope_frequencies(shape: ModelShape) -> Tensor:
    """Inverse frequencies of the rotary embedding, [K / 2], fp32; `llama3` scaling as in Llama 3.1's release."""
    exponent = torch.arange(0, shape.head_width, 2, dtype=torch.int64).float() / shape.head_width
    plain: Tensor = shape.rope_base**-exponent
    scaling = shape.rope_scaling
    if scaling is None:
        return plain
    if scaling.get("rope_type", scaling.get("type")) != "llama3":
        raise ModelUnavailable(f"rotary scaling {scaling} is not supported: take a model with none, or with llama3's")
    try:
        factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
        turns = scaling["original_max_position_embeddings"] * plain / (2 * math.pi)
    except KeyError as missing:
        raise ModelUnavailable(f"the rotary scaling in config.json has no {missing}: fetch the folder again") from None
    blend = ((turns - low) / (high - low)).clamp(0, 1)
    scaled: Tensor = plain / factor * (1 - blend) + plain * blend
    return scaled
