"""`diffcode train` as people run it: to the end, stopped and started again, and told what is wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
from fake_infiller import one_line
from training_kit import losses, repetitive, write_corpus

from diffcode import cli
from diffcode.tokens import Tokens

SETTINGS = {
    "spans.window": "24,96",
    "spans.most_tokens": 40,
    "validation_texts": 3,
    "denoising.starts": 4,
    "denoising.kept": 120,
    "rate": 1e-3,
}
SMALL = ["--texts", "2", "--rank", "4", "--fresh", "--dtype", "float32", "--device", "cpu"]
SMALL += [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("base") / "m")


@pytest.fixture(scope="module")
def corpus(base: Path) -> Path:
    return write_corpus(base.parent / "corpus", repetitive(), Tokens.from_folder(base), validation=2)


@pytest.fixture
def given(base: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    monkeypatch.setenv("DIFFCODE_HOME", str(tmp_path / "home"))
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    return ["train", "--model", str(base), "--data", str(corpus), *SMALL]


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


# ---- a run


@pytest.mark.parametrize("stage", ["infill", "span"])
def test_a_run_leaves_an_adapter_that_fills(
    stage: str, given: list[str], base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert cli.run([*given, "--stage", stage, "--steps", "4", "--out", str(out), "--json"]) == 0
    said, err = capsys.readouterr()
    document = json.loads(said)
    assert (document["step"], document["done"]) == (4, 1.0)
    assert document["adapter"] == str(out / "best")
    assert document["last"].keys() >= {"measure"}
    assert "stopped early" not in err
    names = {path.name for path in out.iterdir()}
    assert names >= {"adapter", "best", "metrics.jsonl", "run.json", "checkpoint-00000004.pt"}
    assert not [name for name in names if name.endswith(".part")]
    (tmp_path / "code.py").write_text("def re(de):\n    return ???\n")
    use = "--infill" if stage == "infill" else "--adapter"
    fill = ["fill", str(tmp_path / "code.py"), "--model", str(base), use, str(out / "best"), "--max-tokens", "4"]
    assert cli.run([*fill, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] >= 1


def test_tensorboard_shows_every_step(given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out = tmp_path / "run"
    assert cli.run([*given, "--stage", "infill", "--steps", "3", "--out", str(out)]) == 0
    curves = reader.EventAccumulator(str(out / "tensorboard"))
    curves.Reload()
    rows = [row for row in metrics(out) if "loss" in row]
    shown = curves.Scalars("train/loss")
    assert [(one.step, one.value) for one in shown] == [(r["step"], pytest.approx(r["loss"])) for r in rows]
    measured = [row["validation"]["measure"] for row in metrics(out) if "validation" in row]
    assert [one.value for one in curves.Scalars("validation/measure")] == pytest.approx(measured)


def test_numbers_for_people(given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert cli.run([*given, "--stage", "infill", "--steps", "3", "--out", str(out)]) == 0
    said, err = capsys.readouterr()
    assert said.startswith("3 steps, best measure -")
    assert str(out / "best") in said.replace("\n", "")
    assert "step 0: " in err
    assert "nll" in err
    assert cli.run([*given, "--stage", "infill", "--steps", "3", "--out", str(out)]) == 0
    assert capsys.readouterr().out == said, "a finished run only says what it came to"
    if (out / "loss.svg").exists():  # where matplotlib is installed
        assert "<svg" in (out / "loss.svg").read_text()


def test_minutes_end_a_run(given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    # A busy machine takes few steps in that time: the rate is to fall from the first on.
    limits = ["--steps", "1000000", "--minutes", "0.05", "--set", "warmup=0", "--set", "cooldown=1"]
    began = time.monotonic()
    assert cli.run([*given, "--stage", "infill", *limits, "--out", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["done"] == 1.0
    assert 0.05 <= document["minutes"] < 0.3
    assert time.monotonic() - began < 60
    rates = [row["rate"] for row in metrics(out) if "rate" in row]
    assert 1 < len(rates) < 10_000
    assert rates[-1] < 0.7 * max(rates), "the rate falls towards the end of the time"


# ---- stopped and started again


def test_sigterm_leaves_a_checkpoint_and_the_same_command_goes_on(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = ["--stage", "span", "--steps", "80", "--set", "validate_every=40"]

    def command(name: str) -> list[str]:
        return [*given, *limits, "--out", str(tmp_path / name)]

    process = subprocess.Popen(
        [sys.executable, "-m", "diffcode", *command("cut")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    file = tmp_path / "cut/metrics.jsonl"
    while process.poll() is None and not (file.exists() and '"step": 5' in file.read_text()):
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    said, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "the same command goes on from here" in err
    (checkpoint,) = (tmp_path / "cut").glob("checkpoint-*.pt")
    stopped = int(checkpoint.stem.removeprefix("checkpoint-"))
    assert 5 <= stopped < 80
    assert said.startswith(f"{stopped} steps")

    assert cli.run(command("cut")) == 0
    assert cli.run(command("whole")) == 0
    capsys.readouterr()
    assert losses(metrics(tmp_path / "cut")) == losses(metrics(tmp_path / "whole"))
    assert len(losses(metrics(tmp_path / "cut"))) == 80
    validations = [
        [r["validation"] for r in metrics(tmp_path / name) if "validation" in r] for name in ("cut", "whole")
    ]
    assert validations[0] == validations[1]
    weights = [(tmp_path / name / "best/adapter_model.safetensors").read_bytes() for name in ("cut", "whole")]
    assert weights[0] == weights[1]


def test_another_setting_for_the_same_folder_is_refused(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = [*given, "--stage", "infill", "--out", str(tmp_path / "run"), "--steps"]
    assert cli.run([*whole, "2"]) == 0
    capsys.readouterr()
    assert cli.run([*whole, "2", "--seed", "5"]) == 2
    assert "another setting of seed" in last_line(capsys)
    assert cli.run([*whole, "3"]) == 0
    assert capsys.readouterr().out.startswith("3 steps")


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    line = err.splitlines()[-1]
    assert line.startswith("diffcode: ")
    return line


# ---- what is wrong


@pytest.mark.parametrize(
    ("exit_code", "args", "says"),
    [
        (2, ["--out", "run"], "--data is missing"),
        (2, ["--data", "set"], "--out is missing"),
        (2, ["--data", "set", "--out", "run", "--set", "nothing=1"], "nothing=1"),
        (2, ["--data", "set", "--out", "run", "--set", "rate"], "NAME=VALUE"),
        (2, ["--data", "set", "--out", "run", "--stage", "other"], "infill"),
        (2, ["--data", "set", "--out", "run", "--steps", "0"], "--steps"),
        (2, ["--data", "set", "--out", "run", "--minutes", "0"], "minutes is 0"),
        (2, ["--data", "set", "--out", "run", "--minutes", "nan"], "minutes is nan"),
        (2, ["--data", "set", "--out", "run", "--rate", "-1"], "rate"),
        (2, ["--data", "set", "--out", "run", "--from", "nowhere"], "nowhere"),
        (2, ["--data", "set", "--out", "run", "--dtype", "int3"], "bfloat16"),
    ],
)
def test_wrong_usage_is_told_before_the_model(
    exit_code: int,
    args: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from diffcode.engine import Model

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Model, "load", lambda *_, **__: pytest.fail("loaded"))
    assert cli.run(["train", *args]) == exit_code
    assert says in one_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_data_set_is_told_before_the_model(
    given: list[str], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from diffcode.engine import Model

    monkeypatch.setattr(Model, "load", lambda *_, **__: pytest.fail("loaded"))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert cli.run([*given, "--data", str(empty), "--out", str(tmp_path / "run")]) == 3
    assert "diffcode data build" in last_line(capsys)
    whole = write_corpus(tmp_path / "whole", ["x = 1\n" * 99] * 2, Tokens.from_folder(base), validation=0)
    assert cli.run([*given, "--data", str(whole), "--out", str(tmp_path / "run")]) == 3
    assert "holds out nothing of its 2 documents: build it with a larger --validation" in last_line(capsys)
    assert not (tmp_path / "run").exists()


def test_a_set_with_too_little_text_is_told(
    given: list[str], base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = write_corpus(tmp_path / "small", ["x = 1\n", "y = 2\n"], Tokens.from_folder(base))
    assert cli.run([*given, "--data", str(small), "--out", str(tmp_path / "run")]) == 3
    assert "too little text" in last_line(capsys)


def test_a_damaged_checkpoint_is_told(given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*given, "--stage", "infill", "--steps", "2", "--out", str(tmp_path / "run")]
    assert cli.run(command) == 0
    capsys.readouterr()
    (tmp_path / "run/checkpoint-00000002.pt").write_bytes(b"PK\x03\x04 no more")
    assert cli.run(command) == 3
    assert "delete it" in last_line(capsys)


# ---- the board


def test_skipped_steps_are_shown(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffcode.training.trainer import Trainer

    monkeypatch.setattr(Trainer, "_skip", lambda self, loss, norm: "too wild" if self.step == 1 else None)
    assert cli.run([*given, "--stage", "infill", "--steps", "3", "--out", str(tmp_path / "run")]) == 0
    assert "step 2 skipped: too wild" in capsys.readouterr().err


def test_smoothing_by_hand() -> None:
    from diffcode.training.watch import smoothed

    assert smoothed([(1, 2.0), (2, 2.0), (5, 4.0)]) == [(1, 2.0), (2, 2.0), (5, pytest.approx(0.95 * 2 + 0.05 * 4))]
