"""Tiny random models on disk, of the shapes that diffcode reads, with a byte-level vocabulary of their own.

Weights are drawn wide (norms off 1, biases off 0, logits of spread 1 and more), so that a dropped term shows.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch import Tensor

SPLIT = (  # Qwen2's, as published
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MERGES = (("Ġ", "Ġ"), ("ĠĠ", "ĠĠ"), ("d", "e"), ("de", "f"), ("r", "e"), ("t", "u"), ("re", "tu"), ("Ã", "©"))
CONTROL = ("<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>")
TEXTS = (*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in MERGES))
END, PREFIX, MIDDLE, SUFFIX = range(len(TEXTS), len(TEXTS) + 4)
VOCABULARY = 288  # more ids than tokens, as published models have


def config(kind: str = "qwen2", **changes: Any) -> dict[str, Any]:
    """A `config.json`: 2 layers, 4 heads in 2 groups, tied head."""
    plain = {
        "model_type": kind,
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 96,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": True,
        "hidden_act": "silu",
    }
    return plain | changes


def weights(settings: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Random fp32 tensors under Hugging Face's names; q, k and v have biases if it is a qwen2."""
    random = torch.Generator().manual_seed(seed)
    width, ffn, vocabulary = settings["hidden_size"], settings["intermediate_size"], settings["vocab_size"]
    head = settings.get("head_dim") or width // settings["num_attention_heads"]
    q, kv = settings["num_attention_heads"] * head, settings["num_key_value_heads"] * head
    matrices = {"self_attn.q_proj": (q, width), "self_attn.k_proj": (kv, width), "self_attn.v_proj": (kv, width)}
    matrices |= {"self_attn.o_proj": (width, q), "mlp.gate_proj": (ffn, width), "mlp.up_proj": (ffn, width)}
    matrices |= {"mlp.down_proj": (width, ffn)}
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, width),
        "model.norm.weight": (width,),
    }
    for layer in range(settings["num_hidden_layers"]):
        stem = f"model.layers.{layer}."
        shapes |= {f"{stem}{name}.weight": shape for name, shape in matrices.items()}
        shapes |= {f"{stem}{name}.weight": (width,) for name in ("input_layernorm", "post_attention_layernorm")}
        if settings["model_type"] == "qwen2":
            shapes |= {f"{stem}self_attn.{m}_proj.bias": (size,) for m, size in (("q", q), ("k", kv), ("v", kv))}
    if not settings["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocabulary, width)
    return {name: draw(name, shape, random) for name, shape in shapes.items()}


def draw(name: str, shape: Sequence[int], random: torch.Generator) -> Tensor:
    """One random tensor with the spread that its role in a trained model might have."""
    plain = torch.randn(*shape, generator=random)
    if "norm" in name:
        return 1 + 0.3 * plain
    if name.endswith("bias"):
        return 0.5 * plain
    if "embed" in name or "lm_head" in name:
        return 0.3 * plain
    return 1.5 * plain / shape[-1] ** 0.5


def write_tokenizer(folder: Path) -> Path:
    """A `tokenizer.json` of all bytes, a few merges and Qwen's fill-in-the-middle tokens."""
    tokenizer = Tokenizer(models.BPE(vocab={text: i for i, text in enumerate(TEXTS)}, merges=list(MERGES)))
    split = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.add_special_tokens(list(CONTROL))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write_model(folder: Path, kind: str = "qwen2", *, seed: int = 0, **changes: Any) -> Path:
    """A whole Hugging Face folder: config, weights, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = config(kind, **changes)
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf8")
    save_file(weights(settings, seed), folder / "model.safetensors")
    return write_tokenizer(folder)


def adapter_tensors(
    settings: dict[str, Any], *, seed: int = 1, rank: int = 4, shared: bool = True, kept: Sequence[int] | None = None
) -> dict[str, Tensor]:
    """A random span adapter; `shared`: maps with a common input have one down-projection, as the shipped one has."""
    random = torch.Generator().manual_seed(seed)
    groups = (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("self_attn.o_proj",))
    groups += (("mlp.gate_proj", "mlp.up_proj"), ("mlp.down_proj",))
    found = {"mask_embedding": 0.3 * torch.randn(settings["hidden_size"], generator=random)}
    for name, weight in weights(settings).items():
        for group in groups:
            map_name = next((m for m in group if name.endswith(f"{m}.weight")), None)
            if map_name is None:
                continue
            rows, columns = weight.shape
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            first = f"base_model.model.{name.removesuffix(f'{map_name}.weight')}{group[0]}.lora_A.weight"
            down = torch.randn(rank, columns, generator=random) / columns**0.5
            found[f"{stem}.lora_A.weight"] = found[first].clone() if shared and first in found else down
            found[f"{stem}.lora_B.weight"] = torch.randn(rows, rank, generator=random) / rank**0.5
    if kept is not None:
        found["kept_tokens"] = torch.tensor(list(kept), dtype=torch.int32)
    return found


def write_adapter(folder: Path, tensors: dict[str, Tensor], *, rank: int = 4, alpha: float = 2.0) -> Path:
    """A folder with an adapter of PEFT's form."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha}
    (folder / "adapter_config.json").write_text(json.dumps(settings), encoding="utf8")
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def write_gguf(
    path: Path,
    *,
    seed: int = 0,
    quantised: bool = False,
    architecture: str = "qwen2",
    also: Callable[[Any], None] | None = None,
    **changes: Any,
) -> Path:
    """A GGUF file of a tiny Qwen2, written with llama.cpp's own writer and tensor names; `also` may add to it."""
    import gguf

    settings = config(**changes)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(settings["num_hidden_layers"])
    writer.add_context_length(settings["max_position_embeddings"])
    writer.add_embedding_length(settings["hidden_size"])
    writer.add_feed_forward_length(settings["intermediate_size"])
    writer.add_head_count(settings["num_attention_heads"])
    writer.add_head_count_kv(settings["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(settings["rms_norm_eps"])
    writer.add_rope_freq_base(settings["rope_theta"])
    unused = [f"[PAD{i}]" for i in range(len(TEXTS) + len(CONTROL), VOCABULARY)]
    kinds = [gguf.TokenType.NORMAL] * len(TEXTS) + [gguf.TokenType.CONTROL] * len(CONTROL)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*TEXTS, *CONTROL, *unused])
    writer.add_token_types(kinds + [gguf.TokenType.UNUSED] * len(unused))
    writer.add_token_merges([" ".join(pair) for pair in MERGES])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, settings["num_hidden_layers"])
    for name, tensor in weights(settings, seed).items():
        data, kind = tensor.numpy(), gguf.GGMLQuantizationType.F32
        if quantised and tensor.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            data = gguf.quantize(data, kind)
        writer.add_tensor(names.get_name(name, (".weight", ".bias")), data, raw_dtype=kind)
    if also is not None:
        also(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@dataclass(frozen=True)
class Row:
    """One row of the oracle's canvas."""

    token: int | None  # None: masked
    position: int
    span: bool = False


@dataclass
class Oracle:
    """A Qwen2 in fp64, row kinds apart: base weights `W`, or `W + alpha / r * B A` on span rows.

    Written from the papers and apart from diffcode: no cache, one head at a time, rotations as complex numbers."""

    settings: dict[str, Any]
    weights: dict[str, Tensor]
    adapter: dict[str, Tensor]
    scale: float  # alpha / r

    def logits(self, rows: Sequence[Row], sees_RR: Tensor) -> Tensor:
        """[R, V] of all rows, each looking where its line of `sees_RR` says."""
        embedding = self.weights["model.embed_tokens.weight"].double()
        mask = self.adapter["mask_embedding"].double()
        x = torch.stack([mask if r.token is None else embedding[r.token] for r in rows])
        for layer in range(self.settings["num_hidden_layers"]):
            stem = f"model.layers.{layer}."
            normed = self._norm(x, stem + "input_layernorm")
            x = x + self._linear(self._attend(normed, stem, rows, sees_RR), stem + "self_attn.o_proj", rows)
            normed = self._norm(x, stem + "post_attention_layernorm")
            gate = self._linear(normed, stem + "mlp.gate_proj", rows)
            inner = gate * torch.sigmoid(gate) * self._linear(normed, stem + "mlp.up_proj", rows)
            x = x + self._linear(inner, stem + "mlp.down_proj", rows)
        return self._norm(x, "model.norm") @ self.weights.get("lm_head.weight", embedding).double().T

    def _norm(self, x: Tensor, name: str) -> Tensor:
        mean = (x * x).mean(-1, keepdim=True)
        return x / (mean + self.settings["rms_norm_eps"]).sqrt() * self.weights[f"{name}.weight"].double()

    def _linear(self, x: Tensor, name: str, rows: Sequence[Row]) -> Tensor:
        base = self.weights[f"{name}.weight"].double()
        bias = self.weights.get(f"{name}.bias", torch.zeros(base.shape[0])).double()
        spans = torch.tensor([[row.span] for row in rows])
        if not spans.any():
            return x @ base.T + bias
        down, up = (self.adapter[f"base_model.model.{name}.lora_{m}.weight"].double() for m in "AB")
        return torch.where(spans, x @ (base + self.scale * up @ down).T, x @ base.T) + bias

    def _attend(self, x: Tensor, stem: str, rows: Sequence[Row], sees_RR: Tensor) -> Tensor:
        heads, groups = self.settings["num_attention_heads"], self.settings["num_key_value_heads"]
        q, k, v = (self._linear(x, f"{stem}self_attn.{m}_proj", rows) for m in "qkv")
        width = q.shape[1] // heads
        found = []
        for head in range(heads):
            group = head // (heads // groups)
            mine, theirs = slice(head * width, (head + 1) * width), slice(group * width, (group + 1) * width)
            scores = (self._turn(q[:, mine], rows) @ self._turn(k[:, theirs], rows).conj().T).real / width**0.5
            found.append(scores.masked_fill(~sees_RR, -torch.inf).softmax(-1) @ v[:, theirs])
        return torch.cat(found, dim=1)

    def _turn(self, x: Tensor, rows: Sequence[Row]) -> Tensor:
        """Rotary embedding as what it is: pairs of numbers (i, i + K / 2) are complex and turn with the position."""
        half = x.shape[1] // 2
        speed = self.settings["rope_theta"] ** (-torch.arange(half).double() / half)
        angle = torch.outer(torch.tensor([r.position for r in rows]).double(), speed)
        return torch.complex(x[:, :half], x[:, half:]) * torch.polar(torch.ones_like(angle), angle)
