"""The span adapter from its file to the fused maps that the backbone runs."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from diffcode.adapter import ADAPTERS, SpanAdapter, low_rank_maps, peft_maps
from diffcode.engine import DEFAULT_MODEL, Model
from diffcode.errors import ModelUnavailable
from tests import tiny

SETTINGS = tiny.config(num_hidden_layers=3)
CPU = torch.device("cpu")
GROUPS = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}


def load(folder: Path, layers: int = 3, dtype: torch.dtype = torch.float32) -> SpanAdapter:
    return SpanAdapter.load(folder, layers, dtype, CPU)


def added(tensors: dict[str, Tensor], layer: int, group: str, x: Tensor, scale: float) -> Tensor:
    """What the adapter adds to a fused map, one PEFT map after the other: `scale * B (A x)`."""
    found = []
    for name in GROUPS[group]:
        stem = f"base_model.model.model.layers.{layer}.{name}"
        down, up = (tensors[f"{stem}.lora_{m}.weight"].double() for m in "AB")
        found.append(scale * (x.double() @ down.T) @ up.T)
    return torch.cat(found, dim=-1)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("shared", [True, False], ids=["shared A", "separate A"])
@pytest.mark.parametrize("alpha", [4.0, 1.0, 10.0])
def test_fused_maps_equal_the_single_maps(group: str, shared: bool, alpha: float, tmp_path: Path) -> None:
    tensors = tiny.adapter_tensors(SETTINGS, rank=4, shared=shared)
    adapter = load(tiny.write_adapter(tmp_path, tensors, rank=4, alpha=alpha))
    assert len(adapter.layers) == 3
    for layer, maps in enumerate(adapter.layers):
        low = maps[group]
        x = torch.randn(5, low.down_rD.shape[1], generator=torch.Generator().manual_seed(layer))
        ours = x @ low.down_rD.T @ low.up_Er.T
        assert (ours - added(tensors, layer, group, x, alpha / 4)).abs().max() < 1e-4


def test_a_shared_projection_runs_once(tmp_path: Path) -> None:
    shared = load(tiny.write_adapter(tmp_path / "a", tiny.adapter_tensors(SETTINGS, rank=4, shared=True)))
    separate = load(tiny.write_adapter(tmp_path / "b", tiny.adapter_tensors(SETTINGS, rank=4, shared=False)))
    ranks = {
        name: (shared.layers[0][name].down_rD.shape[0], separate.layers[0][name].down_rD.shape[0]) for name in GROUPS
    }
    assert ranks == {"qkv": (4, 12), "out": (4, 4), "gate_up": (4, 8), "down": (4, 4)}


def test_one_map_of_its_own_among_shared_ones_is_kept_apart(tmp_path: Path) -> None:
    tensors = tiny.adapter_tensors(SETTINGS, shared=True)
    name = "base_model.model.model.layers.1.self_attn.v_proj.lora_A.weight"
    tensors[name] = tensors[name] + 1
    low = load(tiny.write_adapter(tmp_path, tensors, alpha=4.0)).layers[1]["qkv"]
    x = torch.randn(5, 64)
    assert (x @ low.down_rD.T @ low.up_Er.T - added(tensors, 1, "qkv", x, 1.0)).abs().max() < 1e-4


def test_mask_vector_and_kept_tokens_come_along(tmp_path: Path) -> None:
    tensors = tiny.adapter_tensors(SETTINGS, kept=(9, 3, 200))
    adapter = load(tiny.write_adapter(tmp_path, tensors))
    assert torch.equal(adapter.mask_D, tensors["mask_embedding"])
    assert adapter.kept_N is not None
    assert adapter.kept_N.tolist() == [3, 9, 200]
    assert adapter.kept_N.dtype == torch.int64


def test_kept_tokens_may_be_absent(tmp_path: Path) -> None:
    assert load(tiny.write_adapter(tmp_path, tiny.adapter_tensors(SETTINGS))).kept_N is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_adapter_comes_in_the_dtype_asked_for(dtype: torch.dtype, tmp_path: Path) -> None:
    adapter = load(tiny.write_adapter(tmp_path, tiny.adapter_tensors(SETTINGS)), dtype=dtype)
    assert adapter.mask_D.dtype == dtype
    assert {t.dtype for maps in adapter.layers for low in maps.values() for t in (low.down_rD, low.up_Er)} == {dtype}


def test_bf16_weights_are_scaled_before_they_are_rounded_again(tmp_path: Path) -> None:
    """alpha / r need not be a power of two, and asking for float32 should then give it."""
    tensors = {k: v.bfloat16() for k, v in tiny.adapter_tensors(SETTINGS, rank=4).items()}
    low = load(tiny.write_adapter(tmp_path, tensors, rank=4, alpha=1.3)).layers[0]["out"]
    x = torch.randn(5, 64)
    exact = added(tensors, 0, "out", x, 1.3 / 4)
    error = float((x @ low.down_rD.T @ low.up_Er.T - exact).abs().max())
    assert error < 1e-5 * float(exact.abs().max())


def test_the_shipped_adapter_loads() -> None:
    folder = ADAPTERS / DEFAULT_MODEL
    adapter = load(folder, layers=24)
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert adapter.mask_D.shape == (896,)
    assert adapter.mask_D.isfinite().all()
    assert adapter.kept_N is not None
    kept = adapter.kept_N.tolist()
    assert kept == sorted(set(kept))
    assert 0 <= kept[0] <= kept[-1] < 151_936
    assert 151_643 in kept, "a span row must be able to end the text"
    for layer in (0, 11, 23):
        for group in GROUPS:
            low = adapter.layers[layer][group]
            x = torch.randn(3, low.down_rD.shape[1], generator=torch.Generator().manual_seed(layer))
            gold = added(tensors, layer, group, x, settings["lora_alpha"] / settings["r"])
            assert gold.abs().max() > 0, "this map was never trained"
            assert (x @ low.down_rD.T @ low.up_Er.T - gold).abs().max() < 1e-4 * max(1, float(gold.abs().max()))


def refused(folder: Path, layers: int = 3) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        load(folder, layers)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


@pytest.mark.parametrize("part", ["mask_embedding", "layers.1.mlp.up_proj.lora_A", "layers.2.self_attn.q_proj.lora_B"])
def test_a_missing_tensor_is_named(part: str, tmp_path: Path) -> None:
    tensors = {k: v for k, v in tiny.adapter_tensors(SETTINGS).items() if part not in k}
    assert part in refused(tiny.write_adapter(tmp_path, tensors))


def test_an_adapter_for_fewer_layers_is_refused(tmp_path: Path) -> None:
    assert "layers.3" in refused(tiny.write_adapter(tmp_path, tiny.adapter_tensors(SETTINGS)), layers=4)


def test_folders_that_hold_no_adapter_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty")
    refused(tiny.write_model(tmp_path / "model"))


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_half_an_adapter_is_refused(name: str, tmp_path: Path) -> None:
    (tiny.write_adapter(tmp_path, tiny.adapter_tensors(SETTINGS)) / name).unlink()
    refused(tmp_path)


@pytest.mark.parametrize("size", [0, 7, 100, 3000, -1])
def test_cut_off_weights_are_refused(size: int, tmp_path: Path) -> None:
    path = tiny.write_adapter(tmp_path, tiny.adapter_tensors(SETTINGS)) / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    refused(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "\xff", "{}", '{"r": 4}', '{"r": 0, "lora_alpha": 1}', '{"r": "4", "lora_alpha": 1}'],
)
def test_a_config_without_a_scale_is_refused(text: str, tmp_path: Path) -> None:
    tiny.write_adapter(tmp_path, tiny.adapter_tensors(SETTINGS))
    (tmp_path / "adapter_config.json").write_bytes(text.encode("latin1"))
    refused(tmp_path)


def test_pickled_adapters_are_not_read(tmp_path: Path) -> None:
    path = tiny.write_adapter(tmp_path, tiny.adapter_tensors(SETTINGS)) / "adapter_model.safetensors"
    torch.save({}, tmp_path / "adapter_model.bin")
    path.unlink()
    refused(tmp_path)


@pytest.mark.parametrize(
    "tensors",
    [
        tiny.adapter_tensors(tiny.config(hidden_size=80, intermediate_size=112)),
        tiny.adapter_tensors(tiny.config(intermediate_size=112)),
        tiny.adapter_tensors(tiny.config(num_key_value_heads=4)),
        tiny.adapter_tensors(tiny.config(), kept=(0, 5, tiny.VOCABULARY)),
    ],
    ids=["wider", "wider inside", "more groups", "larger vocabulary"],
)
def test_an_adapter_for_another_base_is_refused(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    base = tiny.write_model(tmp_path / "base")
    other = tiny.write_adapter(tmp_path / "other", tensors)
    with pytest.raises(ModelUnavailable) as caught:
        Model.load(str(base), str(other))
    assert str(other) in str(caught.value)
    assert "\n" not in str(caught.value)


# --- adapters without a mask: those that are merged ---


def test_low_rank_maps_need_no_mask_vector(tmp_path: Path) -> None:
    tensors = tiny.adapter_tensors(SETTINGS, rank=4)
    whole = load(tiny.write_adapter(tmp_path / "span", tensors, alpha=3.0))
    del tensors["mask_embedding"]
    maps = low_rank_maps(tiny.write_adapter(tmp_path / "infill", tensors, alpha=3.0), 3)
    for ours, theirs in zip(maps, whole.layers, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name].up_Er, theirs[name].up_Er) for name in ours)
        assert all(torch.equal(ours[name].down_rD, theirs[name].down_rD) for name in ours)


def test_an_adapter_without_a_mask_is_no_span_adapter(tmp_path: Path) -> None:
    tensors = {name: t for name, t in tiny.adapter_tensors(SETTINGS).items() if name != "mask_embedding"}
    assert "mask_embedding" in refused(tiny.write_adapter(tmp_path, tensors))


def test_peft_maps_are_named_by_the_weight_they_add_to(tmp_path: Path) -> None:
    tensors = {name: t for name, t in tiny.adapter_tensors(SETTINGS, rank=4).items() if name != "mask_embedding"}
    found = peft_maps(tiny.write_adapter(tmp_path, {n: t.bfloat16() for n, t in tensors.items()}, alpha=1.3))
    assert len(found) == 3 * 7
    for name, low in found.items():
        down, up = (tensors[f"base_model.model.{name}.lora_{m}.weight"].bfloat16().float() for m in "AB")
        assert torch.equal(low.down_rD, down)
        assert torch.equal(low.up_Er, up * (1.3 / 4))
