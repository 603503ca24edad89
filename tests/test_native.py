"""The CPU engine behind a session, against the torch session whose every linear map is rounded the same way."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor

from diffcode.config import DenoiseOptions
from diffcode.engine import Model
from diffcode.infill import Infiller
from diffcode.kernels.cpu import native
from diffcode.kernels.pack import group_of, pack_linear, unpack_linear
from diffcode.policies import Guess

pytestmark = pytest.mark.skipif(native.library() is None, reason="the CPU engine was not built here")
SHAPES = {
    "four heads": {},
    "seven heads a group": {"hidden_size": 224, "num_attention_heads": 14, "head_dim": 16},
    "llama": {"kind": "llama"},
}


def rounded_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` as the engine computes it: rows and weights in 8 bits by groups."""
    group = group_of(x.shape[-1], 128)
    groups = x.float().unflatten(-1, (x.shape[-1] // group, group))
    most = groups.abs().amax(-1, keepdim=True)
    inverse = torch.where(most > 0, 127 / most, torch.zeros_like(most))
    bytes_ = ((groups * inverse).round() * (most / 127)).flatten(-2)
    y = bytes_.double() @ unpack_linear(pack_linear(weight)).double().T
    return (y if bias is None else y + bias).to(x.dtype)


@pytest.fixture(params=SHAPES)
def models(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Model, Model]:
    """(torch with rounded maps, native), the same weights and adapter, a successor map included."""
    monkeypatch.setenv("DIFFCODE_HOME", str(tmp_path / "home"))
    changes = dict(SHAPES[request.param])
    kind = changes.pop("kind", "qwen2")
    folder = tiny.write_model(tmp_path / "model", kind, **changes)
    settings = tiny.config(kind, **changes)
    tensors = tiny.adapter_tensors(settings, kept=range(0, tiny.VOCABULARY, 2))
    width = settings["hidden_size"]
    tensors["successor_down"] = torch.randn(32, 2 * width, generator=torch.Generator().manual_seed(5)) / width**0.5
    tensors["successor_up"] = torch.randn(width, 32, generator=torch.Generator().manual_seed(6)) / 32**0.5
    adapter = tiny.write_adapter(tmp_path / "adapter", tensors)
    plain, fast = (Model.load(str(folder), str(adapter), dtype="float32", machine=m) for m in ("torch", "native"))
    plain.backbone.embedding_VD = plain.backbone.embedding_VD.bfloat16().float()  # the engine keeps it so
    monkeypatch.setattr(torch.nn.functional, "linear", rounded_linear)
    return plain, fast


def check_alike(one: Guess, other: Guess, drawn: bool = False) -> None:
    """Equal but for a value that lay between two bytes and was rounded the other way."""
    assert one.origin == other.origin
    if one.token != other.token:
        assert not drawn
        assert one.margin < 0.05, "another token where it was no near tie"
        return
    for name in ("probability", "margin", "entropy"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), abs=2e-2), name


STEPS = (
    (list(range(10, 60)), [], [None] * 3, [0], 0, [None]),
    ([5], [7, 8], [None, 9, None], [0, 2], 1, [None] * 3),
    ([5, 6], [7], [], [], 2, [None, [1, 2, 3]]),
    ([11], [], [None] * 4, [0], 4, [None]),
)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_session_says_what_the_specification_says(models: tuple[Model, Model], temperature: float) -> None:
    sessions = [m.session(m.noise(3) if temperature else None, temperature) for m in models]
    for step in STEPS:
        (base, spans), (fast_base, fast_spans) = (session.step(*step) for session in sessions)
        for session in sessions:
            session.keep(len(step[0]))
        said = [*base, *(g for guesses in spans for g in guesses)]
        fast = [*fast_base, *(g for guesses in fast_spans for g in guesses)]
        assert [len(s) for s in spans] == [len(s) for s in fast_spans]
        for one, other in zip(said, fast, strict=True):
            check_alike(one, other, drawn=temperature > 0)


def test_results_do_not_depend_on_threads_or_on_how_the_context_came(models: tuple[Model, Model]) -> None:
    from diffcode.kernels.cpu.engine import Engine
    from diffcode.native import NativeSession

    """600 rows are more than one pass takes."""
    fast = models[1]
    assert fast.engine is not None
    weights = fast.engine._held[0]
    ids, seen = [i % 200 for i in range(600)], []
    for threads, cuts in ((1, [600]), (2, [600]), (3, [300, 600]), (2, [1, 2, 255, 511, 600])):
        session = NativeSession(Engine(weights, threads), fast.adapter.kept_N, None, 0.0)  # type: ignore[union-attr,arg-type]
        start = 0
        for end in cuts:
            base, spans = session.step(ids[start:end], [], [None] * 3, [0], 0, [None])
            session.keep(end - start)
            start = end
        seen.append((base, spans))
    assert all(found == seen[0] for found in seen)


def test_policies_run_over_it(models: tuple[Model, Model]) -> None:
    infiller = Infiller(models[1])
    options = [DenoiseOptions(policy, max_tokens=12) for policy in ("leftmost", "verified", "threshold", "edit")]
    text = "def f(a):\n    return \n"
    fills = [infiller.fill_with(text, [(len(text) - 1,) * 2], option) for option in options]
    assert fills[0].text == fills[1].text
    assert all(fill.tokens > 0 for fill in fills)


def test_packed_weights_are_written_once(models: tuple[Model, Model], tmp_path: Path) -> None:
    packed = list((tmp_path / "home" / "packed").glob("*.safetensors"))
    assert len(packed) == 1
    before = packed[0].stat().st_mtime_ns
    Model.load(str(tmp_path / "model"), "none", dtype="float32", machine="native")
    assert packed[0].stat().st_mtime_ns == before


def test_an_adapter_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFCODE_HOME", str(tmp_path / "home"))
    model = Model.load(str(tiny.write_model(tmp_path / "m")), "none", dtype="float32", machine="native")
    base, spans = model.session().step([1, 2, 3], [4], [], [], 0, [None, None])
    assert (len(base), spans) == (2, ((), ()))
    assert replace(model, engine=None).session().step([1, 2, 3], [4], [], [], 0, [None, None])[0][0].token >= 0
