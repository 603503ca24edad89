"""Costs, floors, and the choice of a window."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcode.kernels.plan import Rates, Sizes, SpanRows, choose_span, forward_cost, pace

QWEN = Sizes(24, 896, 14, 2, 64, 4864, 151_936, kept=32_768, rank=32)
FORWARDS = 20_000
shares = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def test_the_default_model_has_as_many_weights_as_its_card_says() -> None:
    assert pytest.approx(0.36e9, rel=0.01) == QWEN.layer_weights
    assert QWEN.adapter_weights == 24 * 32 * ((896 + 1152) + (896 + 896) + (896 + 9728) + (4864 + 896))


def test_one_token_is_bound_by_memory_and_a_context_by_arithmetic() -> None:
    rates = Rates(60e9, 2e12)
    one, many = forward_cost(QWEN, 1, 0, 256), forward_cost(QWEN, 256, 0, 0)
    assert (one.bound(rates), many.bound(rates)) == ("memory", "arithmetic")
    assert one.floor(rates) == pytest.approx(one.bytes / 60e9)
    assert many.floor(rates) == pytest.approx(many.operations / 2e12)


@given(st.integers(1, 300), st.integers(0, 8), st.integers(0, 2000))
def test_more_rows_and_more_context_never_cost_less(rows: int, spans: int, context: int) -> None:
    cost = forward_cost(QWEN, rows, spans, context)
    for more in (
        forward_cost(QWEN, rows + 1, spans, context),
        forward_cost(QWEN, rows, spans + 1, context),
        forward_cost(QWEN, rows, spans, context + 1),
    ):
        assert more.bytes > cost.bytes
        assert more.operations > cost.operations


@given(shares, st.integers(1, 8), st.integers(0, 9))
def test_expected_tokens(agrees: list[float], places: int, outcomes: int) -> None:
    checked, tokens = pace(agrees, SpanRows(places, outcomes))
    assert 0 <= checked <= 1
    assert 1 <= tokens <= 1 + min(places, len(agrees))
    assert pace(agrees, SpanRows(places, outcomes + 1))[1] >= tokens


@given(st.lists(st.floats(0.05, 0.95), min_size=1, max_size=4), st.integers(1, 5), st.integers())
@settings(max_examples=20)
def test_expected_tokens_are_those_of_many_forwards(agrees: list[float], outcomes: int, seed: int) -> None:
    rng = random.Random(seed)
    shares = [math.prod(agrees[:kept]) * (1 - [*agrees, 0][kept]) for kept in range(len(agrees) + 1)]
    stands = sorted(range(len(shares)), key=lambda kept: -shares[kept])[:outcomes]
    tokens = checks = 0
    drafted = False
    for _ in range(FORWARDS):
        checks += drafted
        kept = next(i for i, share in enumerate([*agrees, 0]) if rng.random() >= share) if drafted else 0
        tokens += kept + 1
        drafted = kept in stands if drafted else True
    assert pace(agrees, SpanRows(len(agrees), outcomes)) == pytest.approx(
        (checks / FORWARDS, tokens / FORWARDS), rel=0.06
    )


def test_all_outcomes_ready() -> None:
    assert pace([0.5, 0.5], SpanRows(2, 3)) == (1, 1.75)
    assert pace([0.5, 0.5], SpanRows(2, 1)) == (pytest.approx(2 / 3), 1.5)
    assert pace([0.5, 0.5], SpanRows(2, 0)) == (0, 1)


def test_span_rows_must_earn_their_time() -> None:
    def chosen(seconds: dict[tuple[int, int], float]) -> tuple[int, int]:
        found = choose_span({SpanRows(*span): (s, s) for span, s in seconds.items()}, [0.5] * 3)
        return found.places, found.outcomes

    assert chosen({(3, 0): 1.0, (1, 1): 1.0, (3, 1): 1.0, (3, 4): 1.0}) == (3, 4), "rows that cost nothing"
    assert chosen({(3, 0): 1.0, (1, 1): 1.2, (3, 1): 2.0, (3, 4): 3.0}) == (1, 1)
    assert chosen({(3, 0): 1.0, (1, 1): 1.4, (3, 1): 2.0, (3, 4): 3.0}) == (3, 0), "none pays"
    assert chosen({(3, 0): 1.0, (1, 1): 1.2, (3, 1): 1.2, (3, 4): 2.0}) == (3, 1)
