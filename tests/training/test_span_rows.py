"""What stage B scores is what decoding meets: its rows against a session with the adapter saved and loaded again."""

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from training_kit import DENOISING, example, ids, load, span_stage, stir

from diffcode.adapter import SpanAdapter, low_rank_maps
from diffcode.engine import Model
from diffcode.policies import Guess
from diffcode.training import span_stage as span_stage_module
from diffcode.training.decoder import Decoder
from diffcode.training.loss import Scored, scored_loss
from diffcode.training.masks import MASKED, Span
from diffcode.training.sampler import Example
from diffcode.training.span_stage import SpanHead, SpanStage, Text

KEPT = tuple(sorted({*range(0, 270, 2), tiny.END}))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("base") / "m")


def saved(stage: SpanStage, base: Path, folder: Path) -> Model:
    stage.save(folder, {"step": 3})
    return load(base, adapter=str(folder))


def behind(model: Model, whole: tuple[int, ...], span: Span) -> tuple[Guess, ...]:
    """What a session says of a span: the base's guess for its first place, then those of its rows."""
    window = [None if token == MASKED else token for token in span.shown]
    base, spans = model.session().step(whole[: span.start], (), window, (0,), 0, [None])
    return (base[0], *spans[0])


def as_met(span: Span, guesses: tuple[Guess, ...]) -> Span:
    """The span as a session runs it: each row is told the guess for its own place, and scored on its own guess."""
    previous = [g.token if s == MASKED else s for s, g in zip(span.shown, guesses, strict=False)]
    return replace(
        span, previous=tuple(previous), targets=tuple(g.token for g in guesses[1:]), weights=(1.0,) * len(previous)
    )


def assert_same(scored: Scored, guesses: list[Guess]) -> None:
    assert scored.right_R.all(), "another token is the likeliest"
    for nll, top, guess in zip(scored.nll_R.tolist(), scored.top_R.tolist(), guesses, strict=True):
        assert top == pytest.approx(guess.probability, abs=1e-5)
        assert nll == pytest.approx(-math.log(guess.probability), abs=1e-4)


def check(stage: SpanStage, model: Model, texts: list[Text]) -> list[Guess]:
    """Every row of every span, all texts in one forward of the stage."""
    found, met = [], []
    for text in texts:
        guesses = [behind(model, text.ids, span) for span in text.spans]
        met.append(replace(text, spans=[as_met(s, g) for s, g in zip(text.spans, guesses, strict=True)]))
        found += [guess for row in guesses for guess in row[1:]]
    assert_same(stage._score(met), found)
    return found


def texts_of(examples: list[Example], stage: SpanStage, **changes: float) -> list[Text]:
    drawing = SpanStage(stage.decoder, stage.head, stage.kept_N, tiny.MIDDLE, replace(stage.options, **changes))
    return [drawing._text(e, random.Random(i)) for i, e in enumerate(examples)]


EXAMPLES = [example(9, 14, 12, 1), example(0, 3, 6, 2), example(30, 0, 9, 3), example(5, 40, 1, 4)]


@pytest.mark.parametrize("kept", [KEPT, None], ids=["kept tokens", "whole vocabulary"])
@pytest.mark.parametrize("window", [1, 4, 7])
def test_span_rows_are_those_of_a_session(
    kept: tuple[int, ...] | None, window: int, base: Path, tmp_path: Path
) -> None:
    """Several texts of several lengths at once, masks only and islands, wrong tokens among them."""
    stage = span_stage(load(base).backbone, kept, replace(DENOISING, window=window, starts=8))
    model = saved(stage, base, tmp_path)
    guesses = check(stage, model, texts_of(EXAMPLES, stage, all_masked=0.3, noise=0.3, island_rate=0.9))
    assert len(guesses) > 20 * window
    assert len({g.token for g in guesses}) > 5


@pytest.mark.parametrize("what", ["low_rank", "mask_D", "down_HE", "up_DH"])
def test_every_part_of_the_adapter_has_a_say(what: str, base: Path, tmp_path: Path) -> None:
    """Else the comparison above could not fail."""
    stage = span_stage(load(base).backbone, KEPT)
    model = saved(stage, base, tmp_path)
    texts = texts_of(EXAMPLES, stage)
    stir({name: p for name, p in stage.parameters().items() if what in name}, seed=9)
    with pytest.raises(AssertionError):
        check(stage, model, texts)


def test_rows_that_stand_alone(base: Path, tmp_path: Path) -> None:
    """As training begins: a successor map that adds nothing, and one that the adapter has not got at all."""
    stage = span_stage(load(base).backbone, KEPT)
    with torch.no_grad():
        stage.head.up_DH.zero_()
    model = saved(stage, base, tmp_path)
    texts = texts_of(EXAMPLES, stage)
    guesses = check(stage, model, texts)
    bare = replace(model, adapter=replace(model.adapter, successor=None))
    again = [g for text in texts for span in text.spans for g in behind(bare, text.ids, span)[1:]]
    assert [g.token for g in again] == [g.token for g in guesses]
    assert [g.probability for g in again] == pytest.approx([g.probability for g in guesses], abs=1e-6)


def test_spans_behind_drafts(base: Path, tmp_path: Path) -> None:
    """Several starts of one text are several anchors of one forward, each told its own first token."""
    stage = span_stage(load(base).backbone, KEPT)
    model = saved(stage, base, tmp_path)
    whole, (first, *anchors) = (*ids(30, 5), tiny.END), (12, 13, 15, 16)
    shown = (MASKED, MASKED, 40, MASKED)
    rows, spans = model.session().step(
        whole[:first], whole[first:17], [None, None, 40, None], (0, *(a - first for a in anchors)), 0, [None] * 6
    )
    met = []
    for start in (first, *anchors):
        plain = Span(start, shown, (), (), ())
        met.append(as_met(plain, (rows[start - first], *spans[start - first])))
    scored = stage._score([Text(whole, 12, met)])
    assert_same(scored, [g for start in (first, *anchors) for g in spans[start - first]])


def test_training_in_bf16_meets_bf16_decoding(base: Path, tmp_path: Path) -> None:
    """Not to the last bit, for rows are laid out otherwise; but as near as bf16 gets."""
    model = load(base, "bfloat16")
    stage = span_stage(model.backbone, KEPT)
    stage.save(tmp_path, {})
    model = model.with_adapter(tmp_path)
    texts = texts_of(EXAMPLES, stage)
    met = [replace(t, spans=[as_met(s, behind(model, t.ids, s)) for s in t.spans]) for t in texts]
    ours = stage._score(met)
    theirs = [g for t in texts for s in t.spans for g in behind(model, t.ids, s)[1:]]
    assert ours.right_R.float().mean() > 0.9
    assert [float(n) for n in ours.nll_R] == pytest.approx([-math.log(g.probability) for g in theirs], abs=0.3)


def test_a_saved_stage_goes_on_as_it_was(base: Path, tmp_path: Path) -> None:
    """Save, load, begin from it: the same loss."""
    backbone = load(base).backbone
    stage = span_stage(backbone, KEPT)
    stage.save(tmp_path, {})
    adapter = SpanAdapter.load(tmp_path, 2, torch.float32, backbone.device)
    decoder, head = Decoder(backbone, 4, seed=77), SpanHead(64, torch.Generator().manual_seed(77))
    decoder.begin_from(low_rank_maps(tmp_path, 2))
    head.begin_from(adapter)
    again = SpanStage(decoder, head, adapter.kept_N, tiny.MIDDLE, stage.options)
    numbered = list(enumerate(EXAMPLES))
    assert {n: p.shape for n, p in again.parameters().items()} == {n: p.shape for n, p in stage.parameters().items()}
    for name, parameter in again.parameters().items():
        assert torch.equal(parameter, stage.parameters()[name]), name
        assert parameter.dtype == torch.float32
        assert parameter.requires_grad
    assert torch.equal(again.score(numbered).loss, stage.score(numbered).loss)


def test_the_teacher_is_the_base_reading_the_true_text(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `verified` will compare a draft with; behind the end of the text the last row stands in."""
    stage = span_stage(load(base).backbone, KEPT, replace(DENOISING, noise=0.5, island_rate=1.0, all_masked=0.3))
    taught: list[torch.Tensor] = []

    def listen(*given: Any) -> Scored:
        taught.append(given[4])
        return scored_loss(*given)

    monkeypatch.setattr(span_stage_module, "scored_loss", listen)
    texts = texts_of(EXAMPLES, stage)
    stage._score(texts)
    probability_SN = (taught[0] @ stage.decoder.head_VD.T).softmax(-1)
    bare, at = load(base, adapter="none"), 0
    for text in texts:
        says, _ = bare.session().step(text.ids[:1], text.ids[1:], (), (), 0, [None] * len(text.ids))
        for span in text.spans:
            for row in (span.start + w for w, target in enumerate(span.targets) if target >= 0):
                guess = says[min(row, len(text.ids) - 2)]
                assert int(probability_SN[at].argmax()) == guess.token
                assert float(probability_SN[at].max()) == pytest.approx(guess.probability, abs=1e-5)
                at += 1
    assert at == len(probability_SN) > 50
