"""The fused kernels behind the denoising loop: a model's weights as `kernels.step` wants them, and sessions in it.

Chosen on a GPU where Triton runs (`DIFFCODE_KERNELS=torch` keeps it out). Draws at a temperature stay with torch, so
that the same seed gives the same bytes on every machine.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from diffcode.adapter import LowRank, SpanAdapter
from diffcode.backbone import Backbone, Layer
from diffcode.errors import BadOption
from diffcode.hub import cache_home
from diffcode.kernels import dispatch, tune
from diffcode.kernels.reference import Map, Norm
from diffcode.kernels.reference_commit import MASKED
from diffcode.kernels.step import Asked, LayerMaps, SpanWeights, StepWeights
from diffcode.kernels.stepper import Number, Stepper
from diffcode.policies import Guess, Origin
from diffcode.rows import Favours, Rows, allowed_tokens

# Probabilities and nats of two machines in bf16 after all layers; those of a wrong kernel are off by whole numbers.
# Of many rows some are near-ties that bf16 turns over; a tile of rows that is wrong is more than one in OUTLIERS.
ALIKE, OUTLIERS = 0.5, 20
FEW_AND_MANY = 4, 112  # rows: a tile of 16; two of 64, and enough for the sliced head


def stepper_for(backbone: Backbone, adapter: SpanAdapter | None, span_head_ND: Tensor | None) -> Stepper | None:
    """The kernels for a model, with the tiles that `diffcode tune` chose here; None where torch is to do its work."""
    s = backbone.shape
    probe = torch.empty(0, dtype=backbone.dtype, device=backbone.device)
    machines = (dispatch.machine("lora_linear", probe), dispatch.machine("span_attention", probe, s.head_width))
    if "torch" in machines:
        return None
    stepper = Stepper(step_weights(backbone, adapter, span_head_ND))
    if backbone.device.type == "cuda":
        tune.use_kept(tiles_folder(), torch.cuda.get_device_name(backbone.device))
        return stepper if trusted(stepper) else None
    return stepper


def trusted(stepper: Stepper) -> bool:
    """Whether the kernels run on this GPU and say of a few rows, and of many, what torch's ops say; warns where not.

    GPUs, drivers and compilers are many, and a wrong suggestion would not look like an error. Rows that are many take
    other tiles than few, and the head that is multiplied in slices.
    """
    trouble = next(filter(None, (_trouble(stepper, chain) for chain in FEW_AND_MANY)), "")
    if trouble:
        warnings.warn(f"the fused kernels do not work on this GPU ({trouble}): torch does their work", stacklevel=2)
    return not trouble


def _trouble(stepper: Stepper, chain: int) -> str:
    """What is wrong with a step of so many tokens, "" if nothing is."""
    window = 2 if stepper.weights.span else 0
    sights = [(i + 1, 0, 0) for i in range(chain)] + [(chain, chain, chain + window)] * window
    anchors, tokens = (chain - 1,) if window else (), [*range(5, 5 + chain)]
    asked = Asked(tokens + [MASKED] * window, range(chain + window), sights, anchors, window, chain)
    with stepper.lock:
        stretch = stepper.arena.take(chain + window)
        try:
            ours = stepper.said(asked, stretch.start, 0)[0].numbers()[:, 1:]
            with dispatch.torch_alone():
                torchs = stepper.said(asked, stretch.start, 0)[0].numbers()[:, 1:]
            off_R = (ours - torchs).abs().nan_to_num(torch.inf).amax(1)
            off = float(off_R.sort(descending=True).values[len(off_R) // OUTLIERS])
            return "" if off <= ALIKE else f"their numbers are off by {off:.2g}"
        except Exception as error:  # Triton's errors have no common base
            return (str(error).splitlines() or [type(error).__name__])[0]
        finally:
            stepper.arena.give(stretch)


def tiles_folder() -> Path:
    """Where tuned tiles are kept."""
    return cache_home() / "tiles"


def step_weights(backbone: Backbone, adapter: SpanAdapter | None, span_head_ND: Tensor | None) -> StepWeights:
    """The backbone's own tensors. Its gate and up maps are laid side by side, once."""
    layers, eps = [], backbone.shape.norm_eps
    for i, layer in enumerate(backbone.layers):
        gate_up = _side_by_side(layer)
        half = len(layer.gate_FD)
        backbone.layers[i] = replace(layer, gate_FD=gate_up[:half], up_FD=gate_up[half:])
        layers.append(_layer_maps(layer, gate_up, adapter.layers[i] if adapter else {}, eps))
    span = None
    if adapter is not None:
        assert span_head_ND is not None
        ids = None if adapter.kept_N is None else adapter.kept_N.int()
        low = adapter.successor
        span = SpanWeights(adapter.mask_D, Map(span_head_ND), ids, None if low is None else (low.down_rD, low.up_Er))
    s = backbone.shape
    return StepWeights(
        layers, Norm(backbone.norm_D, eps), backbone.embedding_VD, backbone.frequencies_K, Map(backbone.head_VD),
        s.kv_heads, s.head_width, span,
    )  # fmt: skip


def _side_by_side(layer: Layer) -> Tensor:
    """Gate and up as one map: a view where another stepper has laid them so, else a copy."""
    gate, up = layer.gate_FD, layer.up_FD
    together = gate.untyped_storage().data_ptr() == up.untyped_storage().data_ptr()
    if together and up.data_ptr() == gate.data_ptr() + gate.nbytes:
        return gate.as_strided((2 * len(gate), gate.shape[1]), gate.stride())
    return torch.cat([gate, up])


def _layer_maps(layer: Layer, gate_up: Tensor, low: Mapping[str, LowRank], eps: float) -> LayerMaps:
    def gated(name: str, weight: Tensor, bias: Tensor | None = None) -> Map:
        found = low.get(name)
        return Map(weight, None, bias, *((found.down_rD, found.up_Er) if found else (None, None)))

    return LayerMaps(
        Norm(layer.input_norm_D, eps), gated("qkv", layer.qkv_ED, layer.qkv_bias_E), gated("out", layer.out_DE),
        Norm(layer.post_norm_D, eps), gated("gate_up", gate_up), gated("down", layer.down_DF),
    )  # fmt: skip


class FusedSession:
    """`denoise.Session` over the kernels."""

    def __init__(self, stepper: Stepper, favours: Favours):
        self._stepper, self._favours = stepper, favours
        self._canvas = stepper.canvas()

    def keep(self, rows: int) -> None:
        self._canvas.length += rows

    def close(self) -> None:
        self._canvas.close()

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
        if rows.span_rows and self._stepper.weights.span is None:
            raise BadOption("span rows need a span adapter: load one, or use the policy verified or leftmost")
        shown = [MASKED if place is None else place for place in window]
        asked = Asked(
            tokens=[*fresh, *drafts, *shown * len(rows.anchors)],
            positions=rows.positions(self._canvas.length),
            sights=rows.sights(),
            anchors=rows.anchors,
            window=rows.window,
            base_rows=rows.drafts + 1,
            base_favour=self._favours.base,
            span_favour=self._favours.span,
        )
        vocabulary = len(self._stepper.weights.head.weight_ED)
        allowed_RV = allowed_tokens(allowed, vocabulary, self._stepper.device)
        base, spans = self._canvas.step(asked, None if allowed_RV is None else ~allowed_RV)
        found: list[tuple[Guess, ...]] = [()] * (rows.drafts + 1)
        for i, anchor in enumerate(rows.anchors):
            found[anchor] = _guesses(spans[i * rows.window : (i + 1) * rows.window], "span")
        return _guesses(base, "base"), tuple(found)


def _guesses(numbers: Sequence[Number], origin: Origin) -> tuple[Guess, ...]:
    return tuple(Guess(*four, origin) for four in numbers)
