"""How well a text reads on behind a fill, against a softmax over all logits; on tiny random models."""

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcode import reading
from diffcode.canvas import Block, make_block
from diffcode.config import WindowOptions
from diffcode.contexts import Contexts
from diffcode.engine import Model
from diffcode.errors import Cancelled
from diffcode.holes import check_holes
from diffcode.interrupt import Stop

BEFORE, AFTER = "def f(x):\r\n    deretu = ", "\r\n    return deretu + 'é😀'\r\n\r\nprint(f(1))\r\n"


@pytest.fixture(scope="module", params=["float32", "int8"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("reading")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFCODE_HOME", str(path / "home"))
        return Model.load(str(tiny.write_model(path / "model")), "none", "cpu", request.param)


def block_of(model: Model, before: str, after: str) -> Block:
    holes = check_holes(before + after, [(len(before), len(before))])
    return make_block(before + after, holes, [""], 0, model.tokens, WindowOptions(64))


def by_hand(model: Model, before: list[int], ids: list[int]) -> float:
    backbone, all_ids = model.backbone, [*before, *ids]
    cache = backbone.new_cache(len(all_ids))
    rows = torch.ones(len(all_ids), len(all_ids)).tril().bool()
    hidden_RD = backbone.forward(backbone.embed(all_ids), torch.arange(len(all_ids)), cache, rows, 0, None)
    logp_RV = (hidden_RD[len(before) - 1 : -1].float() @ backbone.head_VD.float().T).log_softmax(-1)
    return float(logp_RV[torch.arange(len(ids)), torch.tensor(ids)].sum())


@pytest.mark.parametrize("before", [BEFORE, ""])
@pytest.mark.parametrize("fill", ["", "x * 2", "def " * reading.CHUNK])
def test_it_is_the_probability_of_fill_and_what_follows(model: Model, before: str, fill: str) -> None:
    block, tokens = block_of(model, before, AFTER), model.tokens
    ahead = tokens.decode_bytes(tokens.encode(AFTER.replace("\r\n", "\n"))[: reading.AHEAD]).decode(errors="ignore")
    ids = tokens.encode(block.heal.decode() + fill + ahead)
    shown = tokens.encode(before.replace("\r\n", "\n").removesuffix(block.heal.decode())) or [tokens.fim.end]
    slack = {"abs": 1e-3 * len(ids)} if model.engine is None else {"rel": 0.02}  # 8 bits
    assert reading.reads_on(model, block, fill, None) == pytest.approx(by_hand(model, shown, ids), **slack)


@settings(max_examples=30, deadline=None)
@given(before=st.text(max_size=40), after=st.text(max_size=40), fills=st.lists(st.text(max_size=40), max_size=3))
def test_any_texts_can_be_read_and_what_was_read_before_changes_nothing(
    model: Model, before: str, after: str, fills: list[str]
) -> None:
    block, contexts = block_of(model, before, after), Contexts()
    for fill in fills:
        alone = reading.reads_on(model, block, fill, None)
        assert alone <= 0
        assert reading.reads_on(model, block, fill, contexts) == alone


def test_reading_can_be_stopped(model: Model) -> None:
    stop = Stop()
    stop.set()
    with pytest.raises(Cancelled):
        reading.reads_on(model, block_of(model, BEFORE, AFTER), "x", None, stop)
