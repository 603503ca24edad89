"""How likely a text's tokens are, and fills that begin with a draft; on tiny random models."""

from pathlib import Path

import pytest
import tiny
import torch

from diffcode import Infiller
from diffcode.config import DenoiseOptions, WindowOptions
from diffcode.engine import Model
from diffcode.errors import BadOption, Cancelled
from diffcode.interrupt import Stop

PART = "    deretu = 'é😀'\r\n\r\n    return deretu\r\n"
TEXT = "def f(x):\r\n" + PART + "\r\nprint(f(1))\r\n"
START = TEXT.index(PART)


@pytest.fixture(params=["float32", "int8"])
def infiller(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Infiller:
    monkeypatch.setenv("DIFFCODE_HOME", str(tmp_path / "home"))
    folder = tiny.write_model(tmp_path / "model")
    adapter = tiny.write_adapter(tmp_path / "adapter", tiny.adapter_tensors(tiny.config()))
    return Infiller(Model.load(str(folder), str(adapter), "cpu", request.param), WindowOptions(128))


def test_every_token_has_its_place_and_its_likelihood(infiller: Infiller) -> None:
    found = infiller.doubts(TEXT, START, START + len(PART))
    model = infiller.model
    ids = model.tokens.encode(PART.replace("\r\n", "\n"))
    assert len(found) == len(ids)
    assert found[0].start == START
    assert found[-1].end == START + len(PART)
    for doubt, token in zip(found, ids, strict=True):
        piece = model.tokens.bytes_of(token)
        shown = TEXT[doubt.start : doubt.end].replace("\r\n", "\n").encode()
        assert piece in shown
        assert len(shown) - len(piece) < 4, "at most the rest of a character more"
        assert 0 <= doubt.bound <= 1
    # the same from one long forward: nothing hangs on where the part is cut
    context = [*_context(infiller), *ids]
    base, _ = model.session().step(context[: -len(ids)], context[-len(ids) : -1], (), (), 0, [None] * len(ids))
    for doubt, token, guess in zip(found, ids, base, strict=True):
        expected = guess.probability if guess.token == token else guess.probability - guess.margin
        assert doubt.bound == pytest.approx(max(0.0, expected), abs=1e-3)


def _context(infiller: Infiller) -> tuple[int, ...]:
    from diffcode.canvas import make_block
    from diffcode.holes import Hole

    return make_block(TEXT, [Hole(START, START + len(PART))], [""], 0, infiller.model.tokens, infiller.window).context


def test_the_bound_holds_for_the_true_probability(infiller: Infiller) -> None:
    """Against a softmax over all logits, in torch."""
    model, backbone = infiller.model, infiller.model.backbone
    ids = model.tokens.encode(PART.replace("\r\n", "\n"))
    context = [*_context(infiller), *ids]
    cache = backbone.new_cache(len(context))
    rows = torch.ones(len(context), len(context)).tril().bool()
    hidden = backbone.forward(backbone.embed(context), torch.arange(len(context)), cache, rows, 0, None)
    chance = (hidden[-len(ids) - 1 : -1].float() @ backbone.head_VD.float().T).softmax(-1)
    true = chance[torch.arange(len(ids)), torch.tensor(ids)].tolist()
    slack = 0.05 if model.engine else 1e-3  # 8 bits
    for doubt, likely in zip(infiller.doubts(TEXT, START, START + len(PART)), true, strict=True):
        assert likely <= doubt.bound + slack


def test_a_part_begins_with_its_line_and_may_be_empty(infiller: Infiller) -> None:
    whole, part = (infiller.doubts(TEXT, at, START + len(PART)) for at in (START, START + 9))
    assert part == whole
    assert infiller.doubts(TEXT, START, START) == ()
    assert infiller.doubts("", 0, 0) == ()


def test_reading_can_be_stopped(infiller: Infiller) -> None:
    stop = Stop()
    stop.set()
    with pytest.raises(Cancelled):
        infiller.doubts(TEXT, START, START + len(PART), stop)


# ---- drafts


@pytest.mark.parametrize("cursor", [START + len("    deretu"), START + 4, len(TEXT)])
def test_a_draft_changes_nothing_but_the_number_of_forwards(infiller: Infiller, cursor: int) -> None:
    options = DenoiseOptions("verified", max_tokens=16, ngrams=0)
    cold = infiller.fill_with(TEXT, [(cursor, cursor)], options)
    text = cold.spans[0].text
    for draft in (text, text[: len(text) // 2], "zzz" + text, "", "é😀"):
        warm = infiller.fill_with(TEXT, [(cursor, cursor)], options, drafts=[draft])
        assert warm.text == cold.text
        assert warm.forwards <= cold.forwards + 1


def test_a_draft_that_is_right_saves_forwards(infiller: Infiller) -> None:
    options, saved = DenoiseOptions("verified", max_tokens=4, ngrams=0), 0
    for n in range(200):
        text = f"value{n} = {n * 7}\n"
        cold = infiller.fill_with(text, [(len(text), len(text))], options)
        spelt = infiller.model.tokens.encode(cold.spans[0].text)
        if spelt != list(cold.spans[0].tokens) or cold.forwards < 3:
            continue  # a random model mostly writes halves of characters
        warm = infiller.fill_with(text, [(len(text), len(text))], options, drafts=[cold.spans[0].text])
        assert (warm.forwards, warm.text) == (1, cold.text)
        saved += 1
        if saved == 3:
            return
    assert saved, "no text of this model's can be a draft"


def test_there_is_one_draft_for_each_hole(infiller: Infiller) -> None:
    with pytest.raises(BadOption, match="2 holes and 1 drafts"):
        infiller.fill(TEXT, [(0, 0), (START, START)], drafts=["x"], max_tokens=2)
