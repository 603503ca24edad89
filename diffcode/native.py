"""The CPU engine behind the denoising loop: a model's weights packed to 8 bits, and sessions in it.

The packed base is written once beside the merged weights and memory-mapped, so that processes share it; a span adapter
is small and packed when it is loaded.
"""

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffcode.adapter import SpanAdapter
from diffcode.backbone import Backbone
from diffcode.errors import ModelUnavailable
from diffcode.hub import cache_home
from diffcode.kernels.cpu.engine import (
    MAPS,
    Engine,
    EngineAdapter,
    EngineLayer,
    EngineShape,
    EngineStep,
    EngineWeights,
)
from diffcode.kernels.pack import BLOCK, PackedLinear, pack_linear
from diffcode.loading import weights_identity
from diffcode.policies import Guess
from diffcode.rows import Noise, Rows, allowed_tokens, noise_at

FORMAT = 1  # of the packed file
MASKED = -1


def packed_weights(backbone: Backbone, file: Path) -> EngineWeights:
    """The backbone's maps in 8 bits, from `file`, which is made on first use. Raises ModelUnavailable."""
    s = backbone.shape
    if s.width % BLOCK or (s.heads * s.head_width) % 4 or s.ffn % 4 or backbone.device.type != "cpu":
        raise ModelUnavailable(f"the CPU engine runs models whose width divides by {BLOCK}, on a CPU: leave it out")
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        if not file.exists():
            _write(backbone, file)
    with safe_open(file, framework="pt") as opened:
        stored = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
    shape = EngineShape(s.layers, s.width, s.heads, s.kv_heads, s.head_width, s.ffn, s.vocabulary, s.norm_eps)
    layers = [
        EngineLayer(
            layer.input_norm_D.float(),
            layer.post_norm_D.float(),
            {name: _stored(stored, f"layers.{i}.{name}") for name in MAPS},
        )
        for i, layer in enumerate(backbone.layers)
    ]
    norm_D, embedding_VD = backbone.norm_D.float(), backbone.embedding_VD.to(torch.bfloat16)
    return EngineWeights(shape, layers, norm_D, embedding_VD, backbone.frequencies_K, _stored(stored, "head"))


def packed_adapter(adapter: SpanAdapter, head_ND: Tensor) -> EngineAdapter:
    """A span adapter in 8 bits; `head_ND` are its kept rows of the head."""
    low_rank = [
        {name: (pack_linear(low.down_rD), pack_linear(low.up_Er)) for name, low in layer.items()}
        for layer in adapter.layers
    ]
    successor = adapter.successor
    return EngineAdapter(
        low_rank,
        adapter.mask_D.float(),
        pack_linear(head_ND),
        None if adapter.kept_N is None else adapter.kept_N.int(),
        None if successor is None else (pack_linear(successor.down_rD), pack_linear(successor.up_Er)),
    )


def packed_name(folder: Path) -> Path:
    """Where the packed weights of a model's folder lie; the name changes with the folder's weights."""
    digest = hashlib.sha256(repr((FORMAT, str(folder.resolve()), weights_identity(folder))).encode()).hexdigest()[:12]
    return cache_home() / "packed" / f"{folder.name}-{digest}.safetensors"


def _write(backbone: Backbone, file: Path) -> None:
    tensors: dict[str, Tensor] = {}
    for i, layer in enumerate(backbone.layers):
        gate_up = torch.cat([layer.gate_FD, layer.up_FD])
        maps = {"qkv": (layer.qkv_ED, layer.qkv_bias_E), "out": (layer.out_DE, None), "gate_up": (gate_up, None)}
        for name, (weight, bias) in (maps | {"down": (layer.down_DF, None)}).items():
            tensors |= _named(f"layers.{i}.{name}", pack_linear(weight, bias))
    tensors |= _named("head", pack_linear(backbone.head_VD))
    handle, part = tempfile.mkstemp(prefix=f"{file.name}.", dir=file.parent)
    os.close(handle)
    try:
        save_file(tensors, part, metadata={"format": "pt", "diffcode": str(FORMAT)})
        os.replace(part, file)
    finally:
        Path(part).unlink(missing_ok=True)


def _named(name: str, packed: PackedLinear) -> dict[str, Tensor]:
    parts = {"weights": packed.weights, "scales": packed.scales, "outputs": torch.tensor(packed.outputs)}
    if packed.bias is not None:
        parts["bias"] = packed.bias
    return {f"{name}.{part}": tensor for part, tensor in parts.items()}


def _stored(stored: Mapping[str, Tensor], name: str) -> PackedLinear:
    outputs = int(stored[f"{name}.outputs"])
    return PackedLinear(stored[f"{name}.weights"], stored[f"{name}.scales"], stored.get(f"{name}.bias"), outputs)


class NativeSession:
    """`denoise.Session` over the CPU engine."""

    def __init__(self, engine: Engine, kept_N: Tensor | None, noise: Noise | None, temperature: float):
        self._session, self._vocabulary = engine.session(), engine.shape.vocabulary
        self._kept_N, self._noise, self._temperature = kept_N, noise, temperature
        self._length = 0

    def keep(self, rows: int) -> None:
        self._length += rows

    def step(
        self,
        fresh: Sequence[int],
        drafts: Sequence[int],
        window: Sequence[int | None],
        anchors: Sequence[int],
        first_place: int,
        allowed: Sequence[list[int] | None],
    ) -> tuple[tuple[Guess, ...], tuple[tuple[Guess, ...], ...]]:
        rows = Rows(len(fresh), len(drafts), len(window), tuple(anchors) if window else ())
        shown = [MASKED if place is None else place for place in window]
        base, spans, _ = self._session.step(
            EngineStep(
                context=self._length,
                tokens=[*fresh, *drafts, *shown * len(rows.anchors)],
                positions=rows.positions(self._length),
                seen_RR=rows.seen(),
                span_rows=rows.span_rows,
                base_first=rows.chain - rows.drafts - 1,
                base_rows=rows.drafts + 1,
                window=shown,
                anchor_base=rows.anchors,
                temperature=self._temperature,
                allowed_RV=allowed_tokens(allowed, self._vocabulary, torch.device("cpu")),
                base_noise_RV=noise_at(self._noise, range(first_place, first_place + rows.drafts + 1)),
                span_noise_RN=noise_at(self._noise, rows.span_places(first_place), self._kept_N),
            )
        )
        found: list[tuple[Guess, ...]] = [()] * (rows.drafts + 1)
        for i, anchor in enumerate(rows.anchors):
            mine = spans[i * rows.window : (i + 1) * rows.window]
            found[anchor] = tuple(Guess(*guess, "span") for guess in mine)
        return tuple(Guess(*guess, "base") for guess in base), tuple(found)
