"""Forecasts for GPUs: what bounds a forward, what tokens cost at best, what is wasted; and the command."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from diffcode import cli
from diffcode.kernels.plan import BF16, INT8, Rates, SpanRows, forward_cost, pace
from diffcode.kernels.targets import BATCHES, MODELS, MOST, TARGETS, Target, fits, forecast, plan_for
from diffcode.plan_command import TARGET_NAMES

QWEN = replace(MODELS["qwen2.5-coder-0.5b"], kept=32_768, rank=32)
AGREES = (0.45, 0.4, 0.35, 0.3)


def test_the_models_are_as_large_as_their_names() -> None:
    for name, billions in (("0.5b", 0.36), ("1.5b", 1.31), ("7b", 6.53)):  # without embeddings, from the model cards
        assert MODELS[f"qwen2.5-coder-{name}"].layer_weights / 1e9 == pytest.approx(billions, rel=0.01)


def test_every_target_names_its_source_and_the_command_offers_it() -> None:
    assert tuple(TARGETS) == TARGET_NAMES
    for target in TARGETS.values():
        assert "whitepaper" in target.source or "sheet" in target.source
        assert 100 < target.rates.operations_a_second / target.rates.bytes_a_second < 400, "operations a byte"


@given(st.integers(0, 6), st.integers(0, 3000), st.integers(1, 600))
def test_a_batch_reads_the_weights_once(window: int, context: int, batch: int) -> None:
    one = forward_cost(QWEN, 1, window, context, formats=BF16)
    two = forward_cost(QWEN, 1, window, context, batch=2, formats=BF16)
    many = forward_cost(QWEN, 1, window, context, batch=batch, formats=BF16)
    assert many.operations == batch * one.operations
    assert many.bytes - one.bytes == (batch - 1) * (two.bytes - one.bytes)
    assert two.bytes - one.bytes == 24 * 2 * 2 * 64 * (context + 1 + window) * 2, "its own cache"
    assert forward_cost(QWEN, 1, window, context) == forward_cost(QWEN, 1, window, context, formats=INT8)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("context", [0, 256, 4096])
def test_limits_are_where_the_bound_turns(name: str, context: int) -> None:
    target = TARGETS[name]
    plan = plan_for(target, QWEN, AGREES, context, (1,))

    def bound(batch: int, window: int) -> str:
        return forecast(target, QWEN, AGREES, context, batch, window).bound

    for limit, at in ((plan.span_limit, lambda n: (1, n)), (plan.batch_limit, lambda n: (n, 4))):
        if limit is None:
            assert bound(*at(MOST)) == "memory"
        else:
            assert (bound(*at(limit)), bound(*at(limit + 1))) == ("memory", "arithmetic")


def test_spans_pay_while_memory_is_the_limit_and_not_for_long_after() -> None:
    plan = plan_for(TARGETS["a100"], QWEN, AGREES, 256, BATCHES)
    by = {(f.batch, f.span_rows): f for f in plan.forecasts}
    assert by[1, 0].against_leftmost == 1
    assert by[1, 4].bound == "memory"
    assert 1.3 < by[1, 4].against_leftmost < pace(AGREES, SpanRows(4))[1]
    assert by[512, 4].bound == "arithmetic"
    assert by[512, 4].against_leftmost < by[1, 4].against_leftmost
    assert by[1, 0].tokens_a_second == pytest.approx(2.039e12 / by[1, 0].bytes)


def test_drafts_are_computed_too() -> None:
    """Where arithmetic is the limit a forward takes as long as all its rows, those that check drafts among them."""
    target = Target("toy", Rates(1e18, 1e12), 100, "made up")
    sure = forecast(target, QWEN, (1.0,), 0, 64, 1)
    rows = forward_cost(QWEN, 2, 1, 0, guesses=2, batch=64, formats=BF16)
    assert (sure.rows, sure.operations, sure.bound) == (64 * 3, rows.operations, "arithmetic")
    assert sure.tokens_a_second == pytest.approx(64 * 2 / sure.floor), "every draft is right: two tokens a forward"
    assert sure.against_leftmost < 1


def test_what_does_not_fill_tiles_or_processors_shows() -> None:
    target = Target("toy", Rates(1e12, 1e14), 100, "made up")
    odd = replace(QWEN, ffn=4865, vocabulary=128 * 100, kept=0)
    by = {fit.name: fit for fit in fits(target, odd, 5)}
    assert by["head"].busy == by["head"].used == 1
    assert by["down"].programs == 28
    assert by["down"].busy == pytest.approx(0.28)
    assert by["gate and up"].used == pytest.approx(4865 / (153 * 32))
    assert by["down"].used == pytest.approx(4865 / (39 * 128)), "inputs have tiles too: 38 do not hold 4865"
    assert "span rows' head" not in by


def test_the_command_shows_a_forecast(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["plan", "--target", "h100", "--model", "qwen2.5-coder-7b"]) == 0
    shown = capsys.readouterr().out
    for text in ("NVIDIA H100", "Published, not measured", "bound by memory", "left-to-right", "as if the model had"):
        assert text in shown


def test_the_command_as_json_for_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(tiny.config()))
    assert cli.run(["plan", "--target", "mi300x", "--model", str(tmp_path), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["target"]["processors"] == 304
    assert {f["span_rows"] for f in plan["forecasts"]} == {0, 1, 2, 4}
    assert cli.run(["plan", "--target", "mi300x", "--model", str(tmp_path), "--adapter", "none", "--json"]) == 0
    assert {f["span_rows"] for f in json.loads(capsys.readouterr().out)["forecasts"]} == {0}


@pytest.mark.parametrize("model", ["nonsense", "."])
def test_an_unknown_model_is_refused(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["plan", "--target", "b200", "--model", model]) == 2
    assert "qwen2.5-coder-7b" in capsys.readouterr().err
