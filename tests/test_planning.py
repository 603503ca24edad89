"""A plan of a tiny model: measured, kept, and looked at when the model is used."""

import dataclasses
import json
from pathlib import Path

import pytest
import tiny

from diffcode import cli, planning
from diffcode.config import DenoiseOptions
from diffcode.engine import Model
from diffcode.infill import Fill, Infiller
from diffcode.kernels.cpu import native
from diffcode.kernels.plan import NO_SPAN, SpanRows

pytestmark = pytest.mark.skipif(native.library() is None, reason="the CPU engine was not built here")


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    monkeypatch.setenv("DIFFCODE_HOME", str(tmp_path / "home"))
    model = tiny.write_model(tmp_path / "model")
    adapter = tiny.write_adapter(tmp_path / "adapter", tiny.adapter_tensors(tiny.config()))
    return str(model), str(adapter)


def test_a_plan_is_measured_kept_and_used(folders: tuple[str, str]) -> None:
    model = Model.load(*folders)
    plan = planning.make_plan(model, native.isa())
    names = [f.name for f in plan.forwards]
    assert len(names) == len(set(names)) == 2 + 4 + 11, "context, token; windows without drafts; with them"
    assert {"context of 256 tokens", "one token", "one token and 4 span rows"} < set(names)
    assert "one token, 3 drafts and 2 times 3 span rows" in names
    assert all(f.seconds > 0 and f.bytes > 0 and f.operations > 0 for f in plan.forwards)
    assert plan.span == max(plan.choices, key=lambda choice: choice.tokens_a_second).span
    assert Infiller(model).span_rows == SpanRows(4), "no plan yet: the default"
    planning.save_plan(dataclasses.replace(plan, span=SpanRows(3, 2)), planning.plan_file(model))
    assert Infiller(model).span_rows == SpanRows(3, 2)
    assert Infiller(Model.load(folders[0], "none")).span_rows == NO_SPAN, "no adapter, no span rows"


def test_a_plan_without_an_adapter(folders: tuple[str, str]) -> None:
    plan = planning.make_plan(Model.load(folders[0], "none"), native.isa())
    assert [f.name for f in plan.forwards] == ["context of 256 tokens", "one token"]
    assert plan.span == NO_SPAN


def test_where_span_rows_do_not_pay_there_are_none(folders: tuple[str, str]) -> None:
    """But for whom they are asked, and where the policy needs them."""
    infiller = Infiller(Model.load(*folders))
    infiller.span_rows = SpanRows(4, 0)

    def filled(policy: str) -> Fill:
        options = DenoiseOptions.parse(policy, max_tokens=12, ngrams=0, threshold=0.0)
        return infiller.fill_with("ab ab ???", None, options, marker="???")

    plain = filled("verified")
    assert plain.forwards == plain.tokens
    assert plain.spans[0].drafts.span_proposed == 0
    assert filled("verified:span_rows=4").spans[0].drafts.span_proposed > 0
    assert filled("verified:max_anchors=1").spans[0].drafts.span_proposed > 0
    assert filled("threshold").forwards < plain.forwards


@pytest.mark.parametrize(
    "text",
    [
        "", "{}", "[]", '{"span": 4}', '{"span": {"places": 99, "outcomes": 1}}', '{"span": {"places": "2"}}',
        '{"span": {"places": 2, "outcomes": 9}}', '{"span": {"rows": 2}}',
    ],
)  # fmt: skip
def test_a_damaged_plan_is_no_plan(folders: tuple[str, str], text: str) -> None:
    model = Model.load(*folders)
    file = planning.plan_file(model)
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert Infiller(model).span_rows == SpanRows(4)


def test_what_the_trainer_measured_is_used(folders: tuple[str, str]) -> None:
    config = Path(folders[1]) / "adapter_config.json"
    note = {"validation": {"agrees_1": 0.9, "agrees_2": 0.8, "right_1": 1.0}}
    config.write_text(json.dumps(json.loads(config.read_text()) | {"diffcode": note}))
    model = Model.load(*folders)
    assert planning.agreement(model) == (0.9, 0.8)
    assert Infiller(model).span_rows == SpanRows(2), "no wider than the adapter was trained for"


def test_the_command(folders: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    model, adapter = folders
    assert cli.run(["plan", "--model", model, "--adapter", adapter, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "one token and 4 span rows" in shown
    assert "GB/s" in shown
    assert "no span rows" in shown
    assert "*" in shown
    assert not list((Path(model).parent / "home").glob("plans/*"))
    assert cli.run(["plan", "--model", model, "--adapter", adapter, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["span"]["places"] in (1, 2, 3, 4)
    assert plan["rates"]["bytes_a_second"] > 1e8
    assert len(list((Path(model).parent / "home").glob("plans/*"))) == 1
