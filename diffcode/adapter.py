"""The span adapter: LoRA weights that act on span rows only, and the input vector of a masked place.

File format: PEFT's names and `adapter_config.json`, plus tensors of our own: `mask_embedding` [D], `kept_tokens` [N]
(the vocabulary rows that the span rows' head was trained on) and, where there is one, the successor map
(`successor_down` [H, 2 D], `successor_up` [D, H]).
"""

import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from diffcode.errors import ModelUnavailable

ADAPTERS = Path(__file__).parent / "adapters"  # shipped in the package, one folder a base model
# Maps that read the same input run as one: (name of the fused map, PEFT names in the order of the output rows).
FUSED = (
    ("qkv", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    ("out", ("self_attn.o_proj",)),
    ("gate_up", ("mlp.gate_proj", "mlp.up_proj")),
    ("down", ("mlp.down_proj",)),
)


@dataclass(frozen=True, slots=True)
class LowRank:
    """One fused map's addition: `(x down^T) up^T`, the scale alpha / r folded into `up`."""

    down_rD: Tensor
    up_Er: Tensor


@dataclass(frozen=True, slots=True)
class SpanAdapter:
    """Everything that makes span rows differ from context rows."""

    layers: tuple[dict[str, LowRank], ...]  # by the fused names; a map without an entry is left as it is
    mask_D: Tensor
    kept_N: Tensor | None  # int64, ascending; None: the whole vocabulary
    successor: LowRank | None = None  # `kernels.reference.successor`'s two matrices
    agrees: tuple[float, ...] = ()  # by distance: how often the base confirmed its guesses on held-out code

    @classmethod
    def load(cls, folder: Path, layers: int, dtype: torch.dtype, device: torch.device) -> "SpanAdapter":
        """Read a folder with `adapter_model.safetensors` and `adapter_config.json`; ModelUnavailable if it is off."""
        tensors, scale = _read(folder)
        parts = _layers(folder, tensors, scale, layers, dtype, device)
        if "mask_embedding" not in tensors:
            raise ModelUnavailable(f"{folder} has no tensor 'mask_embedding': it is no span adapter")
        mask_D = tensors["mask_embedding"].to(device, dtype)
        kept_N = tensors.get("kept_tokens")
        successor = None
        if "successor_down" in tensors and "successor_up" in tensors:
            down, up = (tensors[f"successor_{end}"].to(device, dtype) for end in ("down", "up"))
            successor = LowRank(down, up)
        kept_N = None if kept_N is None else kept_N.long().sort().values.to(device)
        return cls(parts, mask_D, kept_N, successor, _agrees(folder))

    def outline(self) -> "SpanAdapter":
        """Without the maps, but for the first layer's, which say of what kind they were; lets go of the file, 30 MB."""
        first = {name: LowRank(low.down_rD.clone(), low.up_Er.clone()) for name, low in self.layers[0].items()}
        kept_N = None if self.kept_N is None else self.kept_N.clone()
        return replace(self, layers=(first,), mask_D=self.mask_D.clone(), kept_N=kept_N, successor=None)


def low_rank_maps(
    folder: Path, layers: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> tuple[dict[str, LowRank], ...]:
    """The low-rank maps of any adapter in PEFT's form, by layer and fused name. Raises ModelUnavailable."""
    tensors, scale = _read(folder)
    return _layers(folder, tensors, scale, layers, dtype, device or torch.device("cpu"))


def _agrees(folder: Path) -> tuple[float, ...]:
    """What the trainer noted of its last validation, nothing where it did not."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf8"))
    found = config.get("diffcode", {}).get("validation", {})
    names = (f"agrees_{distance}" for distance in itertools.count(1))
    return tuple(float(found[name]) for name in itertools.takewhile(found.__contains__, names))


def _layers(
    folder: Path, tensors: dict[str, Tensor], scale: float, layers: int, dtype: torch.dtype, device: torch.device
) -> tuple[dict[str, LowRank], ...]:
    try:
        return tuple(_layer(tensors, i, scale, dtype, device) for i in range(layers))
    except KeyError as missing:
        raise ModelUnavailable(f"{folder} has no tensor {missing}: it is no adapter for this base model") from None


def peft_maps(folder: Path) -> dict[str, LowRank]:
    """An adapter's maps in fp32 by the weight they add to, such as `model.layers.0.mlp.up_proj`."""
    tensors, scale = _read(folder)
    if "mask_embedding" in tensors:
        raise ModelUnavailable(f"{folder} is a span adapter, not one to be merged: give it with --adapter")
    found = {}
    for name, down_rD in tensors.items():
        if name.endswith(".lora_A.weight"):
            stem = name.removesuffix(".lora_A.weight")
            if f"{stem}.lora_B.weight" not in tensors:
                raise ModelUnavailable(f"{folder} has {name} but not its other half: the file is damaged")
            up_Er = tensors[f"{stem}.lora_B.weight"].float() * scale
            found[stem.removeprefix("base_model.model.")] = LowRank(down_rD.float(), up_Er)
    return found


def undoing(folder: Path, layers: int) -> tuple[dict[str, LowRank], ...] | None:
    """What takes an adapter out of weights that it was merged into, as maps beside them; None where it lacks some of
    FUSED. Raises ModelUnavailable."""
    tensors, scale = _read(folder)
    if sum(name.endswith(".lora_A.weight") for name in tensors) < layers * sum(len(names) for _, names in FUSED):
        return None
    merged = _layers(folder, tensors, scale, layers, torch.float32, torch.device("cpu"))
    return tuple({name: LowRank(low.down_rD, -low.up_Er) for name, low in layer.items()} for layer in merged)


def _read(folder: Path) -> tuple[dict[str, Tensor], float]:
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf8"))
        with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        return tensors, config["lora_alpha"] / config["r"]
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError, SafetensorError) as error:
        raise ModelUnavailable(
            f"{folder} is no adapter ({error}): it needs adapter_config.json and adapter_model.safetensors"
        ) from error


def _layer(
    tensors: dict[str, Tensor], layer: int, scale: float, dtype: torch.dtype, device: torch.device
) -> dict[str, LowRank]:
    stem = f"base_model.model.model.layers.{layer}."
    fused = {}
    for name, maps in FUSED:
        downs = [tensors[f"{stem}{m}.lora_A.weight"] for m in maps]
        ups = [tensors[f"{stem}{m}.lora_B.weight"].float() * scale for m in maps]
        shared = all(torch.equal(downs[0], d) for d in downs[1:])
        down_rD = downs[0] if shared else torch.cat(downs)
        up_Er = torch.cat(ups) if shared else _block_diagonal(ups)
        fused[name] = LowRank(down_rD.to(device, dtype), up_Er.to(device, dtype).contiguous())
    return fused


def _block_diagonal(parts: list[Tensor]) -> Tensor:
    joined: Tensor = torch.block_diag(*parts)
    return joined
