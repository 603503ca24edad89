"""Span rows with a successor map: guesses one after the other, each row told the token at its own place.

The gold is a slow loop in fp64 over the dense oracle's final states.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import Oracle, Row
from torch import Tensor

from diffcode.adapter import SpanAdapter
from diffcode.config import DenoiseOptions
from diffcode.denoise import Denoised, Problem, denoise
from diffcode.engine import Model
from diffcode.policies import Guess
from diffcode.stops import StopRule

SETTINGS = tiny.config()
KEPT = tuple(range(0, 270, 3))
RANK, ALPHA, WIDTH = 4, 2.0, 24


def tensors() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(8)
    return tiny.adapter_tensors(SETTINGS, rank=RANK, kept=KEPT) | {
        "successor_down": torch.randn(WIDTH, 128, generator=random) / 128**0.5,
        "successor_up": 4 * torch.randn(64, WIDTH, generator=random) / WIDTH**0.5,
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("successor")
    adapter = tiny.write_adapter(root / "span", tensors(), rank=RANK, alpha=ALPHA)
    return tiny.write_model(root / "base"), adapter


@pytest.fixture(scope="module")
def model(folders: tuple[Path, Path]) -> Model:
    return Model.load(str(folders[0]), str(folders[1]), "cpu", "float32")


# ---- the slow loop


def final_states(chain: Sequence[int], window: Sequence[int | None]) -> Tensor:
    """Normed final states of span rows behind a chain of context rows."""
    unit = tiny.weights(SETTINGS) | {"lm_head.weight": torch.eye(64)}
    rows = [Row(t, i) for i, t in enumerate(chain)]
    rows += [Row(t, len(chain) + w, span=True) for w, t in enumerate(window)]
    sees = torch.ones(len(rows), len(rows), dtype=torch.bool).tril()
    sees[len(chain) :] = True
    return Oracle(SETTINGS, unit, tensors(), ALPHA / RANK).logits(rows, sees)[len(chain) :]


def normed(x: Tensor) -> Tensor:
    return x / (x.square().mean() + SETTINGS["rms_norm_eps"]).sqrt()


def gold(
    chain: Sequence[int], window: Sequence[int | None], first: int, noises: Sequence[Tensor] = (), heat: float = 1.0
) -> list[tuple[int, float, float, float]]:
    """(token, probability, margin, entropy) of each row; `first` is the base's token for window place 0."""
    embedding = tiny.weights(SETTINGS)["model.embed_tokens.weight"].double()
    low, found, before = tensors(), [], first
    for w, state in enumerate(final_states(chain, window)):
        shown = window[w]
        told = before if shown is None else shown
        inner = low["successor_down"].double() @ torch.cat((normed(state), normed(embedding[told])))
        state = state + low["successor_up"].double() @ (inner * torch.sigmoid(inner))
        logits = embedding[list(KEPT)] @ state
        p = logits.softmax(-1)
        ranked = logits / heat + noises[w][list(KEPT)].double() if noises else logits
        best = int(ranked.argmax())
        top = p.sort(descending=True).values
        before = KEPT[best]
        found.append((before, float(p[best]), float(top[0] - top[1]), float(-(p * p.log()).sum())))
    return found


def numbers(guesses: Sequence[Guess]) -> list[tuple[int, Any, Any, Any]]:
    assert all(g.origin == "span" for g in guesses)
    return [(g.token, g.probability, g.margin, g.entropy) for g in guesses]


def assert_same(guesses: Sequence[Guess], expected: list[tuple[int, float, float, float]]) -> None:
    assert [g.token for g in guesses] == [token for token, *_ in expected]
    for guess, (_, probability, margin, entropy) in zip(guesses, expected, strict=True):
        assert guess.probability == pytest.approx(probability, abs=1e-4)
        assert guess.margin == pytest.approx(margin, abs=1e-4)
        assert guess.entropy == pytest.approx(entropy, abs=1e-3)


def ids(count: int, seed: int) -> tuple[int, ...]:
    return tuple(torch.randint(0, 264, (count,), generator=torch.Generator().manual_seed(seed)).tolist())


WINDOWS: dict[str, tuple[int | None, ...]] = {
    "all masked": (None,) * 5,
    "one row": (None,),
    "shown places": (None, 17, None, 3, None),
    "the first place is shown": (40, None, None),
    "nothing masked": (11, 17, 0),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_guesses_follow_the_definition(name: str, model: Model) -> None:
    chain, window = ids(9, 1), WINDOWS[name]
    base, spans = model.session().step(chain, (), window, (0,), 0, [None])
    assert_same(spans[0], gold(chain, window, base[0].token))


def test_each_anchor_goes_on_from_its_own_token(model: Model) -> None:
    fresh, drafts, window, anchors = ids(7, 2), ids(4, 3), (None, 30, None, None), (0, 1, 3, 4)
    base, spans = model.session().step(fresh, drafts, window, anchors, 0, [None] * 5)
    for anchor in anchors:
        assert_same(spans[anchor], gold([*fresh, *drafts[:anchor]], window, base[anchor].token))
    assert spans[2] == ()
    assert len({tuple(g.token for g in spans[a]) for a in anchors}) > 1


def test_the_token_that_comes_first_has_a_say(model: Model) -> None:
    """A base that may only say this and a base that may only say that: other guesses from the same states."""
    chain, seen = ids(9, 1), set()
    for only in (5, 60, 200, 263):
        base, spans = model.session().step(chain, (), (None,) * 4, (0,), 0, [[only]])
        assert base[0].token == only
        assert_same(spans[0], gold(chain, (None,) * 4, only))
        seen.add(tuple(g.token for g in spans[0]))
    assert len(seen) > 1


def test_over_several_steps_with_a_cached_context(model: Model) -> None:
    session, kept = model.session(), list[int]()
    for number, length in enumerate((8, 2, 1, 3)):
        fresh, drafts = ids(length, 10 + number), ids(2, 20 + number)
        base, spans = session.step(fresh, drafts, (None,) * 3, (1, 2), len(kept), [None] * 3)
        for anchor in (1, 2):
            assert_same(spans[anchor], gold([*kept, *fresh, *drafts[:anchor]], (None,) * 3, base[anchor].token))
        session.keep(length + 1)
        kept += [*fresh, drafts[0]]


# ---- sampling


def test_a_draw_takes_the_noise_of_its_place_and_goes_on_from_what_was_drawn(model: Model) -> None:
    noise, heat, fresh, drafts, window = model.noise(7), 1.7, ids(6, 4), ids(2, 5), (None, 12, None, None)
    base, spans = model.session(noise, heat).step(fresh, drafts, window, (0, 2), 11, [None] * 3)
    changed = 0
    for anchor in (0, 2):
        chain = [*fresh, *drafts[:anchor]]
        noises = [noise(11 + anchor + w + 1) for w in range(4)]
        assert_same(spans[anchor], gold(chain, window, base[anchor].token, noises, heat))
        greedy = gold(chain, window, base[anchor].token)
        changed += [g.token for g in spans[anchor]] != [token for token, *_ in greedy]
    assert changed, "the noise never changed the choice: this seed tests nothing"


def filled(model: Model, policy: str, temperature: float, seed: int) -> Denoised:
    options = DenoiseOptions(policy, 0.0 if policy == "verified" else 0.05, max_tokens=14, temperature=temperature)
    noise = model.noise(seed) if temperature else None
    context = (tiny.PREFIX, tiny.SUFFIX, *ids(6, 1), tiny.MIDDLE, *ids(9, 2))
    session = model.session(noise, temperature)
    loop = denoise(session, Problem(context, b"", StopRule("")), options, model.tokens)
    while True:
        try:
            next(loop)
        except StopIteration as end:
            done: Denoised = end.value
            return done


@pytest.mark.parametrize("temperature", [0.0, 1.5])
@pytest.mark.parametrize("policy", ["verified", "threshold"])
def test_fills_are_reproducible(policy: str, temperature: float, model: Model) -> None:
    first = filled(model, policy, temperature, 3)
    assert first.tokens == filled(model, policy, temperature, 3).tokens
    if temperature:
        assert len({filled(model, policy, temperature, seed).tokens for seed in range(4)}) > 1


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_verified_is_left_to_right(temperature: float, model: Model) -> None:
    for seed in range(3):
        left, right = (filled(model, policy, temperature, seed) for policy in ("leftmost", "verified"))
        assert left.tokens == right.tokens


# ---- adapters with and without


def test_without_the_map_rows_stand_alone(folders: tuple[Path, Path], model: Model, tmp_path: Path) -> None:
    """As before there was one: no row knows another one's token."""
    bare_tensors = {name: t for name, t in tensors().items() if "successor" not in name}
    bare = model.with_adapter(tiny.write_adapter(tmp_path, bare_tensors, rank=RANK, alpha=ALPHA))
    assert bare.adapter is not None
    assert bare.adapter.successor is None
    chain, window = ids(9, 1), WINDOWS["shown places"]
    found = [bare.session().step(chain, (), window, (0,), 0, [only])[1][0] for only in (None, [5], [200])]
    assert found[0] == found[1] == found[2]
    logits = final_states(chain, window) @ tiny.weights(SETTINGS)["model.embed_tokens.weight"].double()[list(KEPT)].T
    assert [g.token for g in found[0]] == [KEPT[int(row.argmax())] for row in logits]
    assert [g.token for g in found[0]] != [t for t, *_ in gold(chain, window, 5)]


def test_a_map_of_zeros_adds_nothing(model: Model) -> None:
    adapter = model.adapter
    assert adapter is not None
    assert adapter.successor is not None
    zero = replace(adapter, successor=replace(adapter.successor, up_Er=torch.zeros(64, WIDTH)))
    none = replace(adapter, successor=None)
    chain, window = ids(9, 1), WINDOWS["shown places"]
    found = [replace(model, adapter=a).session().step(chain, (), window, (0,), 0, [None])[1][0] for a in (zero, none)]
    assert [g.token for g in found[0]] == [g.token for g in found[1]]
    assert numbers(found[0]) == [
        (t, pytest.approx(p, abs=1e-6), pytest.approx(m, abs=1e-6), pytest.approx(e, abs=1e-5))
        for t, p, m, e in numbers(found[1])
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_map_is_read_from_the_adapter(dtype: torch.dtype, folders: tuple[Path, Path]) -> None:
    successor = SpanAdapter.load(folders[1], 2, dtype, torch.device("cpu")).successor
    assert successor is not None
    assert torch.equal(successor.down_rD, tensors()["successor_down"].to(dtype))
    assert torch.equal(successor.up_Er, tensors()["successor_up"].to(dtype))


def test_one_model_may_have_many_adapters(folders: tuple[Path, Path], model: Model, tmp_path: Path) -> None:
    """`with_adapter` shares the weights and leaves the first model as it was."""
    before = model.session().step(ids(9, 1), (), (None,) * 3, (0,), 0, [None])
    other = model.with_adapter(tiny.write_adapter(tmp_path, tiny.adapter_tensors(SETTINGS, seed=9)))
    assert other.backbone is model.backbone
    assert other.session().step(ids(9, 1), (), (None,) * 3, (0,), 0, [None])[1] != before[1]
    assert model.session().step(ids(9, 1), (), (None,) * 3, (0,), 0, [None]) == before
