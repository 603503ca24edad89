"""The decoder as a module that learns: frozen or trainable base weights, and low-rank maps beside them.

The same weights and ops as `diffcode.backbone`, but over many texts at once (their rows laid end to end, no padding)
and with gradients. Shapes as in `kernels.reference`; R rows of all texts, r the rank of the low-rank maps.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diffcode.adapter import FUSED, LowRank
from diffcode.backbone import Backbone, Layer
from diffcode.training import gradients as ops

T = TypeVar("T")
# (layer, q [R, H, K], k [R, G, K], v [R, G, K]) -> mixed values [R, H * K]
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


class Sizes(NamedTuple):
    """The sizes that a layer needs to know of itself."""

    heads: int
    kv_heads: int
    head_width: int
    ffn: int
    norm_eps: float


class LowRankMap(nn.Module):
    """A LoRA map, `x down^T up^T`. Masters are fp32; they are cast to the rows' format where they are used."""

    def __init__(self, inputs: int, outputs: int, rank: int, generator: torch.Generator):
        super().__init__()
        # As in Hu et al. 2021: down is drawn, up is zero, so that training begins at the base. Scale alpha / r is 1.
        drawn = torch.randn(rank, inputs, generator=generator) / math.sqrt(inputs)
        self.down_rD = nn.Parameter(drawn)
        self.up_Er = nn.Parameter(torch.zeros(outputs, rank))

    def load(self, low: LowRank) -> None:
        """Start from an adapter's map instead, whatever its rank."""
        self.down_rD = nn.Parameter(low.down_rD.float().clone())
        self.up_Er = nn.Parameter(low.up_Er.float().clone())

    def forward(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Both factors in the format of `like`."""
        return self.down_rD.to(like.dtype), self.up_Er.to(like.dtype)


class DecoderLayer(nn.Module):
    """One layer over flat rows."""

    def __init__(
        self,
        layer: Layer,
        sizes: Sizes,
        rank: int,
        train_base: bool,
        generator: torch.Generator,
        recompute: bool = False,
    ):
        super().__init__()
        self.sizes, self.recompute = sizes, recompute
        for name in Layer.__slots__:
            value = getattr(layer, name)
            if value is not None:
                # Full fine-tuning keeps fp32 masters too: bf16 would round most updates away.
                value = value.float().clone() if train_base else value
                value = nn.Parameter(value, requires_grad=train_base)
            self.register_parameter(name, value)
        width = layer.out_DE.shape[0]
        shapes = {
            "qkv": (width, len(layer.qkv_ED)),
            "out": (layer.out_DE.shape[1], width),
            "gate_up": (width, 2 * sizes.ffn),
            "down": (sizes.ffn, width),
        }
        self.low_rank = nn.ModuleDict(
            {name: LowRankMap(*shapes[name], rank, generator) for name, _ in FUSED} if rank else {}
        )

    def forward(
        self, x_RD: Tensor, cos_RK: Tensor, sin_RK: Tensor, attend: Attend, index: int, adapted: bool
    ) -> Tensor:
        if self.recompute and torch.is_grad_enabled():  # in here, where FSDP has brought the weights together
            again: Tensor = checkpoint(self._rows, x_RD, cos_RK, sin_RK, attend, index, adapted, use_reentrant=False)
            return again
        return self._rows(x_RD, cos_RK, sin_RK, attend, index, adapted)

    def _rows(self, x_RD: Tensor, cos_RK: Tensor, sin_RK: Tensor, attend: Attend, index: int, adapted: bool) -> Tensor:
        s = self.sizes
        normed_RD = ops.rms_norm(x_RD, self._weight("input_norm_D", x_RD), s.norm_eps)
        qkv_RE = self._linear(normed_RD, "qkv_ED", "qkv", adapted, self._weight("qkv_bias_E", x_RD))
        heads_RNK = qkv_RE.view(len(x_RD), s.heads + 2 * s.kv_heads, s.head_width)
        q_RHK, k_RGK, v_RGK = heads_RNK.split([s.heads, s.kv_heads, s.kv_heads], dim=1)
        mixed_RE = attend(index, ops.rotate(q_RHK, cos_RK, sin_RK), ops.rotate(k_RGK, cos_RK, sin_RK), v_RGK)
        x_RD = x_RD + self._linear(mixed_RE, "out_DE", "out", adapted)
        normed_RD = ops.rms_norm(x_RD, self._weight("post_norm_D", x_RD), s.norm_eps)
        gate_RF, up_RF = self._gate_and_up(normed_RD, adapted)
        return x_RD + self._linear(ops.gated(gate_RF, up_RF), "down_DF", "down", adapted)

    def _gate_and_up(self, x_RD: Tensor, adapted: bool) -> tuple[Tensor, Tensor]:
        """Their low-rank map is one; its halves go with the maps that they belong to."""
        weights = self._weight("gate_FD", x_RD), self._weight("up_FD", x_RD)
        if not (adapted and "gate_up" in self.low_rank):
            gate_RF, up_RF = (F.linear(x_RD, weight_FD) for weight_FD in weights)
        else:
            down_rD, up_Er = self.low_rank["gate_up"](x_RD)
            halves = zip(weights, up_Er.split(self.sizes.ffn), strict=True)
            gate_RF, up_RF = (ops.linear(x_RD, weight_FD, None, down_rD, up_Fr) for weight_FD, up_Fr in halves)
        return gate_RF, up_RF

    def _linear(self, x_RD: Tensor, weight: str, low: str, adapted: bool, bias_E: Tensor | None = None) -> Tensor:
        weight_ED = self._weight(weight, x_RD)
        if not (adapted and low in self.low_rank):
            return F.linear(x_RD, weight_ED, bias_E)
        return ops.linear(x_RD, weight_ED, bias_E, *self.low_rank[low](x_RD))

    def _weight(self, name: str, like: Tensor) -> Tensor:
        value: Tensor | None = getattr(self, name)
        return value if value is None else value.to(like.dtype)  # type: ignore[return-value]


class Decoder(nn.Module):
    """All layers; `forward` gives final hidden states, normed and ready for the head."""

    def __init__(self, backbone: Backbone, rank: int, seed: int = 0, train_base: bool = False, recompute: bool = False):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        s = backbone.shape
        sizes = Sizes(s.heads, s.kv_heads, s.head_width, s.ffn, s.norm_eps)
        self.layers = nn.ModuleList(
            DecoderLayer(layer, sizes, rank, train_base, generator, recompute) for layer in backbone.layers
        )
        self.backbone = backbone
        tied = backbone.head_VD is backbone.embedding_VD

        def weight(value: Tensor) -> nn.Parameter:
            return nn.Parameter(value.float().clone() if train_base else value, requires_grad=train_base)

        self.embedding_VD = weight(backbone.embedding_VD)
        self.head_VD = self.embedding_VD if tied else weight(backbone.head_VD)
        self.norm_D = weight(backbone.norm_D)

    def begin_from(self, layers: Sequence[Mapping[str, LowRank]]) -> None:
        """Take over an adapter's low-rank maps, a layer each."""
        for layer, low_ranks in zip(self.layers, layers, strict=True):
            for name, low in low_ranks.items():
                layer.get_submodule(f"low_rank.{name}").load(low)  # type: ignore[operator]

    def embed(self, ids_R: Tensor) -> Tensor:
        return F.embedding(ids_R, self.embedding_VD).to(self.backbone.dtype)

    def forward(self, x_RD: Tensor, positions_R: Tensor, attend: Attend, adapted: bool = True) -> Tensor:
        cos_RK, sin_RK = self.backbone.rotary(positions_R)
        for i, layer in enumerate(self.layers):
            x_RD = layer(x_RD, cos_RK, sin_RK, attend, i, adapted)
        return ops.rms_norm(x_RD, self.norm_D.to(x_RD.dtype), self.backbone.shape.norm_eps)


class Whole(nn.Module):
    """Does work that needs these modules' own weights: embedding, last norm and head, which lie outside the layers.

    Alone it just does it. Under FSDP this is the root: calling it brings those weights together, and a backward pass
    begins at the tensors that it gave back.
    """

    def __init__(self, *parts: nn.Module):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, work: Callable[[], T]) -> T:
        return work()


class CausalAttention:
    """Every text attends to itself, left to right; keeps keys and values when asked to."""

    def __init__(self, lengths: list[int], keep: bool = False):
        self.lengths, self.keep = lengths, keep
        self.kept: list[tuple[Tensor, Tensor]] = []  # a layer each: k, v [R, G, K]

    def __call__(self, layer: int, q_RHK: Tensor, k_RGK: Tensor, v_RGK: Tensor) -> Tensor:
        if self.keep:
            self.kept.append((k_RGK, v_RGK))
        parts = zip(*(x.split(self.lengths) for x in (q_RHK, k_RGK, v_RGK)), strict=True)
        return torch.cat([ops.attention(q, k, v, None) for q, k, v in parts])


class SpanAttention:
    """Spans behind several starts of each text: a span sees the base's keys left of its start, and itself both ways."""

    def __init__(self, lengths: list[int], kept: list[tuple[Tensor, Tensor]], starts: list[Tensor], window: int):
        self.lengths, self.kept = lengths, kept
        self.sizes = [len(s) * window for s in starts]
        self.seen = [_seen(s, n, window) for s, n in zip(starts, lengths, strict=True)]

    def __call__(self, layer: int, q_RHK: Tensor, k_RGK: Tensor, v_RGK: Tensor) -> Tensor:
        context = zip(*(x.split(self.lengths) for x in self.kept[layer]), strict=True)
        spans = zip(*(x.split(self.sizes) for x in (q_RHK, k_RGK, v_RGK)), strict=True)
        return torch.cat(
            [
                ops.attention(q, torch.cat((before_k, k)), torch.cat((before_v, v)), seen)
                for (before_k, before_v), (q, k, v), seen in zip(context, spans, self.seen, strict=True)
            ]
        )


def _seen(starts_N: Tensor, length: int, window: int) -> Tensor:
    """Which keys (the text's, then all span rows) each span row of a text sees, bool [N W, length + N W]."""
    context_NS = torch.arange(length, device=starts_N.device) < starts_N[:, None]
    span = torch.arange(len(starts_N), device=starts_N.device).repeat_interleave(window)
    return torch.cat((context_NS.repeat_interleave(window, 0), span[:, None] == span), dim=1)
