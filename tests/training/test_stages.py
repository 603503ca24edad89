"""What the stages measure, and the measure of stage B against the real policy at work."""

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_kit import DENOISING, example, load, span_stage, stir

from diffcode.config import DenoiseOptions
from diffcode.denoise import Denoised, Problem, Run, denoise
from diffcode.engine import Model
from diffcode.infill import Infiller
from diffcode.kernels.plan import NO_SPAN
from diffcode.policies import Guess
from diffcode.stops import StopRule
from diffcode.tokens import Tokens
from diffcode.training.dataset import Dataset, DatasetWriter
from diffcode.training.decoder import CausalAttention, Decoder
from diffcode.training.infill_stage import InfillStage
from diffcode.training.launch import frequent_tokens
from diffcode.training.masks import Span
from diffcode.training.options import InfillOptions
from diffcode.training.sampler import Example
from diffcode.training.span_stage import Text, tokens_a_forward


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("base") / "m")


@pytest.fixture(scope="module")
def tokens(base: Path) -> Tokens:
    return Tokens.from_folder(base)


# ---- tokens a forward


@dataclass
class Script:
    """A session whose base writes a, b, c, ... and then the end, whatever stands before; drafts are as told."""

    places: int  # tokens without the end
    agrees: Sequence[Sequence[bool]]
    chance: Sequence[Sequence[float]]
    window: int
    read: int = -1  # places in the context; the canvas itself is not one
    sent: list[int] = field(default_factory=list)

    def token(self, place: int) -> int:
        return 97 + place if place < self.places else tiny.END

    def step(self, fresh, drafts, window, anchors, first_place, allowed):
        self.sent = [*fresh, *drafts]
        base = tuple(Guess(self.token(first_place + i), 1.0) for i in range(len(drafts) + 1))
        spans = [()] * (len(drafts) + 1)
        for anchor in anchors:
            spans[anchor] = tuple(self.guess(first_place + anchor, w) for w in range(len(window)))
        return base, tuple(spans)

    def guess(self, start: int, w: int) -> Guess:
        if start >= self.places:
            return Guess(96, 0.0, origin="span")
        right = self.token(start + w + 1) if self.agrees[start][w] else 96
        return Guess(right, self.chance[start][w], origin="span")

    def keep(self, rows: int) -> None:
        assert rows <= len(self.sent)


def forwards(script: Script, tokens: Tokens) -> int:
    options = DenoiseOptions(ngrams=0, span_rows=script.window, max_drafts=script.window)
    loop = denoise(script, Problem((1, 2), b"", StopRule("")), options, tokens)  # type: ignore[arg-type]
    done = finished(loop)
    assert [*done.tokens] == [script.token(i) for i in range(script.places + 1)]
    return done.forwards


def finished(loop: Generator[Run, None, Denoised]) -> Denoised:
    """What a denoising loop comes to."""
    while True:
        try:
            next(loop)
        except StopIteration as end:
            done: Denoised = end.value
            return done


@st.composite
def middles(draw: st.DrawFn) -> tuple[int, list[list[list[bool]]], list[list[list[float]]]]:
    """(window, agreement, confidence) of one to three middles."""
    window = draw(st.integers(1, 6))
    rng, often = draw(st.randoms(use_true_random=False)), draw(st.sampled_from([0.0, 0.5, 0.9, 1.0]))
    lengths = draw(st.lists(st.integers(1, 14), min_size=1, max_size=3))
    agrees = [[[rng.random() < often for _ in range(window)] for _ in range(n)] for n in lengths]
    levels = draw(st.sampled_from([(0.01, 0.99), (0.2, 0.3, 0.4, 0.6, 0.9)]))
    return window, agrees, [[[rng.choice(levels) for _ in range(window)] for _ in range(n)] for n in lengths]


@settings(max_examples=200)
@given(middles())
def test_tokens_a_forward_are_those_of_the_policy(
    tokens: Tokens, drawn: tuple[int, list[list[list[bool]]], list[list[list[float]]]]
) -> None:
    window, agrees, chance = drawn
    scripts = [Script(len(a), a, c, window) for a, c in zip(agrees, chance, strict=True)]
    gold = sum(s.places + 1 for s in scripts) / sum(forwards(s, tokens) for s in scripts)
    agrees_SW = torch.tensor([row for middle in agrees for row in middle])
    chance_SW = torch.tensor([row for middle in chance for row in middle], dtype=torch.float64)
    assert tokens_a_forward(agrees_SW, chance_SW, [len(a) for a in agrees]) == pytest.approx(gold)


@pytest.mark.parametrize(("places", "window", "gold"), [(12, 3, 13 / 4), (12, 1, 13 / 7), (1, 4, 1.0), (3, 8, 2.0)])
def test_perfect_drafts_in_numbers(places: int, window: int, gold: float) -> None:
    """The first forward gives one token, each later one a window and one more."""
    yes = torch.ones(places, window, dtype=torch.bool)
    assert tokens_a_forward(yes, yes.float(), [places]) == pytest.approx(gold)
    assert tokens_a_forward(yes, 0 * yes.float(), [places]) == 1.0


# ---- stage B


def test_validation_is_what_the_rows_say(base: Path) -> None:
    """Against one masks-only span at a time."""
    stage = span_stage(load(base, adapter="none").backbone, options=replace(DENOISING, window=3))
    stir(stage.parameters(), size=0.4)
    examples = [(i, example(4, 9, length, i)) for i, length in enumerate((7, 2, 1, 12))]
    found = stage.validate(examples)
    agrees, right, nll, chance, alive, middles = [], [], [], [], [], []
    for _, e in examples:
        ids = (*e.context, *e.middle)
        for start in range(len(e.context), len(ids) - 1):
            shown = tuple(ids[p] if p < len(ids) else tiny.END for p in range(start, start + 4))
            scored = stage._score([masks_only(ids, len(e.context), start, shown)])
            agrees.append(scored.agrees_R)
            right.append(scored.right_R)
            nll.append(scored.nll_R)
            chance.append(scored.top_R)
            alive.append(torch.tensor([start + w + 1 < len(ids) for w in range(3)]))
        if len(e.middle) > 1:
            middles.append(len(e.middle) - 1)
    agrees_SW, alive_SW = torch.stack(agrees), torch.stack(alive)
    assert found["measure"] == found["tokens_a_forward"] == tokens_a_forward(agrees_SW, torch.stack(chance), middles)
    for w in range(3):
        mine = alive_SW[:, w]
        for name, column in (("agrees", agrees_SW), ("right", torch.stack(right)), ("nll", torch.stack(nll))):
            assert found[f"{name}_{w + 1}"] == pytest.approx(float(column[mine, w].float().mean()), abs=1e-5)


def masks_only(ids: tuple[int, ...], middle: int, start: int, shown: tuple[int, ...]) -> Text:
    return Text(ids, middle, [Span(start, (-1,) * 3, shown[:-1], shown[1:], (1.0,) * 3)])


def test_examples_without_a_place_for_a_span_do_no_harm(base: Path) -> None:
    """No prefix and nothing missing: alone in a forward, and beside another text."""
    stage = span_stage(load(base, adapter="none").backbone)
    nothing, other = (0, example(5, 0, 1)), (1, example(5, 8, 4))
    alone = stage.score([other])
    beside = stage.score([nothing, other])
    assert float(beside.loss.detach()) == pytest.approx(float(alone.loss.detach()), rel=1e-5)
    empty = stage.score([nothing])
    assert (float(empty.loss.detach()), empty.weight) == (0.0, 0.0)
    empty.loss.backward()


def test_draws_depend_on_the_examples_number_alone(base: Path) -> None:
    stage = span_stage(load(base, adapter="none").backbone)
    a, b = example(4, 20, 9, 1), example(6, 30, 5, 2)
    assert torch.equal(stage.score([(7, a)]).loss, stage.score([(7, a)]).loss)
    assert not torch.equal(stage.score([(8, a)]).loss, stage.score([(7, a)]).loss)
    apart = sum(float(stage.score([pair]).loss.detach()) for pair in ((7, a), (9, b)))
    assert float(stage.score([(7, a), (9, b)]).loss.detach()) == pytest.approx(apart, rel=1e-5)


def test_rows_bound_what_a_forward_takes(base: Path) -> None:
    stage = span_stage(load(base, adapter="none").backbone)
    assert stage.rows(example(4, 9, 5)) >= 4 + 9 + 5 + 3 + DENOISING.window * DENOISING.starts


def test_heads_learn_faster(base: Path) -> None:
    stage = span_stage(load(base, adapter="none").backbone, options=replace(DENOISING, heads_rate=7.0))
    rates = {name: stage.rate_of(name) for name in stage.parameters()}
    assert {name for name, rate in rates.items() if rate == 7.0} == {"head.mask_D", "head.down_HE", "head.up_DH"}
    assert {rate for name, rate in rates.items() if "low_rank" in name} == {1.0}


def test_tokens_kept_are_the_frequent_ones_and_the_end(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "set") as writer:
        for document in ([5, 5, 5, 9, 9, 2], [9, 9, 7, 7, 5], [30] * 50):
            writer.add(document, "python")
        writer.close({"validation_documents": 1})
    dataset = Dataset.open(tmp_path / "set")
    assert frequent_tokens(dataset, 3, tiny.END, 288).tolist() == [5, 9, tiny.END], "30 is held out"
    assert frequent_tokens(dataset, 99, tiny.END, 288).tolist() == [2, 5, 7, 9, tiny.END]


# ---- stage A


def greedy(decoder: Decoder, context: Sequence[int], most: int) -> list[int]:
    """Left to right with the low-rank maps on, the whole text anew for every token."""
    ids = list(context)
    while len(ids) < len(context) + most:
        x = decoder.embed(torch.tensor(ids))
        with torch.no_grad():
            hidden = decoder(x, torch.arange(len(ids)), CausalAttention([len(ids)]))
        ids.append(int((hidden[-1] @ decoder.head_VD.T).argmax()))
        if ids[-1] >= len(tiny.TEXTS):
            break
    return ids[len(context) :]


def trained(model: Model, seed: int) -> InfillStage:
    stage = InfillStage(Decoder(model.backbone, 4), InfillOptions())
    stir(stage.parameters(), seed, 0.5)
    return stage


def test_a_merged_adapter_fills_as_the_stage_would(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFCODE_HOME", str(tmp_path / "home"))
    stage = trained(load(base, adapter="none"), 3)
    stage.save(tmp_path / "a", {})
    merged = Infiller.from_pretrained(str(base), adapter="none", dtype="float32", infill=str(tmp_path / "a"))
    plain = Infiller.from_pretrained(str(base), adapter="none", dtype="float32")
    text, differs = "def re(de):\n    \n    return de\n", 0
    for at in (12, 17, 29):  # behind line ends and an indent
        for cut in (0, 4):
            prefix = text[:at]
            context = (tiny.PREFIX, tiny.SUFFIX, *merged.model.tokens.encode(text[at + cut :]), tiny.MIDDLE)
            context = (*context, *merged.model.tokens.encode(prefix))
            ours = decoded(merged, context)
            assert ours == greedy(stage.decoder, context, 12)
            differs += ours != decoded(plain, context)
    assert differs, "the adapter has no say: this tests nothing"


def decoded(infiller: Infiller, context: tuple[int, ...]) -> list[int]:
    """What the loop writes behind a canvas, by `verified`."""
    model = infiller.model
    problem = Problem(context, b"", StopRule(""))
    loop = denoise(model.session(), problem, DenoiseOptions(max_tokens=12), model.tokens, NO_SPAN)
    return list(finished(loop).tokens)


def test_exact_means_that_greedy_decoding_gives_the_middle(base: Path) -> None:
    """Middles that the stage itself wrote are exact, others are not; where the end is missed nothing is."""
    stage = trained(load(base, adapter="none"), 5)
    with torch.no_grad():
        stage.decoder.head_VD[tiny.END] *= 4  # else this random model ends nothing
    examples, exact, ends = [], 0, 0
    for seed in range(12):
        e = example(5, 6, 4, seed)
        written = greedy(stage.decoder, e.context, 6)
        if written[-1] == tiny.END and seed % 2:
            e = Example(e.context, tuple(written), "nodes", "python")
            exact += 1
        examples.append((seed, e))
        ends += greedy(stage.decoder, (*e.context, *e.middle[:-1]), 1) == [tiny.END]
    found = stage.validate(examples)
    assert exact
    assert found["exact"] == exact / 12
    with torch.no_grad():
        scored = stage.score(examples)
    assert found["measure"] == pytest.approx(-float(scored.loss) / scored.weight, rel=1e-4)
    assert found["exact_nodes"] == 1.0
    assert found["exact_lines"] == 0.0
    assert found["end"] == pytest.approx(ends / 12)


def test_a_row_of_several_texts_is_each_ones_own(base: Path) -> None:
    stage = trained(load(base, adapter="none"), 6)
    pairs = [(i, example(3 + i, 8, 2 + i, i)) for i in range(4)]
    whole = stage.score(pairs)
    parts = [stage.score([pair]) for pair in pairs]
    assert float(whole.loss.detach()) == pytest.approx(sum(float(p.loss.detach()) for p in parts), rel=1e-5)
    assert torch.allclose(whole.nll_R, torch.cat([p.nll_R for p in parts]), atol=1e-4)
    assert [len(p.nll_R) for p in parts] == [2, 3, 4, 5]


# ---- what is written


def test_an_adapter_says_what_it_is(base: Path, tmp_path: Path) -> None:
    model = load(base, adapter="none")
    trained(model, 1).save(tmp_path / "a", {"step": 5})
    span_stage(model.backbone).save(tmp_path / "b", {"step": 7})
    for name, stage, step in (("a", "infill", 5), ("b", "span", 7)):
        config = json.loads((tmp_path / name / "adapter_config.json").read_text())
        assert config["diffcode"] == {"stage": stage, "step": step}
        assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 4, 4)
        assert len(set(config["target_modules"])) == 7


def test_peft_itself_would_read_these_names(base: Path, tmp_path: Path) -> None:
    """Every name is `base_model.model.` and a weight of the model, with shapes that fit it."""
    from safetensors.torch import load_file

    trained(load(base, adapter="none"), 1).save(tmp_path, {})
    weights, seen = tiny.weights(tiny.config()), set()
    for name, tensor in load_file(tmp_path / "adapter_model.safetensors").items():
        stem, _, end = name.removeprefix("base_model.model.").partition(".lora_")
        rows, columns = weights[f"{stem}.weight"].shape
        assert tensor.shape == {"A.weight": (4, columns), "B.weight": (rows, 4)}[end]
        seen.add(stem)
    assert len(seen) == 2 * 7
