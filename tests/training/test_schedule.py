"""The learning rate over a run, the average of its parameters, and the options as text."""

import math
from contextlib import suppress
from dataclasses import asdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffcode.errors import BadOption
from diffcode.training.average import Average
from diffcode.training.options import TrainOptions, with_settings
from diffcode.training.schedule import rate_at

# ---- rate


@given(st.integers(1, 3000), st.integers(0, 300), st.floats(0, 1))
def test_a_rate_rises_stays_and_falls(steps: int, warmup: int, cooldown: float) -> None:
    rates = [rate_at(step, step / steps, warmup, cooldown) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates), "no step is lost"
    highest = rates.index(max(rates))
    assert rates[: highest + 1] == sorted(rates[: highest + 1])
    assert rates[highest:] == sorted(rates[highest:], reverse=True)
    flat = [r for s, r in enumerate(rates) if s >= warmup and s / steps <= 1 - cooldown]
    assert all(rate == pytest.approx(1) for rate in flat)


def test_a_rate_in_numbers() -> None:
    assert [rate_at(step, 0, 3, 0.2) for step in range(5)] == [0.25, 0.5, 0.75, 1, 1]
    assert [rate_at(99, done, 0, 0.2) for done in (0.5, 0.8, 0.9, 0.95, 1)] == pytest.approx([1, 1, 0.5, 0.25, 0])
    assert rate_at(99, 0.99, 0, 0) == 1


# ---- average


def test_an_average_is_the_formula() -> None:
    x = torch.nn.Parameter(torch.tensor([0.0, 1.0]))
    average, gold = Average({"x": x}, 0.9), x.detach().double()
    for step in range(40):
        with torch.no_grad():
            x.add_(torch.tensor([1.0, -0.5]))
        average.update(step)
        keep = min(0.9, (1 + step) / (10 + step))
        gold = keep * gold + (1 - keep) * x.detach().double()
    assert torch.allclose(average.shadow["x"].double(), gold, atol=1e-5)
    assert x.tolist() == [40.0, -19.0]


def test_parameters_come_back_even_after_an_error() -> None:
    x = torch.nn.Parameter(torch.ones(3))
    average = Average({"x": x}, 0.5)
    with torch.no_grad():
        x.mul_(5)
    average.update(100)
    with suppress(RuntimeError), average.in_place():
        assert x.tolist() == [3.0] * 3
        raise RuntimeError
    assert x.tolist() == [5.0] * 3
    assert average.shadow["x"].tolist() == [3.0] * 3
    assert not average.shadow["x"].requires_grad


# ---- options


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("rate=1e-4", "rate", 1e-4),
        ("texts=7", "texts", 7),
        ("minutes=2.5", "minutes", 2.5),
        ("full=True", "full", True),
        ("recompute=false", "recompute", False),
        ("stage=span", "stage", "span"),
        ("denoising.window=8", "denoising.window", 8),
        ("spans.window=10,20", "spans.window", (10, 20)),
        ("infill.end_weight=2", "infill.end_weight", 2.0),
    ],
)
def test_a_setting_changes_one_thing(setting: str, path: str, value: object) -> None:
    changed, plain = asdict(with_settings(TrainOptions(), [setting])), asdict(TrainOptions())
    *outer, last = path.split(".")
    for name in outer:
        changed, plain = changed.pop(name), plain.pop(name)
    found = changed.pop(last)
    assert found == value
    assert type(found) is type(value)
    plain.pop(last)
    assert changed == plain


@pytest.mark.parametrize(
    "setting",
    [
        "rate", "rate=", "rate=fast", "rate=0", "rate=-1", "rate=nan", "texts=0", "texts=1.5", "nothing=1",
        "denoising=3", "denoising.nothing=3", "denoising.window.x=3", "rate.x=1", "=3", "minutes=0", "minutes=nan",
        "stage=other", "spans.window=5", "spans.window=5,6,7", "full=perhaps", "rank=0", "rank=-1",
        "denoising.window=0", "denoising.starts=0", "spans.most_lines=0", "spans.window=0,9", "spans.window=9,8",
    ],
)  # fmt: skip
def test_what_is_no_setting_is_one_clear_line(setting: str) -> None:
    with pytest.raises(BadOption) as caught:
        with_settings(TrainOptions(), [setting])
    assert len(str(caught.value).splitlines()) == 1


def test_the_last_of_equal_settings_wins() -> None:
    assert with_settings(TrainOptions(), ["texts=3", "texts=4"]).texts == 4
    assert math.isclose(TrainOptions().rate, 2e-4)
