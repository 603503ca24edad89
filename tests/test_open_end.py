"""Where nothing follows a hole the infilling adapter is taken out again: with torch and in the CPU engine."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor

from diffcode.adapter import undoing
from diffcode.config import DenoiseOptions, WindowOptions
from diffcode.contexts import Contexts
from diffcode.engine import Model
from diffcode.infill import Infiller
from diffcode.kernels.cpu import native
from diffcode.kernels.cpu.engine import Engine
from diffcode.native import NativeSession
from diffcode.policies import Guess

needs_engine = pytest.mark.skipif(native.library() is None, reason="the CPU engine was not built here")
SETTINGS = tiny.config()
CONTEXT, DRAFTS = list(range(10, 60)), [7, 8]
LEFTMOST = DenoiseOptions("leftmost", max_tokens=12)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFCODE_HOME", str(tmp_path / "home"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_model(tmp_path / "model")


def low_ranks(shared: bool) -> dict[str, Tensor]:
    return {name: t for name, t in tiny.adapter_tensors(SETTINGS, seed=1, shared=shared).items() if "lora_" in name}


@pytest.fixture(params=[True, False], ids=["shared A", "separate A"])
def infill(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tiny.write_adapter(tmp_path / "infill", low_ranks(request.param), alpha=2.0)


@pytest.fixture
def spans(tmp_path: Path) -> Path:
    return tiny.write_adapter(tmp_path / "spans", tiny.adapter_tensors(SETTINGS, seed=2))


def said(model: Model, open_ended: bool, window: int = 0) -> list[Guess]:
    session = model.session(open_ended=open_ended)
    base, found = session.step(CONTEXT, DRAFTS, [None] * window, [2] if window else [], 0, [None] * 3)
    return [*base, *(guess for guesses in found for guess in guesses)]


def far(one: list[Guess], other: list[Guess]) -> float:
    """How far their entropies lie apart, on average, in nats."""
    return sum(abs(a.entropy - b.entropy) for a, b in zip(one, other, strict=True)) / len(one)


@pytest.mark.parametrize("window", [0, 3])
def test_torch_says_what_the_published_weights_say(folder: Path, infill: Path, spans: Path, window: int) -> None:
    merged, plain = (
        Model.load(str(folder), str(spans), dtype="float32", infill=name) for name in (str(infill), "none")
    )
    assert far(said(merged, True, window), said(plain, False, window)) < 1e-3
    assert far(said(merged, False, window), said(plain, False, window)) > 0.02
    assert said(plain, True, window) == said(plain, False, window)


@needs_engine
@pytest.mark.parametrize("window", [0, 3])
def test_the_engine_says_nearly_that(folder: Path, infill: Path, spans: Path, window: int) -> None:
    plain = Model.load(str(folder), str(spans), dtype="float32", infill="none")
    merged = Model.load(str(folder), str(spans), dtype="int8", infill=str(infill))
    without, with_it = (far(said(merged, kind, window), said(plain, False, window)) for kind in (True, False))
    assert without < 0.5 * with_it


@needs_engine
def test_the_engine_does_so_for_any_threads_and_pieces(folder: Path, infill: Path, spans: Path) -> None:
    merged = Model.load(str(folder), str(spans), dtype="int8", infill=str(infill))
    assert merged.engine is not None
    weights, ids, seen = merged.engine._held[0], [i % 200 for i in range(300)], []
    for threads, cuts in ((1, [300]), (2, [300]), (3, [7, 20, 300]), (2, [260, 270, 300])):
        session = NativeSession(Engine(weights, threads), None, None, 0.0, open_ended=True)  # type: ignore[arg-type]
        start = 0
        for end in cuts:
            found = session.step(ids[start:end], [], [None] * 3, [0], 0, [None])
            session.keep(end - start)
            start = end
        seen.append(found)
    assert all(found == seen[0] for found in seen)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("int8", marks=needs_engine)])
def test_only_a_hole_that_nothing_follows_is_filled_without_it(folder: Path, infill: Path, dtype: str) -> None:
    asked: list[bool] = []
    infiller = Infiller.from_pretrained(str(folder), adapter="none", dtype=dtype, infill=str(infill))
    session = Model.session

    def noted(model: Model, *given: object) -> object:
        asked.append(bool(given[5:] and given[5]))
        return session(model, *given)  # type: ignore[arg-type]

    text = "def f(a):\n    return \n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Model, "session", noted)
        infiller.fill_with(f"{text}\n \n", [(len(text) - 1,) * 2], LEFTMOST)
        infiller.fill_with(f"{text}g()\n", [(len(text) - 1,) * 2], LEFTMOST)
    assert asked[0] is True
    assert asked[-1] is False, "torch asks a second model, and that one plainly"


def test_the_copy_is_made_once_and_for_its_model(folder: Path, infill: Path, spans: Path) -> None:
    model = Model.load(str(folder), str(spans), dtype="float32", infill=str(infill))
    assert model.undone is not None
    copy = model.undone.of(model)
    assert model.undone.of(model) is copy
    other = replace(model, adapter=None)
    assert model.undone.of(other).adapter is None
    assert model.with_adapter(spans).undone is not model.undone


def test_an_adapter_of_some_maps_only_stays(folder: Path, tmp_path: Path) -> None:
    some = {name: t for name, t in low_ranks(shared=False).items() if "down_proj" in name}
    adapter = tiny.write_adapter(tmp_path / "some", some)
    assert undoing(adapter, 2) is None
    model = Model.load(str(folder), "none", dtype="float32", infill=str(adapter))
    assert said(model, True) == said(model, False)


def test_what_it_takes_out_is_what_was_merged(infill: Path) -> None:
    maps = undoing(infill, 2)
    assert maps is not None
    low = low_ranks(shared=False) if len(maps[0]["qkv"].down_rD) > 4 else low_ranks(shared=True)
    down, up = (low[f"base_model.model.model.layers.1.mlp.down_proj.lora_{half}.weight"] for half in "AB")
    assert torch.allclose(maps[1]["down"].up_Er @ maps[1]["down"].down_rD, -2.0 / 4 * up @ down, atol=1e-6)


@needs_engine
def test_contexts_of_the_two_weights_are_kept_apart(folder: Path, infill: Path) -> None:
    model, contexts = Model.load(str(folder), "none", dtype="int8", infill=str(infill)), Contexts()
    for open_ended in (False, True):
        assert contexts.known(CONTEXT, open_ended) == 0
        session = model.session(contexts=contexts, open_ended=open_ended)
        session.step(CONTEXT, [], [], [], 0, [None])
        session.keep(len(CONTEXT))
        session.close()
        assert contexts.known(CONTEXT, open_ended) == len(CONTEXT) - 1
    warm = Infiller(model, WindowOptions(64))
    text = "a = b\n" * 20
    fills = [warm.fill_with(text, [(len(text),) * 2], LEFTMOST).text for _ in range(2)]
    assert fills[0] == fills[1]
