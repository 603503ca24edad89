"""The fused step on torch's ops: the same fills as the torch session, by every policy. (In Triton's interpreter:
`interpreted/check_step.py`.)"""

import gc
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
import steps
import torch
from hypothesis import given
from hypothesis import strategies as st
from steps import BOUNDS, TEXT, denoised, load, with_stepper

from diffcode.config import POLICY_NAMES
from diffcode.drafts import likeliest_outcomes
from diffcode.engine import Model, TorchSession
from diffcode.errors import BadOption
from diffcode.fused import FusedSession, step_weights, stepper_for, trusted
from diffcode.infill import Infiller
from diffcode.kernels import ahead, dispatch, reference, stepper
from diffcode.kernels.ahead import anchors_of
from diffcode.kernels.graphs import Graphs


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(tmp_path_factory.mktemp("step"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(tmp_path_factory.mktemp("plain"), successor=False)


def test_without_a_gpu_torch_works(model: Model) -> None:
    assert model.stepper is None
    assert stepper_for(model.backbone, model.adapter, model.span_head_ND) is None
    assert isinstance(model.session(), TorchSession)


def test_kernels_are_tried_before_they_are_trusted(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    stepper = steps.stepper_of(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert trusted(stepper)

    def wrong(*given, **more):
        return reference.gated_mlp(*given, **more) * (1 if dispatch._plain else -1)

    def broken(*given, **more):
        if dispatch._plain:
            return reference.gated_mlp(*given, **more)
        raise RuntimeError("out of resource: shared memory\n...")

    def wrong_tile(x, *given, **more):
        out = reference.gated_mlp(x, *given, **more)
        if not dispatch._plain:
            out[64:80] *= -1  # none of few rows
        return out

    kernels = (wrong, "off by"), (wrong_tile, "off by"), (broken, r"\(out of resource: shared memory\)")
    for kernel, reason in kernels:
        monkeypatch.setattr(dispatch, "gated_mlp", kernel)
        with pytest.warns(UserWarning, match=reason):
            assert not trusted(stepper)
    monkeypatch.undo()
    assert trusted(stepper), "and its place in the arena came back"


@pytest.mark.parametrize("policy", POLICY_NAMES)
def test_the_same_fills_as_torch(policy: str, model: Model) -> None:
    fused = with_stepper(model)
    assert isinstance(fused.session(), FusedSession)
    asked = {"marker": "???", "policy": policy, "max_tokens": 12, "threshold": BOUNDS[policy]}
    found, wanted = Infiller(fused).fill(TEXT, **asked), Infiller(model).fill(TEXT, **asked)
    assert found.text == wanted.text
    for mine, torchs in zip(found.spans, wanted.spans, strict=True):
        assert (mine.tokens, mine.steps, mine.drafts) == (torchs.tokens, torchs.steps, torchs.drafts)
        assert mine.confidence == pytest.approx(torchs.confidence, abs=1e-4)


def test_steps_of_many_rows_run_as_they_are(model: Model) -> None:
    sessions = with_stepper(model).session(), model.session()
    fresh, drafts = [i * 7 % 260 for i in range(90)], [i * 5 % 260 for i in range(20)]
    window, allowed = [None, 3, None], [None] * 20 + [[4, 5]]
    (base, spans), (base2, spans2) = (s.step(fresh, drafts, window, (0, 20), 0, allowed) for s in sessions)
    assert [g.token for g in base] == [g.token for g in base2]
    assert base[-1].token in (4, 5)
    assert [[g.token for g in s] for s in spans] == [[g.token for g in s] for s in spans2]


def test_a_session_that_outgrows_its_place_moves(model: Model) -> None:
    fused = with_stepper(model, places=300)
    mine, torchs, other = fused.session(), model.session(), fused.session()
    for step in range(12):
        tokens = [(step * 31 + i) % 260 for i in range(60)]
        said = []
        for session in (mine, torchs):
            base, _ = session.step(tokens, (), (None, None), (0,), 0, [None])
            session.keep(60)
            said.append([guess.token for guess in base])
        assert said[0] == said[1]
        other.step(tokens, (), (), (), 0, [None])  # its place lies behind, and must not be written over


def test_places_come_back(model: Model) -> None:
    fused = with_stepper(model, places=600)
    fused.session().step([1, 2], (), (), (), 0, [None])  # dropped without a close, as a garbage collection finds it
    gc.collect()
    first = fused.session()
    first.step([1, 2], (), (), (), 0, [None])
    first.close()
    first.close()
    second = fused.session()
    second.step([1, 2], (), (), (), 0, [None])
    assert fused.stepper.arena.places == 600


def test_no_adapter_no_span_rows(model: Model, tmp_path: Path) -> None:
    bare = Model.load(str(model_folder(model, tmp_path)), "none", "cpu", "float32")
    session = with_stepper(bare).session()
    with pytest.raises(BadOption, match="adapter"):
        session.step([1], (), (None,), (0,), 0, [None])
    assert len(session.step([1, 2], [3], (), (), 0, [None, None])[0]) == 2


def model_folder(model: Model, root: Path) -> Path:
    return steps.tiny.write_model(root / "bare")


def test_weights_are_shared_with_torch(model: Model) -> None:
    first = step_weights(model.backbone, model.adapter, model.span_head_ND)
    second = step_weights(model.backbone, None, None)
    for i, layer in enumerate(model.backbone.layers):
        gate_up = first.layers[i].gate_up.weight_ED
        assert gate_up.data_ptr() == layer.gate_FD.data_ptr() == second.layers[i].gate_up.weight_ED.data_ptr()
        assert torch.equal(gate_up, torch.cat([layer.gate_FD, layer.up_FD]))


def test_steps_run_on_the_gpu_of_the_weights(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `--device cuda:1` the current GPU is another one, and Triton would launch there."""
    here, ran = [], []

    @contextmanager
    def current(device: torch.device):
        here.append(device)
        yield
        here.pop()

    def noted(*given, forward=stepper.forward):
        ran.append(list(here))
        return forward(*given)

    monkeypatch.setattr(stepper, "current", current)
    monkeypatch.setattr(stepper, "forward", noted)
    monkeypatch.setattr(ahead, "forward", noted)
    fused = with_stepper(model)
    Infiller(fused).fill(TEXT, marker="???", policy="verified", max_tokens=4)
    steps.ahead(fused, "verified", steps.contexts(1))
    assert len(ran) > 4
    assert all(ran), "and nowhere else"


# ---- several steps between two looks


@pytest.mark.parametrize("policy", POLICY_NAMES)
def test_decided_on_the_device(policy: str, model: Model) -> None:
    fused, prompts = with_stepper(model), steps.contexts(5)
    wanted = [denoised(model, prompt, policy) for prompt in prompts]
    found = steps.ahead(fused, policy, prompts)
    assert found.tokens() == [list(w.tokens) for w in wanted]
    assert found.state.steps_B.tolist() == [w.steps for w in wanted]
    if policy != "leftmost":
        assert any(w.steps < len(w.tokens) for w in wanted), "some steps brought several tokens"
    assert any(len(w.tokens) < steps.MAX_TOKENS for w in wanted), "some ended by themselves"


@pytest.mark.parametrize("anchors", [2, 4])
def test_windows_behind_several_drafts(anchors: int, plain: Model) -> None:
    fused, prompts = with_stepper(plain), steps.contexts(2)
    wanted = [denoised(plain, prompt, "verified", max_anchors=anchors) for prompt in prompts]
    found = steps.ahead(fused, "verified", prompts, anchors=anchors)
    assert found.tokens() == [list(w.tokens) for w in wanted]
    assert found.state.steps_B.tolist() == [w.steps for w in wanted]
    by_the_host = [denoised(fused, prompt, "verified", max_anchors=anchors) for prompt in prompts]
    assert [(h.tokens, h.steps) for h in by_the_host] == [(w.tokens, w.steps) for w in wanted]


@given(
    st.lists(st.lists(st.floats(0, 1, width=32), max_size=4), min_size=1, max_size=4),
    st.integers(1, 6),
)
def test_windows_stand_where_the_hosts_would(chances: list[list[float]], anchors: int) -> None:
    rows = [(row + [0.7] * 4)[:4] for row in chances]  # what stands behind the drafts is of no account
    found = anchors_of(torch.tensor([len(row) for row in chances]), torch.tensor(rows), anchors)
    wanted = [likeliest_outcomes(row, anchors) for row in chances]
    assert [tuple(sorted(a for a in row if a >= 0)) for row in found.tolist()] == wanted
    assert found.shape == (len(chances), anchors)
    assert found.is_contiguous(), "`commit` takes no other"


def test_the_host_may_look_whenever_it_likes(model: Model) -> None:
    fused, prompts = with_stepper(model), steps.contexts(2)
    every = [steps.ahead(fused, "threshold", prompts, steps=k).tokens() for k in (1, 3, 20)]
    assert every[0] == every[1] == every[2]


def test_buffers_are_used_again(model: Model) -> None:
    fused, prompts = with_stepper(model), steps.contexts(4)
    found = steps.ahead(fused, "verified", prompts[:2])
    addresses, first = [t.data_ptr() for t in found.state.tensors()], found.tokens()
    found.begin(prompts[2:])
    while not found.run(4):
        pass
    assert found.tokens() == [list(denoised(model, p, "verified").tokens) for p in prompts[2:]] != first
    assert [t.data_ptr() for t in found.state.tensors()] == addresses


# ---- captured


class Tape:
    """A graph that cannot see its inputs change places: it runs what it saw, at the addresses that it saw."""

    made = 0

    def __init__(self, step):
        Tape.made += 1
        self.step, self.out, self.replays = step, None, 0

    def replay(self) -> None:
        self.replays += 1
        new = self.step()
        if self.out is None:
            self.out = new
        elif new is not None:
            self.out.copy_(new)

    @classmethod
    def capture(cls, step):
        tape = cls(step)
        with torch.inference_mode():
            kept = step()  # what is captured has an output, though it was not computed yet
        tape.out = kept
        return tape, kept


def test_steps_are_captured_and_give_the_same(model: Model) -> None:
    Tape.made = 0
    fused = with_stepper(model, Graphs(Tape.capture))
    asked = {"marker": "???", "policy": "verified", "max_tokens": 40, "threshold": 0.02}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [Infiller(fused).fill(TEXT, **asked) for _ in range(3)]
    wanted = Infiller(model).fill(TEXT, **asked)
    assert [f.text for f in found] == [wanted.text] * 3
    assert 1 <= Tape.made <= 4, "a few graphs serve all steps of all sessions"
