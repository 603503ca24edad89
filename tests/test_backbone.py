"""The torch backbone against another implementation of the same models, Hugging Face's transformers."""

import gc
import inspect
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from diffcode import hub
from diffcode.backbone import Backbone
from diffcode.errors import ModelUnavailable
from diffcode.loading import folder_of, open_folder
from diffcode.tokens import Tokens
from tests import tiny

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 64}
SHAPES = {
    "qwen2, grouped heads, tied": ("qwen2", {}),
    "qwen2, one group a head, untied": ("qwen2", {"num_key_value_heads": 4, "tie_word_embeddings": False}),
    "qwen2, one group, three layers": ("qwen2", {"num_key_value_heads": 1, "num_hidden_layers": 3}),
    "qwen2, rotary base 1e6": ("qwen2", {"rope_theta": 1e6}),
    "llama, grouped heads, untied": ("llama", {"tie_word_embeddings": False}),
    "llama, one group a head, tied": ("llama", {"num_key_value_heads": 4}),
    "llama, heads wider than the model": ("llama", {"head_dim": 32}),
    "llama, narrow heads, eps 1e-3": ("llama", {"head_dim": 8, "rms_norm_eps": 1e-3}),
    "llama, rotary base 5e5": ("llama", {"rope_theta": 5e5}),
    "llama, llama3 scaling": ("llama", {"rope_theta": 5e5, "head_dim": 32, "rope_scaling": LLAMA3}),
}
# What a config may also ask for, and what changes the result if it is passed over.
OPTIONS = {
    "llama, attention bias": ("llama", {"attention_bias": True}),
    "llama, mlp bias": ("llama", {"mlp_bias": True}),
    "qwen2, sliding window": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1, "num_hidden_layers": 2},
    ),
    "qwen2, gelu": ("qwen2", {"hidden_act": "gelu"}),
    "llama, gelu": ("llama", {"hidden_act": "gelu"}),
    "llama, yarn": ("llama", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}),
    "llama, linear": ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "llama, dynamic": ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}),
}


def published(kind: str, changes: dict[str, Any], folder: Path, **saving: Any) -> Any:
    """A random model of transformers' making, saved in `folder`."""
    settings = tiny.config(kind, **changes)
    if scaling := settings.pop("rope_scaling", None):
        settings["rope_parameters"] = {"rope_theta": settings.pop("rope_theta"), **scaling}
    make = {"qwen2": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}[kind]
    model = make[1](make[0](**settings, attn_implementation="eager")).eval()
    generator = torch.Generator().manual_seed(len(str(changes)))
    for name, parameter in model.named_parameters():
        parameter.data = tiny.draw(name, parameter.shape, generator)
    model.save_pretrained(folder, **saving)
    return model


def backbone(folder: Path, dtype: torch.dtype = torch.float32) -> Backbone:
    return Backbone(*open_folder(folder), dtype, torch.device("cpu"))


def logits(model: Backbone, ids: list[int], sizes: list[int], capacity: int = 512) -> Tensor:
    """Logits of every token, read in chunks of `sizes` behind one cache."""
    cache, found = model.new_cache(capacity), []
    for size in sizes:
        chunk = ids[cache.length : cache.length + size]
        positions = torch.arange(cache.length, cache.length + size)
        causal = torch.ones(size, size, dtype=torch.bool).tril()
        found.append(model.forward(model.embed(chunk), positions, cache, causal))
        cache.length += size
    with torch.inference_mode():
        return torch.cat(found) @ model.head_VD.T


def distance(ours: Tensor, gold: Tensor) -> float:
    return float((ours - gold).abs().max())


def random_ids(count: int, seed: int = 0) -> list[int]:
    return torch.randint(0, tiny.VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.fixture(scope="module", params=SHAPES, ids=list(SHAPES))
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Backbone, list[int], Tensor]:
    """Our model, ids, and what transformers' model says of them."""
    folder = tmp_path_factory.mktemp("published")
    model, ids = published(*SHAPES[request.param], folder), random_ids(100)
    with torch.inference_mode():
        gold = model(torch.tensor([ids])).logits[0]
    assert gold.std() > 0.5, "so flat that a tolerance of 1e-4 says nothing"
    return backbone(folder), ids, gold


def test_whole_pass_equals_transformers(pair: tuple[Backbone, list[int], Tensor]) -> None:
    ours, ids, gold = pair
    assert distance(logits(ours, ids, [len(ids)]), gold) < 1e-4


def test_token_by_token_equals_transformers(pair: tuple[Backbone, list[int], Tensor]) -> None:
    ours, ids, gold = pair
    assert distance(logits(ours, ids, [1] * len(ids)), gold) < 1e-4


def test_chunks_of_any_size_equal_transformers(pair: tuple[Backbone, list[int], Tensor]) -> None:
    ours, ids, gold = pair
    for seed in range(3):
        cuts = sorted(random.Random(seed).sample(range(1, len(ids)), 7))
        sizes = [b - a for a, b in zip([0, *cuts], [*cuts, len(ids)], strict=True)]
        # Capacity 1: the cache has to grow over and over, and must keep what it holds.
        assert distance(logits(ours, ids, sizes, capacity=1), gold) < 1e-4


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_that_changes_the_result_is_computed_or_refused(option: str, tmp_path: Path) -> None:
    model, ids = published(*OPTIONS[option], tmp_path), random_ids(60)
    try:
        ours = backbone(tmp_path)
    except ModelUnavailable:
        return
    with torch.inference_mode():
        gold = model(torch.tensor([ids])).logits[0]
    assert distance(logits(ours, ids, [len(ids)]), gold) < 1e-4


def test_llama3_scaling_matters_here(tmp_path: Path) -> None:
    """Else its parity row above could not fail."""
    kind, changes = SHAPES["llama, llama3 scaling"]
    published(kind, changes, tmp_path / "scaled")
    shape, tensors = open_folder(tmp_path / "scaled")
    ids = random_ids(100)
    scaled = logits(Backbone(shape, tensors, torch.float32, torch.device("cpu")), ids, [100])
    assert shape.rope_scaling is not None
    settings = json.loads((tmp_path / "scaled/config.json").read_text())
    settings["rope_parameters"] = {"rope_type": "default", "rope_theta": 5e5}
    (tmp_path / "scaled/config.json").write_text(json.dumps(settings))
    plain = logits(backbone(tmp_path / "scaled"), ids, [100])
    assert distance(scaled, plain) > 1e-2


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_older_configs_name_the_rotary_base_at_the_top(kind: str, tmp_path: Path) -> None:
    """Up to transformers 4 it was `rope_theta` and `rope_scaling`; published folders have that."""
    model, ids = published(kind, {"rope_theta": 5e5, "rope_scaling": LLAMA3}, tmp_path), random_ids(100)
    settings = json.loads((tmp_path / "config.json").read_text())
    rope = settings.pop("rope_parameters")
    settings |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with torch.inference_mode():
        gold = model(torch.tensor([ids])).logits[0]
    assert distance(logits(backbone(tmp_path), ids, [100]), gold) < 1e-4


def test_sharded_weights_are_read_whole(tmp_path: Path) -> None:
    model, ids = published("qwen2", {"tie_word_embeddings": False}, tmp_path, max_shard_size="80KB"), random_ids(50)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    with torch.inference_mode():
        gold = model(torch.tensor([ids])).logits[0]
    assert distance(logits(backbone(tmp_path), ids, [50]), gold) < 1e-4


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    published("qwen2", {}, tmp_path, max_shard_size="80KB")
    sorted(tmp_path.glob("model-*.safetensors"))[1].unlink()
    with pytest.raises(ModelUnavailable, match="have no tensor"):
        backbone(tmp_path)


def test_bf16_is_close_to_fp32(tmp_path: Path) -> None:
    tiny.write_model(tmp_path)
    ids = random_ids(100)
    exact, rounded = (logits(backbone(tmp_path, d), ids, [100]).float() for d in (torch.float32, torch.bfloat16))
    assert (exact - rounded).abs().mean() < 0.1 * exact.std()
    assert (exact.argmax(-1) == rounded.argmax(-1)).float().mean() > 0.8


def test_a_cache_grows_without_losing_what_it_holds(tmp_path: Path) -> None:
    cache = backbone(tiny.write_model(tmp_path)).new_cache(3)
    cache.k_LGSK.normal_()
    cache.v_LGSK.normal_()
    keys, values = cache.k_LGSK.clone(), cache.v_LGSK.clone()
    cache.grow(3)
    assert cache.capacity == 3
    cache.grow(4)
    assert cache.capacity >= 4
    assert torch.equal(cache.k_LGSK[:, :, :3], keys)
    assert torch.equal(cache.v_LGSK[:, :, :3], values)


# --- the real weights ---


@pytest.fixture(scope="module")
def source_ids() -> list[int]:
    """A few hundred tokens of real code, by our tokenizer."""
    return Tokens.from_folder(folder_of(hub.pull())).encode(inspect.getsource(json.decoder))[:300]


@pytest.fixture(scope="module")
def real_gold(source_ids: list[int]) -> Tensor:
    """Logits in fp32 by transformers, reading the GGUF file with its own reader (`from_pretrained(gguf_file=...)` does
    the same, but asks for accelerate)."""
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    path = hub.pull()
    settings = Qwen2Config(**load_gguf_checkpoint(path)["config"])
    with torch.device("meta"):
        model = Qwen2ForCausalLM(settings)
    read = load_gguf_checkpoint(path, return_tensors=True, model_to_load=model, torch_dtype=torch.float32)
    model.load_state_dict(read["tensors"], assign=True)
    model.model.rotary_emb = type(model.model.rotary_emb)(settings)  # its frequencies are no part of the file
    with torch.inference_mode():
        gold: Tensor = model.eval()(torch.tensor([source_ids])).logits[0]
    return gold


@pytest.fixture(scope="module", params=[(torch.float32, 0.99), (torch.bfloat16, 0.97)], ids=["float32", "bfloat16"])
def real_ours(
    request: pytest.FixtureRequest, source_ids: list[int], real_gold: Tensor
) -> Iterator[tuple[Tensor, float, Backbone]]:
    model = backbone(folder_of(hub.pull()), request.param[0])
    yield logits(model, source_ids, [len(source_ids)]).float(), request.param[1], model
    del model
    gc.collect()  # 2.5 GB in fp32


@pytest.mark.slow
def test_real_weights_choose_the_same_tokens(
    real_ours: tuple[Tensor, float, Backbone], real_gold: Tensor, source_ids: list[int]
) -> None:
    """The folder keeps bf16-rounded weights, so a near-tie may fall the other way; nothing else may."""
    ours, share, _ = real_ours
    same = ours.argmax(-1) == real_gold.argmax(-1)
    assert same.float().mean() >= share
    margins = real_gold.topk(2).values
    assert (margins[:, 0] - margins[:, 1])[~same].lt(0.5).all()
    assert (ours - real_gold).abs().mean() < 0.1
    targets = torch.tensor(source_ids[1:])
    losses = [torch.nn.functional.cross_entropy(of[:-1], targets) for of in (ours, real_gold)]
    assert abs(losses[0] - losses[1]) < 0.02
    assert losses[1] < 2, "the reference itself does not know code: it was read wrong"


@pytest.mark.slow
def test_real_weights_token_by_token(real_ours: tuple[Tensor, float, Backbone], source_ids: list[int]) -> None:
    ours, share, model = real_ours
    sizes = [100, *[1] * 20, 17, 63]
    chunked = logits(model, source_ids, sizes).float()
    same = chunked.argmax(-1) == ours[: len(chunked)].argmax(-1)
    assert same.float().mean() >= share


@pytest.mark.slow
@pytest.mark.parametrize("module", ["json.decoder", "difflib", "encodings.aliases", "this"])
def test_real_tokenizer_gives_the_published_ids(module: str, transformers_tokenizer: Any) -> None:
    path = Path(__import__(module, fromlist=["x"]).__file__)
    check_ids(path.read_text(encoding="utf8"), transformers_tokenizer)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\r\n\t\n  x",
        "naïve 'quoted' I'LL 世界 🙂🙂 ½ x²",
        "a\x00b\x1f\u2028c\ufeff",
        "12345 ...  \n\n\n   y=1\n",
    ],
)
def test_real_tokenizer_gives_the_published_ids_of_odd_text(text: str, transformers_tokenizer: Any) -> None:
    check_ids(text, transformers_tokenizer)


def check_ids(text: str, theirs: Any) -> None:
    ours = Tokens.from_folder(folder_of(hub.pull()))
    assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]
    assert ours.decode_bytes(ours.encode(text)) == text.encode()


@pytest.fixture(scope="module")
def transformers_tokenizer() -> Any:
    """Transformers' own reading of the vocabulary in the GGUF file."""
    path = hub.pull()
    return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
