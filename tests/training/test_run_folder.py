"""The folder of a run: whole or absent, the last few kept, and no run goes on as another."""

import json
import os
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_kit import options

from diffcode.errors import BadOption, UnreadableFile, UnwritableFile
from diffcode.training.options import TrainOptions
from diffcode.training.run_folder import FREE, RunFolder

DATA = {"tokens": 100, "documents": 3, "hash": "a"}


def state(step: int) -> dict[str, Any]:
    return {"step": step, "parameters": {"x": torch.full((300,), float(step))}, "norms": [1.0, 2.5]}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run", 2)


# ---- checkpoints


def test_the_newest_checkpoint_comes_back(folder: RunFolder) -> None:
    assert folder.load() is None
    for step in (9, 10, 100):
        folder.save(state(step), step)
    found = folder.load()
    assert found is not None
    assert (found["step"], found["norms"]) == (100, [1.0, 2.5])
    assert torch.equal(found["parameters"]["x"], torch.full((300,), 100.0))


@pytest.mark.parametrize("keep", [1, 3])
def test_the_last_few_are_kept(keep: int, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, keep)
    for step in (5, 99_999_999, 20, 40):
        folder.save(state(step), step)
    assert len(folder.checkpoints()) == keep
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in folder.checkpoints()]


def test_a_save_that_is_cut_leaves_the_old_checkpoint(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.save(state(1), 1)
    before = [(path.name, path.read_bytes()) for path in folder.checkpoints()]

    def cut(_: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", cut)
    for step in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            folder.save(state(step), step)
    assert [(path.name, path.read_bytes()) for path in folder.checkpoints()] == before
    assert folder.load() is not None


@pytest.mark.parametrize("damage", ["empty", "half", "text", "flipped"])
def test_a_damaged_checkpoint_is_named_with_what_to_do(damage: str, folder: RunFolder) -> None:
    folder.save(state(1), 1)
    folder.save(state(2), 2)
    newest = folder.checkpoints()[-1]
    content = newest.read_bytes()
    flipped = bytes(b ^ 255 for b in content[:200]) + content[200:]
    damaged = {"empty": b"", "half": content[: len(content) // 2], "text": b"no file", "flipped": flipped}
    newest.write_bytes(damaged[damage])
    with pytest.raises(UnreadableFile) as caught:
        folder.load()
    message = str(caught.value)
    assert str(newest) in message
    assert "delete it" in message
    assert len(message.splitlines()) == 1
    newest.unlink()
    found = folder.load()
    assert found is not None
    assert found["step"] == 1


def test_a_checkpoint_runs_no_code(folder: RunFolder, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "harm"),)

    torch.save({"step": Bomb()}, folder.path / "checkpoint-00000001.pt")
    with pytest.raises(UnreadableFile):
        folder.load()
    assert not (tmp_path / "harm").exists()


# ---- one run, one plan


def test_the_same_run_goes_on(folder: RunFolder) -> None:
    folder.begin(options("span"), DATA)
    folder.save(state(1), 1)
    folder.begin(options("span"), DATA)
    plan = json.loads((folder.path / "run.json").read_text())
    assert plan["options"]["stage"] == "span"
    assert plan["data"] == DATA


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rate": 1e-2}, "rate"),
        ({"stage": "infill"}, "stage"),
        ({"seed": 1, "texts": 9}, "texts, seed"),
        ({"denoising": replace(TrainOptions().denoising, window=8)}, "denoising"),
        ({"spans": replace(TrainOptions().spans, window=(10, 20))}, "spans"),
    ],
)
def test_another_setting_is_refused_and_named(changes: dict[str, Any], named: str, folder: RunFolder) -> None:
    folder.begin(options("span"), DATA)
    folder.save(state(1), 1)
    plan = (folder.path / "run.json").read_bytes()
    with pytest.raises(BadOption, match="another --out") as caught:
        folder.begin(replace(options("span"), **changes), DATA)
    assert named in str(caught.value)
    assert (folder.path / "run.json").read_bytes() == plan


def test_other_data_is_refused(folder: RunFolder) -> None:
    folder.begin(options("span"), DATA)
    folder.save(state(1), 1)
    with pytest.raises(BadOption, match="the data"):
        folder.begin(options("span"), DATA | {"hash": "b"})


def test_length_and_looking_may_change(folder: RunFolder) -> None:
    assert set(FREE) <= {f.name for f in fields(TrainOptions)}
    folder.begin(options("span"), DATA)
    folder.save(state(1), 1)
    longer = options("span", steps=99, minutes=5.0, cooldown=0.5, rows=77, validate_every=9, keep=1, recompute=True)
    folder.begin(longer, DATA)
    assert json.loads((folder.path / "run.json").read_text())["options"]["steps"] == 99


def test_before_the_first_checkpoint_anything_goes(folder: RunFolder) -> None:
    folder.begin(options("span"), DATA)
    folder.begin(options("infill"), DATA | {"hash": "b"})
    assert json.loads((folder.path / "run.json").read_text())["options"]["stage"] == "infill"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnwritableFile, match="give another --out"):
        RunFolder(tmp_path / "file/run", 1)


# ---- metrics


def test_metrics_behind_a_step_are_dropped(folder: RunFolder) -> None:
    for step in range(5):
        folder.log({"step": step, "loss": step / 3})
    folder.log({"step": 4, "validation": {"measure": 1 / 7}})
    whole = folder.metrics()
    folder.rewind(4)
    assert folder.metrics() == whole
    folder.rewind(2)
    assert folder.metrics() == whole[:3]
    folder.rewind(-1)
    assert folder.metrics() == []


@settings(max_examples=60)
@given(st.data())
def test_metrics_cut_anywhere_lose_the_last_line_at_most(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = RunFolder(Path(name), 1)
        numbers = st.floats(allow_nan=False, allow_infinity=False)
        for step in range(3):
            folder.log({"step": step, "validation": {"measure": data.draw(numbers)}, "seconds": data.draw(numbers)})
        whole, file = folder.metrics(), folder.path / "metrics.jsonl"
        content = file.read_bytes()
        last = content[:-1].rindex(b"\n") + 1
        file.write_bytes(content[: data.draw(st.integers(last, len(content)))])
        assert folder.metrics() in (whole, whole[:2])
        folder.rewind(9)
        folder.log({"step": 3})
        assert folder.metrics() in ([*whole, {"step": 3}], [*whole[:2], {"step": 3}])


# ---- finished folders


def test_a_folder_is_put_in_the_place_of_an_older_one(folder: RunFolder) -> None:
    for content in ("old", "new"):
        staged = folder.path / ".best.part"
        staged.mkdir()
        (staged / content).write_text(content)
        folder.replace_folder(staged, "best")
    assert [path.name for path in (folder.path / "best").iterdir()] == ["new"]
    assert [path.name for path in folder.path.iterdir()] == ["best"]
