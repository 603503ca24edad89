"""Sessions against a dense oracle: no cache, one explicit mask, the adapter merged into the weights of span rows."""

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffcode.backbone import KVCache
from diffcode.engine import Model, TorchSession
from diffcode.errors import BadOption, DiffcodeError, ModelUnavailable
from diffcode.policies import Guess
from diffcode.rows import Rows
from tests import tiny
from tests.tiny import Oracle, Row

KEPT = tuple(range(0, 270, 3))
RANK, ALPHA = 4, 2.0


@dataclass(frozen=True)
class Step:
    """The arguments of one `session.step`."""

    fresh: tuple[int, ...]
    drafts: tuple[int, ...] = ()
    window: tuple[int | None, ...] = ()
    anchors: tuple[int, ...] = ()

    def of(
        self, session: TorchSession, first_place: int = 0
    ) -> tuple[tuple[Guess, ...], tuple[tuple[Guess, ...], ...]]:
        allowed = [None] * (len(self.drafts) + 1)
        return session.step(self.fresh, self.drafts, self.window, self.anchors, first_place, allowed)


SETTINGS = tiny.config(num_key_value_heads=2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("engine")
    adapter = tiny.adapter_tensors(SETTINGS, rank=RANK, kept=KEPT)
    return tiny.write_model(root / "base"), tiny.write_adapter(root / "span", adapter, rank=RANK, alpha=ALPHA)


@pytest.fixture(scope="module")
def model(folders: tuple[Path, Path]) -> Model:
    return Model.load(str(folders[0]), str(folders[1]), "cpu", "float32")


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle(SETTINGS, tiny.weights(SETTINGS), tiny.adapter_tensors(SETTINGS, rank=RANK), ALPHA / RANK)


def expected(oracle: Oracle, kept: Sequence[int], step: Step) -> tuple[Tensor, list[Tensor]]:
    """The oracle's logits of the rows that a step reads: base rows, and for each anchor its span rows."""
    chain = [*kept, *step.fresh, *step.drafts]
    rows = [Row(token, i) for i, token in enumerate(chain)]
    sees = torch.ones(len(chain), len(chain), dtype=torch.bool).tril()
    base = oracle.logits(rows, sees)[len(chain) - len(step.drafts) - 1 :]
    spans = []
    for anchor in step.anchors:
        before = len(chain) - len(step.drafts) + anchor
        window = [Row(token, before + w, span=True) for w, token in enumerate(step.window)]
        sees = torch.ones(before + len(window), before + len(window), dtype=torch.bool).tril()
        sees[before:] = True
        spans.append(oracle.logits([*rows[:before], *window], sees)[before:])
    return base, spans


def check(guess: Guess, logits_V: Tensor, kept: Sequence[int] | None = None) -> None:
    """A guess says of its row what a plain softmax over the allowed tokens says."""
    ids = torch.arange(len(logits_V)) if kept is None else torch.tensor(kept)
    p = logits_V[ids].softmax(-1)
    order = p.argsort(descending=True)
    assert guess.token == ids[order[0]]
    assert guess.probability == pytest.approx(float(p[order[0]]), abs=1e-4)
    assert guess.margin == pytest.approx(float(p[order[0]] - p[order[1]]), abs=1e-4)
    assert guess.entropy == pytest.approx(float(-(p * p.log()).sum()), abs=1e-3)


def check_step(model_says: Any, gold: tuple[Tensor, list[Tensor]], step: Step) -> None:
    base, spans = model_says
    assert len(base) == len(gold[0])
    for guess, row in zip(base, gold[0], strict=True):
        assert guess.origin == "base"
        check(guess, row)
    assert len(spans) == len(step.drafts) + 1
    for anchor, rows in zip(step.anchors, gold[1], strict=True):
        assert len(spans[anchor]) == len(step.window)
        for guess, row in zip(spans[anchor], rows, strict=True):
            assert guess.origin == "span"
            check(guess, row, KEPT)
    assert all(spans[i] == () for i in range(len(spans)) if i not in step.anchors)


def ids(count: int, seed: int) -> tuple[int, ...]:
    return tuple(torch.randint(0, 264, (count,), generator=torch.Generator().manual_seed(seed)).tolist())


STEPS = {
    "context alone": Step(ids(9, 0)),
    "one token": Step(ids(1, 1)),
    "drafts": Step(ids(5, 2), ids(4, 3)),
    "all masked": Step(ids(7, 4), (), (None,) * 4, (0,)),
    "one span row": Step(ids(7, 4), (), (None,), (0,)),
    "islands": Step(ids(7, 5), (), (None, 17, None, 3, None), (0,)),
    "nothing masked": Step(ids(7, 5), (), (11, 17, 0), (0,)),
    "window behind the last draft": Step(ids(6, 6), ids(3, 7), (None,) * 4, (3,)),
    "window before the drafts": Step(ids(6, 6), ids(3, 7), (None, 8, None), (0,)),
    "a window behind every draft": Step(ids(6, 8), ids(4, 9), (None, None, 5), (0, 1, 2, 3, 4)),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_first_step_equals_the_oracle(name: str, model: Model, oracle: Oracle) -> None:
    step = STEPS[name]
    check_step(step.of(model.session()), expected(oracle, (), step), step)


@pytest.mark.parametrize("seed", range(4))
def test_a_run_of_steps_equals_the_oracle(seed: int, model: Model, oracle: Oracle) -> None:
    """Random steps behind each other, some drafts kept and some refused."""
    draw = random.Random(seed)
    session, kept = model.session(), []
    for number in range(6):
        drafts = ids(draw.randrange(5), draw.randrange(999))
        window = tuple(draw.choice([None, None, draw.randrange(264)]) for _ in range(draw.randrange(6)))
        anchors = tuple(sorted(draw.sample(range(len(drafts) + 1), draw.randint(1, len(drafts) + 1))))
        step = Step(ids(draw.randint(1, 8), draw.randrange(999)), drafts, window, anchors if window else ())
        check_step(step.of(session, number), expected(oracle, kept, step), step)
        count = len(step.fresh) + draw.randint(0, len(drafts))
        session.keep(count)
        kept += [*step.fresh, *drafts][:count]


def test_the_adapter_and_the_mask_matter_here(model: Model, oracle: Oracle) -> None:
    """Else the comparisons above could not fail."""
    step = STEPS["islands"]
    _, (gold,) = expected(oracle, (), step)
    plain = Oracle(SETTINGS, oracle.weights, oracle.adapter, scale=0)
    _, (without,) = expected(plain, (), step)
    assert (gold - without).abs().max() > 0.1
    rows = [*(Row(t, i) for i, t in enumerate(step.fresh)), *(Row(t, 7 + i, True) for i, t in enumerate(step.window))]
    causal = oracle.logits(rows, torch.ones(12, 12, dtype=torch.bool).tril())[7:]
    assert (gold - causal).abs().max() > 0.1


def hidden(model: Model, cache: KVCache, step: Step) -> Tensor:
    """Final hidden states of a step's rows; the session keeps them to itself."""
    rows = Rows(len(step.fresh), len(step.drafts), len(step.window), step.anchors)
    assert model.adapter is not None
    x = model.backbone.embed([*step.fresh, *step.drafts])
    for _ in step.anchors:
        known = model.backbone.embed([t or 0 for t in step.window])
        mask = torch.tensor([[t is None] for t in step.window])
        x = torch.cat([x, torch.where(mask, model.adapter.mask_D, known)])
    positions = torch.tensor(rows.positions(cache.length))
    return model.backbone.forward(x, positions, cache, rows.seen(), rows.span_rows, model.adapter)


def test_context_rows_do_not_know_of_span_rows(model: Model) -> None:
    """1e-5 and not bitwise: another number of rows lets the matrix library split its sums in another way."""
    alone, beside = model.backbone.new_cache(64), model.backbone.new_cache(64)
    for length, chain in enumerate((ids(10, 1), ids(3, 2), ids(1, 3))):
        first = hidden(model, alone, Step(chain))
        second = hidden(model, beside, Step(chain, (), (None, 7, None), (0,)))
        assert (first - second[: len(chain)]).abs().max() < 1e-5, length
        alone.length += len(chain)
        beside.length += len(chain)
        for a, b in ((alone.k_LGSK, beside.k_LGSK), (alone.v_LGSK, beside.v_LGSK)):
            assert (a[:, :, : alone.length] - b[:, :, : beside.length]).abs().max() < 1e-5


def test_same_rows_with_other_span_content_leave_the_context_bitwise_alone(model: Model) -> None:
    """With equal shapes the sums run in the same order, so here not one bit may differ."""
    chain, caches, found = ids(12, 5), [], []
    for window in ((None, None, None), (1, 2, 3), (250, None, 0)):
        caches.append(model.backbone.new_cache(64))
        found.append(hidden(model, caches[-1], Step(chain, (), window, (0,)))[: len(chain)])
    for cache, rows in zip(caches[1:], found[1:], strict=True):
        assert torch.equal(rows, found[0])
        assert torch.equal(cache.k_LGSK[:, :, :12], caches[0].k_LGSK[:, :, :12])
        assert torch.equal(cache.v_LGSK[:, :, :12], caches[0].v_LGSK[:, :, :12])


def test_anchored_windows_do_not_know_of_each_other(model: Model) -> None:
    fresh, drafts, window = ids(9, 20), ids(4, 21), (None, 40, None)
    together = Step(fresh, drafts, window, (0, 2, 3, 4)).of(model.session())
    for anchor in (0, 2, 3, 4):
        alone = Step(fresh, drafts[:anchor], window, (anchor,)).of(model.session())
        assert_same(together[1][anchor], alone[1][anchor])
        assert_same(together[0][: anchor + 1], alone[0])


def assert_same(ours: Sequence[Guess], theirs: Sequence[Guess], tolerance: float = 1e-5) -> None:
    assert [g.token for g in ours] == [g.token for g in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert (a.probability, a.margin, a.entropy) == pytest.approx(
            (b.probability, b.margin, b.entropy), abs=tolerance
        )


@pytest.mark.parametrize("kept_drafts", [0, 1, 3])
def test_refused_drafts_and_windows_leave_no_trace(kept_drafts: int, model: Model) -> None:
    fresh, drafts = ids(8, 30), ids(3, 31)
    used = model.session()
    Step(fresh, drafts, (None, 9, None), (0, 1, 2, 3)).of(used)
    used.keep(len(fresh) + kept_drafts)
    clean = model.session()
    Step((*fresh, *drafts[:kept_drafts])).of(clean)
    clean.keep(len(fresh) + kept_drafts)
    behind = Step(ids(2, 32), ids(2, 33), (None, None), (2,))
    ours, theirs = behind.of(used), behind.of(clean)
    assert_same(ours[0], theirs[0])
    assert_same(ours[1][2], theirs[1][2])


def test_a_step_that_is_not_kept_can_be_repeated(model: Model) -> None:
    session = model.session()
    Step(ids(8, 40)).of(session)
    session.keep(8)
    step = Step(ids(2, 41), ids(3, 42), (None, 5), (1, 3))
    first = step.of(session)
    Step(ids(30, 43), (), (None,) * 8, (0,)).of(session)  # thrown away, though it wrote behind the context
    assert step.of(session) == first


def test_sessions_of_one_model_are_strangers(model: Model) -> None:
    step, lone = Step(ids(6, 50), ids(2, 51)), model.session()
    first, second = model.session(), model.session()
    Step(ids(20, 52)).of(second)
    second.keep(20)
    assert step.of(first) == step.of(lone)


@pytest.mark.parametrize("size", [509, 512, 513, 700])
def test_a_canvas_may_outgrow_the_first_capacity(size: int, model: Model) -> None:
    """Read at once and read in two, across the capacity that a session starts with."""
    context, step = ids(size, 60), Step(ids(3, 61), ids(4, 62), (None,) * 4, (4,))
    once, twice = model.session(), model.session()
    whole = Step((*context, *step.fresh), step.drafts, step.window, step.anchors).of(once)
    for part in (context[:500], context[500:]):
        Step(part, (), (None, None), (0,)).of(twice)
        twice.keep(len(part))
    parts = step.of(twice)
    assert_same(parts[0], whole[0], 1e-4)
    assert_same(parts[1][4], whole[1][4], 1e-4)


def test_allowed_tokens_bar_all_others(model: Model, oracle: Oracle) -> None:
    step, only = Step(ids(6, 70), ids(2, 71)), [3, 77, 200, 287]
    base, _ = model.session().step(step.fresh, step.drafts, (), (), 0, [None, only, [5]])
    gold, _ = expected(oracle, (), step)
    check(base[0], gold[0])
    check(base[1], gold[1], only)
    assert (base[2].token, base[2].probability) == (5, pytest.approx(1))
    assert base[2].entropy == pytest.approx(0, abs=1e-6)


def test_a_draw_is_the_argmax_of_scaled_logits_and_the_noise_of_its_place(model: Model, oracle: Oracle) -> None:
    noise, temperature, first_place = model.noise(7), 1.7, 11
    step = Step(ids(6, 80), ids(3, 81), (None, 4, None), (0, 2))
    base, spans = Step.of(step, model.session(noise, temperature), first_place)
    gold, gold_spans = expected(oracle, (), step)
    places = [
        (guess, row, first_place + i, range(tiny.VOCABULARY))
        for i, (guess, row) in enumerate(zip(base, gold, strict=True))
    ]
    for anchor, rows in zip(step.anchors, gold_spans, strict=True):
        # The span row at window place w speaks of place w + 1; window place 0 stands behind `anchor` drafts.
        at = [first_place + anchor + w + 1 for w in range(len(rows))]
        places += [(g, r, place, KEPT) for g, r, place in zip(spans[anchor], rows, at, strict=True)]
    changed = 0
    for guess, row_V, place, among in places:
        logits_N, ids_N = row_V[list(among)], torch.tensor(among)
        drawn = (logits_N / temperature + noise(place)[ids_N]).argmax()
        assert guess.token == ids_N[drawn]
        assert guess.probability == pytest.approx(float(logits_N.softmax(-1)[drawn]), abs=1e-4)
        changed += bool(drawn != logits_N.argmax())
    assert changed, "the noise never changed the choice: this seed tests nothing"


def test_allowed_tokens_bar_all_others_from_a_draw(model: Model) -> None:
    only = [3, 77, 200]
    drawn = set()
    for seed in range(40):
        (guess,), _ = model.session(model.noise(seed), 5.0).step(ids(4, 90), (), (), (), 0, [only])
        drawn.add(guess.token)
    assert drawn == set(only)


def test_noise_depends_on_seed_and_place_alone(model: Model) -> None:
    places, seeds = (0, 1, 2, 500), (0, 1, 2, 12345)
    found = {(s, p): model.noise(s)(p) for s in seeds for p in places}
    backwards = {(s, p): model.noise(s)(p) for s in reversed(seeds) for p in reversed(places)}
    assert all(torch.equal(found[key], backwards[key]) for key in found)
    assert not any(torch.equal(found[a], found[b]) for a, b in itertools.combinations(found, 2))
    torch.manual_seed(1)
    assert torch.equal(model.noise(0)(0), found[0, 0]), "the global generator has a say"


def test_noise_leaves_the_global_generator_alone(model: Model) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    model.noise(9)(9)
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_is_standard_gumbel(model: Model) -> None:
    drawn = torch.cat([model.noise(1)(place) for place in range(200)]).double()
    assert drawn.shape == (200 * tiny.VOCABULARY,)
    assert drawn.isfinite().all()
    standard_error = math.pi / math.sqrt(6 * len(drawn))
    assert drawn.mean() == pytest.approx(0.5772157, abs=4 * standard_error)
    assert drawn.var() == pytest.approx(math.pi**2 / 6, rel=0.05)


def test_span_rows_without_an_adapter_are_refused(folders: tuple[Path, Path]) -> None:
    bare = Model.load(str(folders[0]), "none", dtype="float32")
    assert bare.adapter is None
    with pytest.raises(BadOption, match="adapter"):
        Step(ids(4, 0), (), (None,), (0,)).of(bare.session())
    assert Step(ids(4, 0)).of(bare.session())[1] == ((),)


def test_without_kept_tokens_span_rows_choose_from_the_whole_vocabulary(
    folders: tuple[Path, Path], oracle: Oracle, tmp_path: Path
) -> None:
    adapter = tiny.write_adapter(tmp_path, tiny.adapter_tensors(SETTINGS, rank=RANK), rank=RANK, alpha=ALPHA)
    whole = Model.load(str(folders[0]), str(adapter), "cpu", "float32")
    step = STEPS["islands"]
    _, spans = step.of(whole.session())
    _, (gold,) = expected(oracle, (), step)
    for guess, row in zip(spans[0], gold, strict=True):
        check(guess, row)


# --- Model.load ---


def test_a_gguf_file_and_a_folder_load_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.write_model(tmp_path / "m")
    tiny.write_gguf(tmp_path / "g.gguf")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (str(tmp_path / "m"), str(tmp_path / "g.gguf"), "~/m", "~/g.gguf"):
        model = Model.load(name, dtype="float32")
        assert (model.backbone.shape.layers, model.adapter) == (2, None)
        assert model.tokens.fim.middle == tiny.MIDDLE


def test_bf16_is_the_default_and_float32_can_be_had(tmp_path: Path) -> None:
    name = str(tiny.write_model(tmp_path / "m"))
    for dtype, found in ((None, torch.bfloat16), ("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        backbone = Model.load(name, dtype=dtype).backbone
        assert {backbone.dtype, backbone.embedding_VD.dtype, backbone.layers[1].down_DF.dtype} == {found}


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"name": "gpt-9"}, ModelUnavailable, "gpt-9"),
        ({"name": "/nowhere/model.gguf"}, ModelUnavailable, "/nowhere/model.gguf"),
        ({"name": __file__}, ModelUnavailable, __file__),
        ({"device": "nonsense"}, ModelUnavailable, "nonsense"),
        ({"device": "cuda:99"}, ModelUnavailable, "cuda:99"),
        ({"dtype": "int3"}, BadOption, "int3"),
        ({"dtype": "float16"}, BadOption, "float16"),
        ({"adapter": "/nowhere/adapter"}, ModelUnavailable, "/nowhere/adapter"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(
    arguments: dict[str, str], error: type[DiffcodeError], says: str, tmp_path: Path
) -> None:
    folder = tiny.write_model(tmp_path / "m")
    with pytest.raises(error) as caught:
        Model.load(**{"name": str(folder), **arguments})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_refused_option_costs_no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody should wait for 490 MB to be told of a typing error."""
    from diffcode import hub

    monkeypatch.setattr(hub, "pull", lambda *_, **__: pytest.fail("pulled"))
    with pytest.raises(BadOption):
        Model.load(dtype="int3")
    with pytest.raises(ModelUnavailable):
        Model.load(device="nonsense")
