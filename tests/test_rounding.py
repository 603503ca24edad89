"""The model's maps rounded: what a map is fitted to is what reaches it in the model."""

from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor

from diffcode import rounding
from diffcode.backbone import Backbone
from diffcode.kernels import reference as ops
from diffcode.kernels.fit import Moments
from diffcode.kernels.pack import Form, pack_linear, unpack_linear
from diffcode.loading import open_folder
from diffcode.rounding import canvases, fitted, rounded
from diffcode.tokens import Tokens


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_model(tmp_path / "model")


@pytest.fixture
def backbone(folder: Path) -> Backbone:
    return Backbone(*open_folder(folder), torch.float32, torch.device("cpu"))


@pytest.fixture
def tokens(folder: Path) -> Tokens:
    return Tokens.from_folder(folder)


def final_states(backbone: Backbone, text: tuple[int, ...]) -> Tensor:
    seen_RR = torch.ones(len(text), len(text)).tril().bool()
    return backbone.forward(backbone.embed(text), torch.arange(len(text)), backbone.new_cache(512), seen_RR)


def test_rows_reach_the_head_as_in_the_model(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[Tensor] = []
    add = Moments.add
    monkeypatch.setattr(Moments, "add", lambda moments, x: (rows.append(x), add(moments, x))[1])
    texts = [tuple(range(3, 40)), tuple(range(60, 82))]
    names = [name for name, _ in fitted(backbone, texts, Form(8, 16))]
    assert names == [*(f"layers.{i}.{map}" for i in (0, 1) for map in ("qkv", "out", "gate_up", "down")), "head"]
    wanted = torch.cat([final_states(backbone, text) for text in texts])
    assert torch.nn.functional.cosine_similarity(rows[-1], wanted).min() > 0.999


def test_a_map_changes_less_on_other_texts(backbone: Backbone, tokens: Tokens) -> None:
    """The first map, whose rows are easily made."""
    form, layer = Form(4, 16), backbone.layers[0]
    by_reading = dict(fitted(backbone, canvases(tokens, 6), form))["layers.0.qkv"]
    x_RD = ops.rms_norm(backbone.embed(canvases(tokens, 1, seed=1)[0]), layer.input_norm_D, 1e-6)
    lost, before = (
        ((unpack_linear(packed) - layer.qkv_ED) @ x_RD.T).square().mean()
        for packed in (by_reading, pack_linear(layer.qkv_ED, None, form))
    )
    assert lost < 0.9 * before


def test_8_bits_need_no_texts(backbone: Backbone, tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "canvases", lambda *_: pytest.fail("nothing is read for 8 bits"))
    named = dict(rounded(backbone, tokens, Form()))
    assert torch.equal(named["head"].weights, pack_linear(backbone.head_VD).weights)
    assert sum(packed.inputs * packed.outputs for packed in named.values()) == backbone.numbers


def test_canvases_are_suffix_first_and_the_same_every_time(tokens: Tokens) -> None:
    first, second = canvases(tokens, 3), canvases(tokens, 3)
    assert first == second
    assert len(set(first)) == 3
    fim = tokens.fim
    for ids in first:
        assert ids[:2] == (fim.prefix, fim.suffix)
        assert ids[-1] == fim.end
        assert ids.count(fim.middle) == 1
        at = ids.index(fim.middle)
        shown = tokens.decode(ids[at + 1 : -1]) + tokens.decode(ids[2:at])
        assert shown.count("\n") == rounding.WINDOW
