"""An adapter merged into weights: the sum itself, made once, made anew when anything changed."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffcode import merge
from diffcode.engine import Model
from diffcode.errors import ModelUnavailable
from diffcode.loading import folder_of, unpacked_name
from diffcode.merge import fingerprint, is_current, merged_folder, merged_name, merged_tensors

SETTINGS = tiny.config()
MAPS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
MAPS += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIFFCODE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def infill_tensors(seed: int = 1, *, shared: bool = True) -> dict[str, Tensor]:
    """As stage infill saves one: low-rank maps and nothing else."""
    tensors = tiny.adapter_tensors(SETTINGS, seed=seed, shared=shared)
    return {name: t for name, t in tensors.items() if "lora_" in name}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny.write_model(tmp_path / "base")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return tiny.write_adapter(tmp_path / "infill", infill_tensors(), alpha=6.0)


# ---- the sum


@pytest.mark.parametrize("shared", [True, False], ids=["shared A", "separate A"])
@pytest.mark.parametrize("alpha", [4.0, 1.3])
def test_every_map_gets_its_product_and_nothing_else_changes(
    shared: bool, alpha: float, base: Path, tmp_path: Path
) -> None:
    low = infill_tensors(shared=shared)
    folder = tiny.write_adapter(tmp_path / "a", low, alpha=alpha)
    found, plain, seen = merged_tensors(base, folder), tiny.weights(SETTINGS), 0
    assert found.keys() == plain.keys()
    for name, weight in plain.items():
        if name.removesuffix(".weight").endswith(MAPS):
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            down, up = (low[f"{stem}.lora_{m}.weight"].double() for m in "AB")
            gold = weight.double() + alpha / 4 * up @ down
            assert torch.allclose(found[name].double(), gold, atol=1e-5), name
            assert (found[name] - weight).abs().max() > 0.1
            seen += 1
        else:
            assert torch.equal(found[name], weight), name
    assert seen == 14


def test_bf16_weights_are_rounded_once(tmp_path: Path) -> None:
    """In the file's format, from the sum in fp32."""
    base, low = tiny.write_model(tmp_path / "base"), infill_tensors()
    save_file({n: t.bfloat16() for n, t in tiny.weights(SETTINGS).items()}, base / "model.safetensors")
    adapter = tiny.write_adapter(tmp_path / "a", {n: t.bfloat16() for n, t in low.items()}, alpha=1.3)
    name = "model.layers.1.mlp.down_proj"
    down, up = (low[f"base_model.model.{name}.lora_{m}.weight"].bfloat16().float() for m in "AB")
    gold = (tiny.weights(SETTINGS)[f"{name}.weight"].bfloat16().float() + up * (1.3 / 4) @ down).bfloat16()
    found = merged_tensors(base, adapter)
    assert found[f"{name}.weight"].dtype == torch.bfloat16
    assert torch.equal(found[f"{name}.weight"], gold)


def test_an_adapter_may_leave_maps_out(base: Path, tmp_path: Path) -> None:
    low = {name: t for name, t in infill_tensors().items() if "down_proj" in name}
    found = merged_tensors(base, tiny.write_adapter(tmp_path / "a", low))
    changed = {name for name, weight in tiny.weights(SETTINGS).items() if not torch.equal(found[name], weight)}
    assert changed == {f"model.layers.{i}.mlp.down_proj.weight" for i in (0, 1)}


# ---- the folder


def test_a_model_loads_with_its_adapter_merged(base: Path, adapter: Path) -> None:
    model = Model.load(str(base), dtype="float32", infill=str(adapter))
    gold = merged_tensors(base, adapter)
    assert torch.equal(model.backbone.layers[1].down_DF, gold["model.layers.1.mlp.down_proj.weight"])
    plain = Model.load(str(base), dtype="float32", infill="none")
    assert torch.equal(plain.backbone.layers[1].down_DF, tiny.weights(SETTINGS)["model.layers.1.mlp.down_proj.weight"])
    assert model.tokens.fim == plain.tokens.fim
    assert Model.load(str(base), dtype="float32").backbone.layers[0].up_FD.equal(plain.backbone.layers[0].up_FD)


def test_it_is_made_once(base: Path, adapter: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = merged_folder(base, adapter)
    before = {path.name: path.stat().st_mtime_ns for path in target.iterdir()}
    assert set(before) == {"config.json", "tokenizer.json", "model.safetensors", "merged.json"}
    monkeypatch.setattr(merge, "merged_tensors", lambda *_: pytest.fail("made again"))
    assert merged_folder(base, adapter) == target
    assert {path.name: path.stat().st_mtime_ns for path in target.iterdir()} == before
    assert target.is_relative_to(home)


def test_two_adapters_lie_side_by_side(base: Path, adapter: Path, tmp_path: Path) -> None:
    other = tiny.write_adapter(tmp_path / "other", infill_tensors(2))
    scaled = tiny.write_adapter(tmp_path / "scaled", infill_tensors(1), alpha=7.0)
    folders = [merged_folder(base, a) for a in (adapter, other, scaled)]
    assert len(set(folders)) == 3
    assert len({fingerprint(a) for a in (adapter, other, scaled)}) == 3
    weights = [load_file(f / "model.safetensors")["model.layers.0.mlp.up_proj.weight"] for f in folders]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_copy_of_an_adapter_needs_no_second_merge(base: Path, adapter: Path, tmp_path: Path) -> None:
    copy = tiny.write_adapter(tmp_path / "copy", infill_tensors(), alpha=6.0)
    assert merged_folder(base, adapter) == merged_folder(base, copy)


def test_other_weights_under_the_same_name_are_merged_anew(base: Path, adapter: Path) -> None:
    first = load_file(merged_folder(base, adapter) / "model.safetensors")["model.embed_tokens.weight"]
    time.sleep(0.02)
    tiny.write_model(base, seed=5)
    assert not is_current(merged_name(base, adapter), base)
    second = load_file(merged_folder(base, adapter) / "model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(second, tiny.weights(SETTINGS, 5)["model.embed_tokens.weight"])
    assert not torch.equal(first, second)


def test_models_of_one_name_in_two_folders_do_not_share_a_merge(adapter: Path, tmp_path: Path) -> None:
    """Else two projects would throw out each other's merge all the time."""
    folders = [tiny.write_model(tmp_path / name / "model", seed=seed) for name, seed in (("a", 1), ("b", 2))]
    merged = [merged_folder(folder, adapter) for folder in folders]
    assert merged[0] != merged[1]
    assert [is_current(m, f) for m, f in zip(merged, folders, strict=True)] == [True, True]


def test_a_damaged_merge_is_made_anew(base: Path, adapter: Path) -> None:
    target = merged_folder(base, adapter)
    for text in ("", "{", "[]", "{}"):
        (target / "merged.json").write_text(text)
        assert merged_folder(base, adapter) == target
        assert json.loads((target / "merged.json").read_text())["adapter"] == fingerprint(adapter)


def test_a_merge_that_is_cut_leaves_nothing(
    base: Path, adapter: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(merge.shutil, "copyfile", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            merged_folder(base, adapter)
    assert [path.name for path in (home / "merged").iterdir() if not path.name.endswith(".lock")] == []
    assert merged_folder(base, adapter).is_dir()


# ---- GGUF files


def test_a_gguf_file_is_unpacked_and_merged(adapter: Path, tmp_path: Path) -> None:
    gguf = tiny.write_gguf(tmp_path / "m.gguf")
    model = Model.load(str(gguf), dtype="float32", infill=str(adapter))
    gold = merged_tensors(folder_of(gguf), adapter)
    assert torch.equal(model.backbone.layers[0].up_FD, gold["model.layers.0.mlp.up_proj.weight"].float())


def test_the_unpacked_folder_may_be_deleted(adapter: Path, tmp_path: Path) -> None:
    """The merged one is enough from then on: it saves a gigabyte."""
    gguf = tiny.write_gguf(tmp_path / "m.gguf")
    first = Model.load(str(gguf), dtype="float32", infill=str(adapter)).backbone.layers[0].up_FD
    shutil.rmtree(unpacked_name(gguf))
    again = Model.load(str(gguf), dtype="float32", infill=str(adapter)).backbone.layers[0].up_FD
    assert torch.equal(again, first)
    assert not unpacked_name(gguf).exists()


def test_another_file_of_the_same_name_is_another_model(adapter: Path, tmp_path: Path) -> None:
    """Two folders with a model.gguf each: the second may not be answered with the first one's weights."""
    for name, seed in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        tiny.write_gguf(tmp_path / name / "model.gguf", seed=seed)
    found = [
        Model.load(str(tmp_path / name / "model.gguf"), dtype="float32", infill=str(adapter)).backbone.embedding_VD
        for name in "ab"
    ]
    for embedding, seed in zip(found, (1, 2), strict=True):
        assert torch.equal(embedding, tiny.weights(SETTINGS, seed)["model.embed_tokens.weight"].bfloat16().float())


# ---- two at once

PROGRAM = """
import sys
from pathlib import Path
from diffcode import merge
real = merge.merged_tensors
def slow(folder, adapter):
    import time
    time.sleep(0.5)
    print("made", flush=True)
    return real(folder, adapter)
merge.merged_tensors = slow
print(merge.merged_folder(Path(sys.argv[1]), Path(sys.argv[2])))
"""


def test_two_processes_make_it_once(base: Path, adapter: Path, home: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(base), str(adapter)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) for _ in range(2)]
    said = [child.communicate(timeout=60)[0].splitlines() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    target = str(merged_name(base, adapter))
    assert sorted(said) == sorted([["made", target], [target]])
    assert is_current(Path(target), base)


# ---- what cannot be merged


def refused(base: Path, adapter: Path) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        merged_folder(base, adapter)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert not is_current(merged_name(base, adapter), base) if (adapter / "adapter_config.json").exists() else True
    return message


def test_a_folder_without_an_adapter_is_named(base: Path, tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in refused(base, tmp_path / "nowhere")
    assert str(base) in refused(base, base)


@pytest.mark.parametrize(
    "changes", [{"hidden_size": 80}, {"intermediate_size": 112}, {"num_hidden_layers": 3}], ids=lambda c: next(iter(c))
)
def test_an_adapter_for_another_base_is_named(changes: dict[str, int], base: Path, tmp_path: Path) -> None:
    tensors = tiny.adapter_tensors(tiny.config(**changes))
    other = tiny.write_adapter(tmp_path / "other", {n: t for n, t in tensors.items() if "lora_" in n})
    assert str(other) in refused(base, other)


def test_a_span_adapter_is_no_infilling_adapter(base: Path, tmp_path: Path) -> None:
    """It was trained for span rows: merged, it would spoil every row without a word."""
    span = tiny.write_adapter(tmp_path / "span", tiny.adapter_tensors(SETTINGS))
    message = refused(base, span)
    assert str(span) in message
    assert "--adapter" in message


def test_half_a_map_is_named(base: Path, tmp_path: Path) -> None:
    low = infill_tensors()
    del low["base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"]
    assert "layers.1.mlp.up_proj" in refused(base, tiny.write_adapter(tmp_path / "half", low))


@pytest.mark.parametrize("size", [0, 100, -1])
def test_a_damaged_adapter_is_named(size: int, base: Path, adapter: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert str(adapter) in refused(base, adapter)


def test_a_cache_that_cannot_be_written_says_what_to_do(base: Path, adapter: Path, home: Path) -> None:
    home.write_text("a file")
    assert "DIFFCODE_HOME" in refused(base, adapter)


def test_a_model_without_its_tokenizer_is_not_called_a_full_disk(base: Path, adapter: Path) -> None:
    (base / "tokenizer.json").unlink()
    message = refused(base, adapter)
    assert "tokenizer.json" in message
    assert "free" not in message
