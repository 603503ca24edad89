"""From files to tensors: a Hugging Face folder with safetensors, or a GGUF file turned into such a folder once.

Turning the default 4-bit GGUF into bf16 takes about six seconds, opening the folder memory-mapped half a second; so
the folder is kept beside the GGUF file and every process shares its pages. Nothing here runs code from a file.
"""

import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffcode.errors import ModelUnavailable
from diffcode.tokens import bpe_tokenizer

ARCHITECTURES = ("qwen2", "llama")
GGUF_TENSORS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
GGUF_LAYER_TENSORS = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_q.bias": "self_attn.q_proj.bias",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_k.bias": "self_attn.k_proj.bias",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_v.bias": "self_attn.v_proj.bias",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
NORMAL_TOKEN = 1  # GGUF token types: 1 is text, the others are control, user-defined or unused


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The numbers that fix a Qwen2- or Llama-style decoder."""

    architecture: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    ffn: int
    vocabulary: int
    norm_eps: float
    rope_base: float
    rope_scaling: dict[str, Any] | None

    @classmethod
    def from_config(cls, config: dict[str, Any], where: Path) -> "ModelShape":
        """From a Hugging Face `config.json` (both spellings of the rotary settings)."""
        if not isinstance(config, dict):
            raise ModelUnavailable(f"{where}/config.json is no table of settings: fetch the folder again")
        if config.get("model_type") not in ARCHITECTURES:
            raise ModelUnavailable(
                f"{where} is a {config.get('model_type')!r} model: diffcode runs {' and '.join(ARCHITECTURES)}"
            )
        if config.get("hidden_act", "silu") != "silu" or config.get("use_sliding_window"):
            raise ModelUnavailable(f"{where} wants another activation than silu, or a sliding window: not supported")
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        scaled = rope.get("rope_type", rope.get("type", "default")) != "default"
        try:
            return cls(
                architecture=config["model_type"],
                layers=config["num_hidden_layers"],
                width=config["hidden_size"],
                heads=config["num_attention_heads"],
                kv_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
                head_width=config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
                ffn=config["intermediate_size"],
                vocabulary=config["vocab_size"],
                norm_eps=config["rms_norm_eps"],
                rope_base=float(config.get("rope_theta") or rope.get("rope_theta", 10000.0)),
                rope_scaling=rope if scaled else None,
            )
        except KeyError as missing:
            raise ModelUnavailable(
                f"{where}/config.json has no {missing}: the folder is damaged, fetch it again"
            ) from None


def open_folder(folder: Path) -> tuple[ModelShape, dict[str, Tensor]]:
    """Shape and memory-mapped tensors of a Hugging Face folder. Raises ModelUnavailable."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise ModelUnavailable(
            f"{folder} holds no readable config.json: name a GGUF file or a model's folder"
        ) from error
    shape = ModelShape.from_config(config, folder)
    return shape, dict(_tensors(folder))


def weights_identity(folder: Path) -> list[list[int | str]]:
    """Name, size and time of every weights file: changes when they do, and costs no reading."""
    files = sorted(folder.glob("*.safetensors"))
    return [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelUnavailable(f"{folder} holds no .safetensors file: other formats can run code and are not read")
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - not a dict
                    yield name, file.get_tensor(name)
        except SafetensorError as error:
            raise ModelUnavailable(f"{path} is damaged ({error}): delete it and try again") from error


def folder_of(gguf_path: Path) -> Path:
    """The bf16 folder of a GGUF file, beside it, made on first use. Raises ModelUnavailable if that fails."""
    folder = unpacked_name(gguf_path)
    if _is_current(folder, gguf_path):
        return folder
    try:
        with FileLock(f"{folder}.lock"):
            if not _is_current(folder, gguf_path):
                _unpack(gguf_path, folder)
        return folder
    except (OSError, SafetensorError) as error:  # the second is what safetensors makes of a full disk
        needed = "about 1.3 GB for the default model"
        raise ModelUnavailable(
            f"cannot write {folder} ({error}): free some space ({needed}) or set DIFFCODE_HOME elsewhere"
        ) from error


def unpacked_name(gguf_path: Path) -> Path:
    """Where `folder_of` puts a file's folder."""
    return gguf_path.with_suffix(".bf16")


def _is_current(folder: Path, gguf_path: Path) -> bool:
    """True if the folder was made from this very file. It appears by one rename, so it is whole or absent."""
    try:
        made_from = json.loads((folder / "config.json").read_text(encoding="utf8"))["made_from"]
    except (OSError, ValueError, KeyError):
        return False
    return bool(made_from == _identity(gguf_path)) and (folder / "model.safetensors").is_file()


def _identity(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _unpack(gguf_path: Path, folder: Path) -> None:
    prefix = f"{folder.name}.unpacking-"
    for left in folder.parent.glob(f"{glob.escape(prefix)}*/"):  # of runs that were killed; we hold the lock
        shutil.rmtree(left, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        _write_folder(gguf_path, staging)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_folder(gguf_path: Path, folder: Path) -> None:
    from gguf import GGUFReader, dequantize  # imported here: half a second that a second start need not pay

    try:
        reader = GGUFReader(gguf_path)
    except (ValueError, IndexError) as error:
        raise ModelUnavailable(f"{gguf_path} is no GGUF file ({error}): fetch it again with `diffcode pull`") from error
    config = _gguf_config(reader, gguf_path) | {"made_from": _identity(gguf_path)}
    tensors = {
        _folder_name(t.name): torch.tensor(dequantize(t.data, t.tensor_type), dtype=torch.bfloat16)
        for t in reader.tensors
    }
    config["tie_word_embeddings"] = "lm_head.weight" not in tensors
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "tokenizer.json").write_text(_gguf_tokenizer(reader, gguf_path), encoding="utf8")
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf8")


def _folder_name(gguf_name: str) -> str:
    if gguf_name in GGUF_TENSORS:
        return GGUF_TENSORS[gguf_name]
    try:
        _, layer, rest = gguf_name.split(".", 2)
        return f"model.layers.{int(layer)}.{GGUF_LAYER_TENSORS[rest]}"
    except (ValueError, KeyError):
        raise ModelUnavailable(
            f"tensor {gguf_name!r} in the GGUF file is unknown: only plain Qwen2 files are read"
        ) from None


def _gguf_value(reader: Any, path: Path, key: str) -> Any:
    field = reader.fields.get(key)
    if field is None:
        raise ModelUnavailable(f"{path} has no entry {key!r}: the file is damaged or of an unknown kind")
    return field.contents()


def _gguf_config(reader: Any, path: Path) -> dict[str, Any]:
    value = partial(_gguf_value, reader, path)
    architecture = value("general.architecture")
    if architecture != "qwen2":  # llama.cpp stores Llama's q and k permuted and often another tokenizer kind
        raise ModelUnavailable(f"{path} is a {architecture!r} GGUF, only qwen2 is read: take its Hugging Face folder")
    scaling = reader.fields.get("qwen2.rope.scaling.type")
    if scaling is not None and scaling.contents() != "none":
        raise ModelUnavailable(f"{path} has {scaling.contents()} rotary scaling, which is not supported")
    return {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "num_hidden_layers": value("qwen2.block_count"),
        "hidden_size": value("qwen2.embedding_length"),
        "num_attention_heads": value("qwen2.attention.head_count"),
        "num_key_value_heads": value("qwen2.attention.head_count_kv"),
        "intermediate_size": value("qwen2.feed_forward_length"),
        "max_position_embeddings": value("qwen2.context_length"),
        "rms_norm_eps": value("qwen2.attention.layer_norm_rms_epsilon"),
        "rope_theta": value("qwen2.rope.freq_base"),
        "vocab_size": len(value("tokenizer.ggml.tokens")),
    }


def _gguf_tokenizer(reader: Any, path: Path) -> str:
    """The file's vocabulary as a `tokenizer.json`, control tokens kept apart as added tokens."""
    tables = (_gguf_value(reader, path, f"tokenizer.ggml.{name}") for name in ("tokens", "token_type", "merges"))
    texts, kinds, joined = tables
    merges = [tuple(m.split(" ", 1)) for m in joined]
    vocab = {text: i for i, (text, kind) in enumerate(zip(texts, kinds, strict=True)) if kind == NORMAL_TOKEN}
    data = json.loads(bpe_tokenizer(vocab, merges).to_str())
    data["added_tokens"] = [
        {"id": i, "content": text, "special": True, "normalized": False}
        | {"single_word": False, "lstrip": False, "rstrip": False}
        for i, (text, kind) in enumerate(zip(texts, kinds, strict=True))
        if kind != NORMAL_TOKEN
    ]
    return json.dumps(data, ensure_ascii=False)
