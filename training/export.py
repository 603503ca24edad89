"""What was trained, as others read it: low-rank maps as an adapter of PEFT's form, a base as a Hugging Face folder."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from diffcode.adapter import FUSED
from diffcode.loading import ModelShape


def save_adapter(
    folder: Path,
    shape: ModelShape,
    low_rank: Mapping[str, Tensor],
    more: Mapping[str, Tensor],
    note: Mapping[str, object],
) -> None:
    """`low_rank` has the names of `training.decoder`: `layers.3.low_rank.qkv.down_rD`; `more` goes in as it is.

    `note` is kept under "diffcode" in the config: the stage, the base it was trained on, the steps.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in more.items()}
    sizes = _sizes(shape)
    rank = 0
    for layer in range(shape.layers):
        for fused, maps in FUSED:
            stem = f"layers.{layer}.low_rank.{fused}."
            down_rD, up_Er = (low_rank[stem + end].detach().to(torch.bfloat16).cpu() for end in ("down_rD", "up_Er"))
            rank = len(down_rD)
            for name, up in zip(maps, up_Er.split([sizes[m] for m in maps]), strict=True):
                target = f"base_model.model.model.layers.{layer}.{name}"
                tensors[f"{target}.lora_A.weight"] = down_rD.clone()
                tensors[f"{target}.lora_B.weight"] = up.contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_model.safetensors").chmod(0o644)  # safetensors makes it readable for its owner only
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "task_type": "CAUSAL_LM",
        "target_modules": [name.split(".")[-1] for _, maps in FUSED for name in maps],
        "diffcode": dict(note),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf8")


HUGGING_FACE = {
    "input_norm_D": "input_layernorm.weight",
    "out_DE": "self_attn.o_proj.weight",
    "post_norm_D": "post_attention_layernorm.weight",
    "gate_FD": "mlp.gate_proj.weight",
    "up_FD": "mlp.up_proj.weight",
    "down_DF": "mlp.down_proj.weight",
}
ALSO = ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "LICENSE")


def save_model(
    folder: Path, source: Path, shape: ModelShape, weights: Mapping[str, Tensor], note: Mapping[str, object]
) -> None:
    """A folder that `--model` reads, in bf16; `weights` has the names of `training.decoder`, `source` is the base's."""
    tensors = {"model.embed_tokens.weight": weights["embedding_VD"], "model.norm.weight": weights["norm_D"]}
    if "head_VD" in weights:
        tensors["lm_head.weight"] = weights["head_VD"]
    for name, weight in weights.items():
        if name.startswith("layers."):
            _, layer, part = name.split(".")
            found = _unfused(part, weight, shape)
            tensors |= {f"model.layers.{layer}.{theirs}": piece for theirs, piece in found.items()}
    config = json.loads((source / "config.json").read_text(encoding="utf8"))
    config |= {"tie_word_embeddings": "head_VD" not in weights, "torch_dtype": "bfloat16", "diffcode": dict(note)}
    config.pop("made_from", None)  # of a folder that a GGUF file was unpacked to
    folder.mkdir(parents=True, exist_ok=True)
    rounded = {name: value.detach().to(torch.bfloat16).cpu().contiguous() for name, value in tensors.items()}
    save_file(rounded, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf8")
    shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.json")
    for name in ALSO:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def _unfused(part: str, weight: Tensor, shape: ModelShape) -> dict[str, Tensor]:
    """One of a layer's weights by the name, or the three names, that it has in a Hugging Face folder."""
    if part in HUGGING_FACE:
        return {HUGGING_FACE[part]: weight}
    kind, maps = {"qkv_ED": "weight", "qkv_bias_E": "bias"}[part], dict(FUSED)["qkv"]
    sizes = _sizes(shape)
    return {f"{m}.{kind}": piece for m, piece in zip(maps, weight.split([sizes[m] for m in maps]), strict=True)}


def _sizes(shape: ModelShape) -> dict[str, int]:
    """Output rows of each map."""
    kv = shape.kv_heads * shape.head_width
    return {
        "self_attn.q_proj": shape.heads * shape.head_width,
        "self_attn.k_proj": kv,
        "self_attn.v_proj": kv,
        "self_attn.o_proj": shape.width,
        "mlp.gate_proj": shape.ffn,
        "mlp.up_proj": shape.ffn,
        "mlp.down_proj": shape.width,
    }
