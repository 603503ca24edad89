"""Costs, floors, and the choice of a window."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcode.kernels.plan import Rates, Sizes, choose_window, forward_cost, tokens_a_forward

QWEN = Sizes(24, 896, 14, 2, 64, 4864, 151_936, kept=32_768, rank=32)
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


@given(shares, st.integers(0, 8))
def test_expected_tokens(agrees: list[float], window: int) -> None:
    found = tokens_a_forward(agrees, window)
    assert 1 <= found <= 1 + min(window, len(agrees))
    assert tokens_a_forward(agrees, window + 1) >= found


def test_a_window_must_earn_its_time() -> None:
    assert tokens_a_forward([0.5, 0.5], 2) == 1.75
    assert choose_window({1: 1.0, 2: 1.0, 3: 1.0}, [0.5] * 3) == 3, "places that cost nothing"
    assert choose_window({1: 1.0, 2: 2.0, 3: 3.0}, [0.5] * 3) == 1
    assert choose_window({1: 1.0, 2: 1.1, 3: 1.6}, [0.5] * 3) == 2
