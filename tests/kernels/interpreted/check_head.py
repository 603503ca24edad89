"""The vocabulary head in the interpreter: tokens bit for bit, numbers by DESIGN's rule, draws by a chi-square test."""

import math
import random
from dataclasses import dataclass, replace

import pytest
import torch
from closeness import check_close, normal
from torch import Tensor

from diffcode.kernels.reference import HeadRows, counted_gumbel, rms_norm, widen
from diffcode.kernels.reference import masked_head as spec
from diffcode.kernels.triton import masked_head as module
from diffcode.kernels.triton.masked_head import masked_head

EPS = 1e-6


@dataclass(frozen=True)
class Case:
    """A shape, and what is switched on."""

    rows: int
    vocabulary: int
    width: int = 24
    dtype: torch.dtype = torch.float32
    barred: bool = False
    temperature: float = 0.0
    favour: tuple[int, float] | None = None
    sliced: bool = False
    groups: int = 0
    seed: int = 0


def drawn(seed: int) -> Case:
    r = random.Random(seed)
    vocabulary = r.randint(2, 700)
    return Case(
        r.choice((1, 3, 16, 33)), vocabulary, 32 * r.randint(1, 4), r.choice((torch.float32, torch.float16)),
        r.random() < 0.5, r.choice((0.0, 0.7, 1.5)), r.choice((None, (r.randrange(vocabulary), 1.4))),
        sliced=(sliced := r.random() < 0.4), groups=0 if sliced else r.choice((0, 0, 1)), seed=seed,
    )  # fmt: skip


CASES = [
    Case(0, 9),
    Case(1, 2),
    Case(1, 127, 130, torch.float16, favour=(126, 5.0)),
    Case(15, 128, 64, barred=True),
    Case(16, 129, 1, temperature=0.8),
    Case(17, 300, 31, torch.float16, True, 1.3, (0, 1.4)),
    Case(3, 511, sliced=True),
    Case(5, 513, 24, torch.float16, True, 0.6, (512, 2.0), sliced=True),
    Case(4, 200, 64, groups=2),
    *(drawn(seed) for seed in range(6)),
]


def head(case: Case, *, exact: bool = False) -> dict[str, Tensor | None]:
    """The op's tensors. `exact`: small whole numbers, so any order of adding gives the same bits; many tie."""
    seed, random_ = case.seed, torch.Generator().manual_seed(case.seed + 50)
    x, w = normal(case.rows, case.width, seed=seed), normal(case.vocabulary, case.width, seed=seed + 1)
    w = w if exact else w * case.width**-0.5  # logits stay under 4, where fp16 rounds by less than 2e-3
    if exact:
        x, w = (2 * x).round().clamp(-3, 3), w.round().clamp(-2, 2)
    scales = None
    if case.groups:
        w = torch.randint(-127, 128, w.shape, generator=random_, dtype=torch.int8)
        scales = 0.01 * normal(case.vocabulary, case.groups, seed=seed + 2).abs() + 1e-3
    barred = torch.rand(case.rows, case.vocabulary, generator=random_) < 0.6
    barred[:, case.seed % case.vocabulary] = False
    draw = torch.stack((torch.full((case.rows,), 2**40 + 11), torch.arange(case.rows) + 3), 1)
    return {
        "x": x.to(case.dtype),
        "w": w if case.groups else w.to(case.dtype),
        "scales": scales,
        "norm": None if exact else (1 + normal(case.width, seed=seed + 3, spread=0.2)).to(case.dtype),
        "barred": barred if case.barred else None,
        "draw": draw if case.temperature else None,
    }


def ours(case: Case, t: dict[str, Tensor | None], guards, ids: Tensor | None = None) -> HeadRows:
    x, w, scales, norm, barred, draw, ids = (
        None if part is None else guards.inside(part) if part.dtype not in (torch.bool, torch.int8) else part
        for part in (*t.values(), ids)
    )
    favoured, nats = case.favour or (-1, 0.0)
    found = masked_head(x, w, scales, norm, EPS, barred, ids, draw, case.temperature, favoured, nats, case.sliced)
    return module.head_rows(found)


def specified(case: Case, t: dict[str, Tensor | None], dtype: torch.dtype, ids: Tensor | None = None) -> HeadRows:
    x, w = t["x"].to(dtype), widen(t["w"], t["scales"], dtype)
    x = x if t["norm"] is None else rms_norm(x, t["norm"].to(dtype), EPS)
    noise = None if t["draw"] is None else counted_gumbel(t["draw"], case.vocabulary, ids)
    more = {"temperature": case.temperature, "favour": case.favour}
    return spec(x, w, barred_RV=t["barred"], gumbel_RV=noise, **more)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_numbers(case: Case, guards) -> None:
    t = head(case)
    found, gold, low = ours(case, t, guards), specified(case, t, torch.float32), specified(case, t, case.dtype)
    same_R = (found.token_R == gold.token_R) & (low.token_R == gold.token_R)
    assert same_R.float().mean() >= 0.8 or not case.rows, "near-ties aside, the tokens are the same"
    for name in ("probability_R", "margin_R", "entropy_R"):
        of = [getattr(rows, name)[same_R if name == "probability_R" else slice(None)] for rows in (found, gold, low)]
        assert of[0].dtype == torch.float32
        check_close(*of, case.dtype)


@pytest.mark.parametrize("sliced", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(("rows", "vocabulary"), [(1, 2), (16, 128), (33, 700), (5, 1025)])
@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_tokens_bit_for_bit(
    rows: int, vocabulary: int, dtype: torch.dtype, sliced: bool, temperature: float, guards
) -> None:
    """Sums of whole numbers are exact, so the logits are equal and full of ties: the first of equals is taken.

    A draw divides by 0.5, exactly, and adds noise that must be the specification's.
    """
    case = Case(rows, vocabulary, 20, dtype, barred=rows > 4, temperature=temperature, sliced=sliced)
    t = head(case, exact=True)
    assert torch.equal(ours(case, t, guards).token_R, specified(case, t, dtype).token_R)


def test_a_favour_and_kept_tokens(guards) -> None:
    """`ids` are what is returned and what the noise is counted by; the favoured output is counted from 0."""
    ids = torch.randperm(5000, generator=torch.Generator().manual_seed(1))[:210].sort().values.int()
    case = Case(20, 210, 24, temperature=2.0, favour=(17, 3.0))
    t = head(case, exact=True)
    found, wanted = ours(case, t, guards, ids), specified(case, t, torch.float32, ids)
    assert torch.equal(found.token_R, ids[wanted.token_R].long())
    assert not (found.token_R == ids[17]).any()
    assert (ours(replace(case, favour=(17, 1e4)), t, guards, ids).token_R == ids[17]).all()


def test_slices_are_joined(guards, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE", 1024)
    case = Case(6, 2500, 20, torch.float16, barred=True, sliced=True)
    t = head(case, exact=True)
    found, gold = ours(case, t, guards), specified(case, t, torch.float32)
    assert torch.equal(found.token_R, gold.token_R)
    check_close(found.entropy_R, gold.entropy_R, gold.entropy_R, torch.float32)


def test_a_single_free_token_is_certain(guards) -> None:
    t = head(Case(3, 300))
    barred = torch.ones(3, 300, dtype=torch.bool)
    barred[torch.arange(3), torch.tensor([0, 128, 299])] = False
    found = ours(Case(3, 300), t | {"barred": barred}, guards)
    assert found.token_R.tolist() == [0, 128, 299]
    assert found.probability_R.tolist() == found.margin_R.tolist() == [1, 1, 1]
    assert found.entropy_R.tolist() == [0, 0, 0]


def test_rows_are_strangers(guards) -> None:
    case = Case(16, 300, 24, torch.float16, temperature=1.2)
    t = head(case)
    whole = ours(case, t, guards)
    for row in (0, 9, 15):
        one = {
            n: None if part is None else part[row : row + 1] if n in ("x", "draw") else part for n, part in t.items()
        }
        alone = ours(case, one, guards)
        for name in ("token_R", "probability_R", "margin_R", "entropy_R"):
            assert torch.equal(getattr(alone, name)[0], getattr(whole, name)[row])


def chi_square(counts: Tensor, p: Tensor) -> float:
    """Probability of a chi-square as large, outcomes expected under 5 times taken together (Wilson-Hilferty)."""
    expected = p * counts.sum()
    rare = expected < 5
    counts, expected = (torch.cat((t[~rare], t[rare].sum()[None])) for t in (counts.double(), expected.double()))
    counts, expected = counts[expected > 0], expected[expected > 0]
    freedom = len(counts) - 1
    statistic = float(((counts - expected) ** 2 / expected).sum())
    z = ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
    return 0.5 * math.erfc(z / math.sqrt(2))


@pytest.mark.parametrize(("draws", "temperature"), [(512, 1.0), pytest.param(4096, 2.0, marks=pytest.mark.slow)])
def test_draws_follow_the_softmax(draws: int, temperature: float, guards) -> None:
    vocabulary = 23
    x, w = normal(1, 16, seed=4), normal(vocabulary, 16, seed=1, spread=0.5)
    p = (x.double() @ w.double().T / temperature).softmax(-1)[0]
    draw = torch.stack((torch.full((draws,), 5), torch.arange(draws)), 1)
    case = Case(draws, vocabulary, 16, temperature=temperature)
    t = {"x": x.expand(draws, -1).contiguous(), "w": w, "scales": None, "norm": None, "barred": None, "draw": draw}
    counts = ours(case, t, guards).token_R.bincount(minlength=vocabulary)
    assert chi_square(counts, p) > 1e-3
    assert chi_square(counts, (x.double() @ w.double().T / (3 * temperature)).softmax(-1)[0]) < 1e-4, "it can fail"
