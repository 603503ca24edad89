"""The statistics against values worked out by hand."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcode.evals.statistics import bootstrap_interval, mcnemar_exact, mean, pass_at_k, percentile


@pytest.mark.parametrize(
    ("gained", "lost", "p_value"),
    [
        (0, 0, 1.0),  # nothing changed
        (0, 5, 2 / 32),  # 2 * C(5, 0) / 2^5
        (5, 0, 2 / 32),
        (1, 5, 2 * (1 + 6) / 64),  # 2 * (C(6, 0) + C(6, 1)) / 2^6
        (3, 9, 2 * (1 + 12 + 66 + 220) / 4096),
        (4, 4, 1.0),  # twice the lower half is over one
    ],
)
def test_mcnemar_exact(gained: int, lost: int, p_value: float):
    assert mcnemar_exact(gained, lost) == pytest.approx(p_value, rel=1e-12)


def test_mcnemar_exact_with_more_problems_than_a_float_has_exponents():
    assert mcnemar_exact(1000, 1000) == 1.0
    assert mcnemar_exact(0, 2000) == 0.0


def test_bootstrap_of_a_constant_has_no_width():
    assert bootstrap_interval([1.0] * 7, np.random.default_rng(0)) == (1.0, 1.0)


def test_bootstrap_of_a_coin_is_its_binomial_quantile():
    # 100 draws with p = 0.5: the 2.5 % and 97.5 % quantiles of Binomial(100, 0.5) are 40 and 60.
    low, high = bootstrap_interval([0.0, 1.0] * 50, np.random.default_rng(0))
    assert low == pytest.approx(0.40, abs=0.011)
    assert high == pytest.approx(0.60, abs=0.011)


def test_bootstrap_level():
    # The 25 % and 75 % quantiles of Binomial(100, 0.5) are 47 and 53.
    low, high = bootstrap_interval([0.0, 1.0] * 50, np.random.default_rng(0), level=0.5)
    assert (low, high) == (pytest.approx(0.47, abs=0.011), pytest.approx(0.53, abs=0.011))


def test_bootstrap_is_the_generators():
    values = [0.1, 0.7, 0.2, 0.9]
    again = [bootstrap_interval(values, np.random.default_rng(seed), resamples=50) for seed in (3, 3, 4)]
    assert again[0] == again[1] != again[2]


def test_percentile_is_linear_between_ranks():
    assert percentile([4, 1, 3, 2], 50) == 2.5
    assert percentile([10, 20], 95) == pytest.approx(19.5)
    assert percentile([7], 95) == 7


def test_mean():
    assert mean([1, 2, 6]) == 3


@given(st.integers(1, 8), st.data())
def test_pass_at_k_is_the_share_of_draws_with_a_pass(samples: int, data: st.DataObject):
    passed, k = data.draw(st.integers(0, samples)), data.draw(st.integers(1, samples))
    draws = list(combinations(range(samples), k))
    share = sum(min(draw) < passed for draw in draws) / len(draws)
    assert pass_at_k(samples, passed, k) == pytest.approx(share)


def test_pass_at_1_is_the_share_that_passed():
    assert pass_at_k(200, 37, 1) == pytest.approx(37 / 200)


@pytest.mark.parametrize(("samples", "passed", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0)])
def test_pass_at_k_refuses_what_cannot_be(samples: int, passed: int, k: int):
    with pytest.raises(ValueError, match="pass@"):
        pass_at_k(samples, passed, k)
