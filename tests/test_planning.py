"""A plan of a tiny model: measured, kept, and looked at when the model is used."""

import dataclasses
import json
from pathlib import Path

import pytest
import tiny

from diffcode import cli, planning
from diffcode.engine import Model
from diffcode.infill import Infiller
from diffcode.kernels.cpu import native

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
    assert [f.span_rows for f in plan.forwards] == [0, 0, 1, 2, 3, 4]
    assert all(f.seconds > 0 and f.bytes > 0 and f.operations > 0 for f in plan.forwards)
    assert 1 <= plan.window <= 4
    assert Infiller(model).span_rows == 4, "no plan yet: the default"
    planning.save_plan(dataclasses.replace(plan, window=3), planning.plan_file(model))
    assert Infiller(model).span_rows == 3
    assert Infiller(Model.load(folders[0], "none")).span_rows == 0, "no adapter, no span rows"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"window": 99}', '{"window": "2"}', '{"window": 0}'])
def test_a_damaged_plan_is_no_plan(folders: tuple[str, str], text: str) -> None:
    model = Model.load(*folders)
    file = planning.plan_file(model)
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert Infiller(model).span_rows == 4


def test_what_the_trainer_measured_is_used(folders: tuple[str, str]) -> None:
    config = Path(folders[1]) / "adapter_config.json"
    note = {"validation": {"agrees_1": 0.9, "agrees_2": 0.8, "right_1": 1.0}}
    config.write_text(json.dumps(json.loads(config.read_text()) | {"diffcode": note}))
    model = Model.load(*folders)
    assert planning.agreement(model) == (0.9, 0.8)
    assert Infiller(model).span_rows == 2, "no wider than the adapter was trained for"


def test_the_command(folders: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    model, adapter = folders
    assert cli.run(["plan", "--model", model, "--adapter", adapter, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "one token and 4 span rows" in shown
    assert "GB/s" in shown
    assert not list((Path(model).parent / "home").glob("plans/*"))
    assert cli.run(["plan", "--model", model, "--adapter", adapter, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["window"] in (1, 2, 3, 4)
    assert plan["rates"]["bytes_a_second"] > 1e8
    assert len(list((Path(model).parent / "home").glob("plans/*"))) == 1
