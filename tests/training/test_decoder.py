"""The decoder that learns against the backbone that decodes: one model, two ways to lay out its rows."""

from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor
from training_kit import ids, load, stir

from diffcode.adapter import low_rank_maps
from diffcode.backbone import Backbone
from diffcode.merge import merged_tensors
from diffcode.training.decoder import CausalAttention, Decoder
from diffcode.training.export import save_adapter

LENGTHS = (9, 1, 30, 2)


@pytest.fixture(scope="module", params=["qwen2", "llama", "untied"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param) / "m"
    if request.param == "untied":
        return tiny.write_model(folder, tie_word_embeddings=False, num_hidden_layers=3, num_key_value_heads=4)
    return tiny.write_model(folder, request.param)


def text_by_text(backbone: Backbone, texts: list[tuple[int, ...]]) -> Tensor:
    found = []
    for text in texts:
        rows = len(text)
        seen = torch.ones(rows, rows, dtype=torch.bool).tril()
        found.append(backbone.forward(backbone.embed(text), torch.arange(rows), backbone.new_cache(512), seen))
    return torch.cat(found)


def all_at_once(decoder: Decoder, texts: list[tuple[int, ...]], adapted: bool = True) -> Tensor:
    flat = torch.tensor([token for text in texts for token in text])
    positions = torch.cat([torch.arange(len(text)) for text in texts])
    with torch.no_grad():
        found: Tensor = decoder(decoder.embed(flat), positions, CausalAttention([len(t) for t in texts]), adapted)
    return found


@pytest.fixture
def texts() -> list[tuple[int, ...]]:
    return [ids(length, length) for length in LENGTHS]


def test_several_texts_are_the_backbones_one_by_one(base: Path, texts: list[tuple[int, ...]]) -> None:
    backbone = load(base, adapter="none").backbone
    ours, theirs = all_at_once(Decoder(backbone, 4), texts), text_by_text(backbone, texts)
    assert (ours - theirs).abs().max() < 2e-5 * theirs.abs().max()
    assert (ours[0] - ours[9]).abs().max() > 0.1, "texts differ, so that a mix-up would show"


def test_in_bf16_they_are_as_near_as_bf16_is(base: Path, texts: list[tuple[int, ...]]) -> None:
    exact = text_by_text(load(base, adapter="none").backbone, texts)
    backbone = load(base, "bfloat16", adapter="none").backbone
    ours, theirs = all_at_once(Decoder(backbone, 4), texts), text_by_text(backbone, texts)
    assert ours.dtype == torch.bfloat16
    assert (ours.float() - exact).norm() < 1.5 * (theirs.float() - exact).norm()


def test_low_rank_maps_are_the_merged_weights(base: Path, texts: list[tuple[int, ...]], tmp_path: Path) -> None:
    model = load(base, adapter="none")
    shape = model.backbone.shape
    decoder = Decoder(model.backbone, 4)
    trained = {name: p for name, p in decoder.named_parameters() if p.requires_grad}
    assert all_at_once(decoder, texts).equal(all_at_once(decoder, texts, adapted=False)), "training begins at the base"
    stir(trained)
    save_adapter(tmp_path, shape, trained, {}, {})
    merged = Backbone(shape, merged_tensors(base, tmp_path), torch.float32, torch.device("cpu"))
    ours, theirs = all_at_once(decoder, texts), text_by_text(merged, texts)
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()
    plain = text_by_text(model.backbone, texts)
    assert (plain - theirs).abs().max() > 0.1
    assert (all_at_once(decoder, texts, adapted=False) - plain).abs().max() < 2e-5 * plain.abs().max()


@pytest.mark.parametrize("rank", [3, 11])
def test_what_is_saved_is_what_is_begun_from(rank: int, tmp_path: Path) -> None:
    backbone = load(tiny.write_model(tmp_path / "m"), adapter="none").backbone
    first, second = Decoder(backbone, rank, seed=1), Decoder(backbone, 5, seed=2)
    trained = {name: p for name, p in first.named_parameters() if p.requires_grad}
    stir(trained)
    save_adapter(tmp_path / "a", backbone.shape, trained, {}, {})
    second.begin_from(low_rank_maps(tmp_path / "a", 2))
    again = {name: p for name, p in second.named_parameters() if p.requires_grad}
    assert again.keys() == trained.keys()
    assert all(torch.equal(again[name], trained[name]) for name in trained)


@pytest.mark.parametrize("shared", [True, False], ids=["shared A", "separate A"])
def test_any_adapter_of_peft_form_may_be_begun_from(shared: bool, tmp_path: Path) -> None:
    """With a scale that is not 1, and a first matrix for each map; saved again it is the same map."""
    base = tiny.write_model(tmp_path / "m")
    low = {n: t for n, t in tiny.adapter_tensors(tiny.config(), shared=shared).items() if "lora_" in n}
    given = tiny.write_adapter(tmp_path / "a", low, alpha=8.0)
    decoder = Decoder(load(base, adapter="none").backbone, 4)
    decoder.begin_from(low_rank_maps(given, 2))
    trained = {name: p for name, p in decoder.named_parameters() if p.requires_grad}
    save_adapter(tmp_path / "b", decoder.backbone.shape, trained, {}, {})
    ours, theirs = merged_tensors(base, tmp_path / "b"), merged_tensors(base, given)
    for name, value in theirs.items():
        assert (ours[name] - value).abs().max() < 0.01 * max(1.0, float(value.abs().max())), name


def test_the_first_weights_come_from_the_seed_alone(tmp_path: Path) -> None:
    backbone = load(tiny.write_model(tmp_path / "m"), adapter="none").backbone

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed * 7)
        return torch.cat([p.flatten() for p in Decoder(backbone, 4, seed=seed).parameters() if p.requires_grad])

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    before = torch.get_rng_state()
    Decoder(backbone, 4, seed=3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("full", [False, True])
def test_what_is_trained_is_fp32_and_the_rest_is_frozen(full: bool, tmp_path: Path) -> None:
    backbone = load(tiny.write_model(tmp_path / "m"), "bfloat16", adapter="none").backbone
    decoder = Decoder(backbone, 4, train_base=full)
    for name, parameter in decoder.named_parameters():
        trained = full or "low_rank" in name
        assert parameter.requires_grad == trained, name
        assert parameter.dtype == (torch.float32 if trained else torch.bfloat16), name
    assert decoder.head_VD is decoder.embedding_VD
    if full:
        with torch.no_grad():
            decoder.norm_D.zero_()
        assert backbone.norm_D.any(), "the model that is read is not the one that is trained"
