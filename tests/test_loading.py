"""From files to tensors: what is read, what is refused, and what a kill or a full disk leaves behind."""

import functools
import inspect
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from diffcode import loading
from diffcode.backbone import Backbone
from diffcode.engine import Model
from diffcode.errors import ModelUnavailable
from diffcode.loading import folder_of, open_folder
from diffcode.tokens import Tokens
from tests import tiny

TEXTS = ("", "def é return():\n    x = 1\r\n", "世界 🙂\t\x00\x7f", "<|fim_middle|> is text", "ﬁ ½ e\u0301")


def refused(call: Any, *arguments: Any) -> str:
    """The message of a refusal, which is one line."""
    with pytest.raises(ModelUnavailable) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- GGUF files ---


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}], ids=["tied", "untied"])
def test_tensors_of_a_gguf_file_come_out_rounded_to_bf16(changes: dict[str, Any], tmp_path: Path) -> None:
    path = tiny.write_gguf(tmp_path / "m.gguf", seed=3, **changes)
    shape, tensors = open_folder(folder_of(path))
    gold = tiny.weights(tiny.config(**changes), seed=3)
    assert tensors.keys() == gold.keys()
    for name, tensor in gold.items():
        assert torch.equal(tensors[name], tensor.bfloat16()), name
    assert (shape.architecture, shape.layers, shape.width, shape.ffn) == ("qwen2", 2, 64, 96)
    assert (shape.heads, shape.kv_heads, shape.head_width, shape.vocabulary) == (4, 2, 16, tiny.VOCABULARY)
    assert shape.norm_eps == pytest.approx(1e-6)
    assert (shape.rope_base, shape.rope_scaling) == (10000.0, None)


def test_quantised_tensors_come_out_dequantised(tmp_path: Path) -> None:
    path = tiny.write_gguf(tmp_path / "m.gguf", quantised=True)
    _, tensors = open_folder(folder_of(path))
    for name, tensor in tiny.weights(tiny.config()).items():
        exact = tensor.numpy()
        if tensor.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            exact = gguf.dequantize(gguf.quantize(exact, kind), kind)
            assert not np.array_equal(exact, tensor.numpy())
        assert torch.equal(tensors[name], torch.from_numpy(exact).bfloat16()), name


def test_a_gguf_file_runs_as_the_folder_it_was_made_from(tmp_path: Path) -> None:
    """The same logits from both forms, in fp32 and in bf16."""
    path, folder = tiny.write_gguf(tmp_path / "m.gguf"), tiny.write_model(tmp_path / "hf")
    for dtype in (torch.float32, torch.bfloat16):
        found = []
        for shape, tensors in (open_folder(folder_of(path)), open_folder(folder)):
            rounded = {name: tensor.bfloat16() for name, tensor in tensors.items()}
            model = Backbone(shape, rounded, dtype, torch.device("cpu"))
            causal = torch.ones(20, 20, dtype=torch.bool).tril()
            found.append(model.forward(model.embed(range(20)), torch.arange(20), model.new_cache(20), causal))
            assert found[-1].dtype == dtype
        # The rotary base and eps pass through fp32 in a GGUF file, hence no exact equality.
        assert (found[0] - found[1]).float().abs().max() < (1e-4 if dtype == torch.float32 else 0.1)


def test_the_vocabulary_of_a_gguf_file_round_trips(tmp_path: Path) -> None:
    tokens = Tokens.from_folder(folder_of(tiny.write_gguf(tmp_path / "m.gguf")))
    assert (tokens.fim.prefix, tokens.fim.middle, tokens.fim.suffix) == (tiny.PREFIX, tiny.MIDDLE, tiny.SUFFIX)
    assert tokens.fim.end == tiny.END
    for text in TEXTS:
        ids = tokens.encode(text)
        assert tokens.decode_bytes(ids) == text.encode()
        assert max(ids, default=0) < len(tiny.TEXTS), "text became a control token"
    assert len(tokens.encode("def")) == 1, "merges were lost"
    assert all(tokens.is_end(token) for token in range(tiny.END, tiny.VOCABULARY))
    assert not any(tokens.is_end(token) for token in range(tiny.END))


def test_the_vocabulary_of_a_gguf_file_equals_the_published_form(tmp_path: Path) -> None:
    """The same tables as a `tokenizer.json` that the tokenizers library wrote."""
    from tokenizers import Tokenizer

    ours = Tokens.from_folder(folder_of(tiny.write_gguf(tmp_path / "m.gguf")))
    theirs = Tokenizer.from_file(str(tiny.write_tokenizer(tmp_path) / "tokenizer.json"))
    for text in (*TEXTS[:3], inspect.getsource(json.decoder)):
        assert ours.encode(text) == theirs.encode(text).ids
    opened = Tokenizer.from_file(str(folder_of(tmp_path / "m.gguf") / "tokenizer.json"))
    assert opened.encode("<|fim_middle|>").ids == [tiny.MIDDLE], "other programs see the control tokens"
    assert opened.decode([0, tiny.MIDDLE, tiny.VOCABULARY - 1]) == tiny.TEXTS[0], "and leave them out of a text"
    assert opened.get_vocab(with_added_tokens=False).keys() == set(tiny.TEXTS)


def test_a_second_call_writes_nothing(tmp_path: Path) -> None:
    path = tiny.write_gguf(tmp_path / "m.gguf")
    first = {f: f.stat() for f in folder_of(path).iterdir()}
    assert {f: f.stat() for f in folder_of(path).iterdir()} == first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.bf16", "m.bf16.lock", "m.gguf"]


def test_a_changed_file_is_unpacked_anew(tmp_path: Path) -> None:
    path = tiny.write_gguf(tmp_path / "m.gguf", seed=1)
    folder_of(path)
    tiny.write_gguf(path, seed=2)  # the same size, another time
    os.utime(path, ns=(1, 1))
    _, tensors = open_folder(folder_of(path))
    assert torch.equal(tensors["model.norm.weight"], tiny.weights(tiny.config(), 2)["model.norm.weight"].bfloat16())


def test_a_folder_without_readable_config_is_made_anew(tmp_path: Path) -> None:
    path = tiny.write_gguf(tmp_path / "m.gguf")
    (folder_of(path) / "config.json").write_bytes(b"{")
    assert len(open_folder(folder_of(path))[1]) == len(tiny.weights(tiny.config()))


@pytest.mark.parametrize("failure", [KeyboardInterrupt, MemoryError, OSError(28, "No space left on device")])
@pytest.mark.parametrize("stage", ["save_file", "bpe_tokenizer"])
def test_a_failure_half_way_leaves_nothing(
    failure: Any, stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny.write_gguf(tmp_path / "m.gguf")

    def fail(_: Any, target: Any, **__: Any) -> None:
        if isinstance(target, Path):
            target.write_bytes(b"half")
        raise failure

    monkeypatch.setattr(loading, stage, fail)
    with pytest.raises(ModelUnavailable if isinstance(failure, OSError) else failure):
        folder_of(path)
    assert {p.name for p in tmp_path.iterdir()} <= {"m.gguf", "m.bf16.lock"}
    monkeypatch.undo()
    assert len(open_folder(folder_of(path))[1]) == len(tiny.weights(tiny.config()))


def test_a_failure_over_an_older_folder_leaves_the_older_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny.write_gguf(tmp_path / "m.gguf", seed=1)
    before = sorted((f.name, f.stat().st_mtime_ns) for f in folder_of(path).iterdir())
    tiny.write_gguf(path, seed=2)
    monkeypatch.setattr(loading, "bpe_tokenizer", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        folder_of(path)
    assert sorted((f.name, f.stat().st_mtime_ns) for f in path.with_suffix(".bf16").iterdir()) == before


UNPACK = """
import sys, time
from pathlib import Path
from diffcode import loading
write = loading.save_file
def slow(tensors, path, **more):
    write(tensors, path, **more)
    print("half", flush=True)
    time.sleep(float(sys.argv[2]))
loading.save_file = slow
folder = loading.folder_of(Path(sys.argv[1]))
print((folder / "model.safetensors").stat().st_ino, flush=True)
"""


def unpacking(path: Path, pause: float, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", UNPACK, str(path), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_a_killed_unpacking_is_made_good_by_the_next(tmp_path: Path) -> None:
    path = tiny.write_gguf(tmp_path / "m.gguf")
    process = unpacking(path, 60)
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not path.with_suffix(".bf16").exists()
    assert len(open_folder(folder_of(path))[1]) == len(tiny.weights(tiny.config()))
    left = {p.name for p in tmp_path.iterdir()} - {"m.gguf", "m.bf16", "m.bf16.lock"}
    assert not left, "1.3 GB for the default model, each time somebody is killed"


def test_two_processes_at_once_unpack_one_time(tmp_path: Path) -> None:
    path = tiny.write_gguf(tmp_path / "m.gguf")
    both = [unpacking(path, 1) for _ in range(2)]
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum(out.count("half") for out, _ in said) == 1
    assert len({out.split()[-1] for out, _ in said}) == 1, "they opened different files"


def test_a_full_disk_is_said_in_one_line(tmp_path: Path) -> None:
    """A limit on the size of a file stands in for the disk: the write fails in the same place."""
    path = tiny.write_gguf(tmp_path / "m.gguf")
    limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (50_000, 50_000))
    _, error = unpacking(path, 0, preexec_fn=limit).communicate(timeout=60)
    assert error.strip().splitlines()[-1].startswith("diffcode.errors.ModelUnavailable: cannot write")
    assert {p.name for p in tmp_path.iterdir()} <= {"m.gguf", "m.bf16.lock"}


def test_a_llama_gguf_is_refused(tmp_path: Path) -> None:
    """Its query and key rows are stored in another order: reading them as they are would give nonsense."""
    assert "is a 'llama' GGUF" in refused(folder_of, tiny.write_gguf(tmp_path / "m.gguf", architecture="llama"))


@pytest.mark.parametrize("data", [b"", b"G", b"hello, I am a text file\n" * 99, b"GGUF", b"GGUF" + b"\0" * 500])
def test_a_file_that_is_only_named_gguf_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    assert str(path) in refused(folder_of, path)
    assert not path.with_suffix(".bf16").exists()


def test_a_cut_off_gguf_is_refused(tmp_path: Path) -> None:
    """Wherever the cut falls: in a name, in a number, in the vocabulary, between tensors."""
    path = tiny.write_gguf(tmp_path / "m.gguf")
    whole = path.read_bytes()
    for size in (*range(5, 9000, 317), len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert str(path) in refused(folder_of, path)
        assert {p.name for p in tmp_path.iterdir()} <= {"m.gguf", "m.bf16.lock"}


@pytest.mark.parametrize("key", ["tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.token_type"])
def test_a_gguf_without_vocabulary_is_refused(key: str, tmp_path: Path) -> None:
    path = tiny.write_gguf(tmp_path / "m.gguf")
    changed = key[:-1] + "X"  # as long as before, so nothing moves
    path.write_bytes(path.read_bytes().replace(key.encode(), changed.encode()))
    assert key in refused(folder_of, path)


def test_scaled_rotary_embedding_in_a_gguf_is_refused(tmp_path: Path) -> None:
    def scale(writer: Any) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(64)

    path = tiny.write_gguf(tmp_path / "m.gguf", also=scale)
    assert "yarn" in refused(Model.load, str(path))


def test_an_unknown_tensor_in_a_gguf_is_refused(tmp_path: Path) -> None:
    path = tiny.write_gguf(
        tmp_path / "m.gguf", also=lambda writer: writer.add_tensor("blk.0.attn_q_norm.weight", np.ones(16, np.float32))
    )
    assert "attn_q_norm" in refused(folder_of, path)


# --- Hugging Face folders ---


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


def test_pickled_weights_are_refused_unopened(tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    assert "safetensors" in refused(Model.load, str(folder))
    assert not (tmp_path / "sprung").exists()
    pickle.loads((folder / "pytorch_model.bin").read_bytes()).close()
    assert (tmp_path / "sprung").exists(), "the trap does not work"


def test_code_in_a_folder_is_not_run(tmp_path: Path) -> None:
    auto = {"auto_map": {"AutoModelForCausalLM": "modeling_x.X"}}
    folder = tiny.write_model(tmp_path / "m", **auto)
    (folder / "modeling_x.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
    Model.load(str(folder), dtype="float32")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("kind", ["gpt2", "qwen2_moe", "qwen3", "mistral", None])
def test_other_architectures_are_refused(kind: str | None, tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / "m")
    (folder / "config.json").write_text(json.dumps(tiny.config() | {"model_type": kind}))
    assert repr(kind) in refused(open_folder, folder)


@pytest.mark.parametrize("size", [0, 1, 8, 500, 5000, -1])
def test_cut_off_safetensors_are_refused(size: int, tmp_path: Path) -> None:
    path = tiny.write_model(tmp_path / "m") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert str(path) in refused(open_folder, tmp_path / "m")


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "\xff", "{}", '{"model_type": "qwen2"}'])
def test_a_damaged_config_is_refused(text: str, tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / "m")
    (folder / "config.json").write_bytes(text.encode("latin1"))
    assert str(folder) in refused(open_folder, folder)


@pytest.mark.parametrize("key", ["num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size", "rms_norm_eps"])
def test_a_missing_entry_of_the_config_is_named(key: str, tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / "m")
    (folder / "config.json").write_text(json.dumps({k: v for k, v in tiny.config().items() if k != key}))
    assert key in refused(open_folder, folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"model": {"type": "Unigram", "vocab": []}}', None])
def test_a_damaged_tokenizer_is_refused(text: str | None, tmp_path: Path) -> None:
    path = tiny.write_model(tmp_path / "m") / "tokenizer.json"
    path.unlink() if text is None else path.write_text(text)
    refused(Model.load, str(tmp_path / "m"))


@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn", "longrope", "nonsense"])
@pytest.mark.parametrize("spelling", ["rope_type", "type"])
def test_unknown_rotary_scaling_is_refused(kind: str, spelling: str, tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / "m", rope_scaling={spelling: kind, "factor": 4.0})
    assert kind in refused(Model.load, str(folder))


def test_llama3_scaling_without_its_numbers_is_refused(tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / "m", "llama", rope_scaling={"rope_type": "llama3", "factor": 8.0})
    assert "low_freq_factor" in refused(Model.load, str(folder))


def test_missing_weights_are_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = tiny.write_model(tmp_path / "m")
    tensors = tiny.weights(tiny.config())
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors")
    assert "model.layers.1.mlp.up_proj.weight" in refused(Model.load, str(folder))


def test_opening_a_folder_reads_little(tmp_path: Path) -> None:
    """Tensors are mapped: 60 MB of weights stay on the disk until they are used."""
    folder = tiny.write_model(tmp_path / "m", hidden_size=512, intermediate_size=2048, num_hidden_layers=4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    open_folder(folder)
    pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert pages * resource.getpagesize() < (folder / "model.safetensors").stat().st_size / 2
