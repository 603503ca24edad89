"""Several processes train what one does: the same command under torchrun, gloo on the CPU, fp32.

Tolerances: gradients are added up in another order, so a step's loss may differ by 1e-6 of itself and its norm by 5e-6
(measured over these 8 steps: 3e-7 and 9e-7, over 40 steps 1.6e-6 and 4e-6); adapters are saved in bf16, where a weight
may then fall on the neighbouring number (measured: one in 2,000).
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from training_kit import load, repetitive, write_corpus

from diffcode import cli
from diffcode.errors import BadOption, UnreadableFile, UnwritableFile
from diffcode.tokens import Tokens
from diffcode.training import checkpoint
from diffcode.training.command import command, options_of
from diffcode.training.distributed import World
from diffcode.training.launch import make_trainer
from diffcode.training.trainer import Trainer

# Five texts a step and few rows a forward: the processes have shares of different sizes and go forward unequally often.
SETTINGS = (
    *("texts=5", "rows=150", "validate_every=3", "validation_texts=5", "warmup=2", "rank=4", "rate=2e-3", "steps=8"),
    *(
        "spans.window=24,96",
        "spans.most_tokens=40",
        "spans.most_lines=2",
        "spans.most_characters=24",
        "spans.empty=0.2",
    ),
    *("denoising.starts=6", "denoising.kept=120", "save_minutes=0", "keep=9", "cooldown=0"),
)
LIMIT = 60  # seconds that no run here may take
# What one of several processes does in step 4, after that many checkpoints.
FAULTS = {
    "none": "",
    "SIGTERM to all": "os.kill(os.getppid(), signal.SIGTERM); time.sleep(1)",
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "error": "raise UnreadableFile('the disk is gone: bring it back')",
}
SCRIPT = """
import os, signal, sys, time
from diffcode import cli
from diffcode.errors import UnreadableFile
from diffcode.training.trainer import Trainer

real = Trainer._step

def step(trainer):
    if trainer.step == {at} and trainer.world.rank == 1:
        {fault}
    return real(trainer)

Trainer._step = step
cli.main()
"""


@dataclass(frozen=True)
class Place:
    """A tiny model, a corpus, and runs beside them."""

    root: Path

    def arguments(self, run: str, stage: str, *more: str) -> list[str]:
        settings = [part for setting in SETTINGS for part in ("--set", setting)]
        folders = [f"--model={self.root / 'm'}", f"--data={self.root / 'corpus'}", f"--out={self.root / run}"]
        where = ["--stage", stage, "--device", "cpu", "--dtype", "float32"]
        return ["train", *folders, *where, *settings, *more]

    def alone(self, run: str, stage: str, *more: str) -> None:
        assert cli.run(self.arguments(run, stage, *more)) == 0

    def together(
        self, run: str, stage: str, *more: str, processes: int = 2, fault: str = "none", at: int = 3
    ) -> subprocess.CompletedProcess[str]:
        script = self.root / "faulty.py"
        script.write_text(SCRIPT.format(at=at, fault=FAULTS[fault] or "pass"))
        program = ["-m", "diffcode"] if fault == "none" else [str(script)]
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [sys.executable, *torchrun, *program, *self.arguments(run, stage, *more)]
        env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONSAFEPATH": "1"}
        with subprocess.Popen(command, env=env, text=True, stdout=PIPE, stderr=PIPE) as process:
            try:
                out, err = process.communicate(timeout=LIMIT)
            except subprocess.TimeoutExpired:
                process.terminate()  # so that torchrun ends its processes; killed, it would leave them behind
                process.communicate(timeout=LIMIT)
                raise
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def rows(self, run: str) -> list[dict[str, Any]]:
        """The metrics without the clock."""
        lines = (self.root / run / "metrics.jsonl").read_text().splitlines()
        return [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in lines]

    def saved(self, run: str, which: str = "adapter") -> dict[str, Tensor]:
        (file,) = (self.root / run / which).glob("*.safetensors")
        return load_file(file)

    def resumed(self, run: str, stage: str, *more: str) -> Trainer:
        """What a process of its own takes up from the run's newest checkpoint."""
        options = options_of(command.make_context("train", self.arguments(run, stage, *more)[1:]).params)
        model = load(self.root / "m", infill="none" if stage == "infill" else None, adapter="none")
        return make_trainer(options, self.root / "corpus", self.root / run, model, name=str(self.root / "m"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("runs")
    model = tiny.write_model(root / "m")
    write_corpus(root / "corpus", repetitive(), Tokens.from_folder(model), validation=2)
    return Place(root)


@pytest.fixture(scope="module")
def infill(place: Place) -> Place:
    """With a run of each kind for stage infill."""
    place.alone("one", "infill")
    done = place.together("two", "infill")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("8 steps, best measure ")
    assert done.stdout.count("\n") == 1
    return place


def assert_same_curve(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> None:
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        if "loss" in mine:
            assert mine["loss"] == pytest.approx(other["loss"], rel=1e-6)
            assert mine["norm"] == pytest.approx(other["norm"], rel=5e-6)
            assert mine["weight"] == pytest.approx(other["weight"], rel=1e-6)
            assert mine["rate"] == other["rate"]
        else:
            assert mine["validation"] == pytest.approx(other["validation"], rel=5e-6, abs=5e-6, nan_ok=True)


def assert_same_weights(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """Up to the neighbouring number in bf16, and that for one in 500 at most."""
    assert ours.keys() == theirs.keys()
    different = total = 0
    for name, mine in ours.items():
        torch.testing.assert_close(mine, theirs[name], rtol=2**-7, atol=1e-4, msg=name)
        different, total = different + int((mine != theirs[name]).sum()), total + mine.numel()
    assert different <= total / 500


def newest(place: Place, run: str) -> str:
    return max(path.name for path in (place.root / run).glob("checkpoint-*"))


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("diffcode:")]


def losses(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    return [row["loss"] for row in rows if "loss" in row]


# ---- the same run


def test_an_adapter_on_every_row(infill: Place) -> None:
    assert losses(infill.rows("two"))[-1] < losses(infill.rows("two"))[0] - 0.3
    assert_same_curve(infill.rows("two"), infill.rows("one"))
    assert_same_weights(infill.saved("two"), infill.saved("one"))
    assert_same_weights(infill.saved("two", "best"), infill.saved("one", "best"))


def test_an_adapter_of_span_rows(place: Place) -> None:
    """With activation checkpointing on one side only: it changes no number."""
    place.alone("span-1", "span")
    done = place.together("span-2", "span", "--recompute")
    assert done.returncode == 0, done.stderr
    measured = [row["validation"]["nll_1"] for row in place.rows("span-2") if "validation" in row]
    assert measured[-1] < measured[0] - 1
    assert_same_curve(place.rows("span-2"), place.rows("span-1"))
    assert_same_weights(place.saved("span-2"), place.saved("span-1"))


def test_the_whole_model(place: Place) -> None:
    place.alone("full-1", "infill", "--full")
    done = place.together("full-2", "infill", "--full", "--recompute", processes=3)
    assert done.returncode == 0, done.stderr
    assert losses(place.rows("full-2"))[-1] < losses(place.rows("full-2"))[0] - 0.3
    assert_same_curve(place.rows("full-2"), place.rows("full-1"))
    assert_same_weights(place.saved("full-2"), place.saved("full-1"))
    load(place.root / "full-2/best", "bfloat16")


# ---- runs that are cut


def test_cut_and_taken_up_by_any_number_of_processes(infill: Place) -> None:
    """Ended by SIGTERM, then by SIGKILL to one process, then continued by one alone, then by two again."""
    place, run = infill, "cut"
    ended = place.together(run, "infill", fault="SIGTERM to all", at=2)
    assert ended.returncode != 0
    assert newest(place, run) in ("checkpoint-00000002.dcp", "checkpoint-00000003.dcp")

    killed = place.together(run, "infill", fault="SIGKILL", at=5)
    assert killed.returncode != 0
    assert said(killed) == [
        "diffcode: another process of this run has ended: the same command goes on from its checkpoint"
    ]
    assert newest(place, run) == "checkpoint-00000005.dcp"
    assert losses(place.rows(run)) == losses(place.rows("two"))[:5], "resumed by as many, and not bitwise the same"

    place.alone(run, "infill", "--set", "steps=6")
    assert newest(place, run) == "checkpoint-00000006.pt"
    last = place.together(run, "infill")
    assert last.returncode == 0, last.stderr
    assert newest(place, run) == "checkpoint-00000008.dcp"
    assert_same_curve(place.rows(run), place.rows("one"))
    assert_same_weights(place.saved(run), place.saved("one"))


def test_a_checkpoint_of_two_is_whole_for_one(infill: Place) -> None:
    """Parameters, averages and moments, in fp32, against those of the run of one process."""
    theirs, ours = (infill.resumed(run, "infill") for run in ("one", "two"))
    assert (ours.step, len(ours._norms)) == (theirs.step, len(theirs._norms))
    assert ours.best == pytest.approx(theirs.best, rel=1e-6)
    states = [trainer._state() for trainer in (ours, theirs)]
    for name in ("parameters", "average"):
        for parameter, value in states[0][name].items():
            torch.testing.assert_close(value, states[1][name][parameter], rtol=1e-4, atol=1e-5, msg=parameter)
    for number, moments in states[0]["optimizer"]["state"].items():
        for name, value in moments.items():
            torch.testing.assert_close(value, states[1]["optimizer"]["state"][number][name], rtol=1e-4, atol=1e-6)


def test_one_that_fails_ends_all_and_says_why(place: Place) -> None:
    done = place.together("failed", "infill", fault="error")
    assert done.returncode != 0
    assert "diffcode: process 1: the disk is gone: bring it back" in said(done)
    assert [line for line in said(done) if "process 1" not in line and "another process" not in line] == []
    assert done.stderr.count("Traceback") == 1, "one more than torchrun's own"


def test_what_is_wrong_with_the_options_is_said_once(place: Place) -> None:
    done = place.together("refused", "infill", "--set", "texts=1")
    assert said(done) == ["diffcode: --texts 1 is too few for 2 processes: each needs one at least"]
    assert not (place.root / "refused").exists()


# ---- a folder of checkpoints


@pytest.mark.parametrize("damage", ["metadata", "pieces", "numbers"])
def test_a_damaged_folder_is_named_with_what_to_do(damage: str, infill: Place, tmp_path: Path) -> None:
    folder = shutil.copytree(infill.root / "two/checkpoint-00000008.dcp", tmp_path / "checkpoint-00000008.dcp")
    file = {"metadata": ".metadata", "pieces": "__0_0.distcp", "numbers": checkpoint.NUMBERS}[damage]
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    trainer = infill.resumed("two", "infill")
    with pytest.raises(UnreadableFile, match="delete it") as caught:
        checkpoint.load(folder, trainer._blank, World())
    assert str(folder) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_folder_runs_no_code(infill: Place, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "harm"),)

    folder = shutil.copytree(infill.root / "two/checkpoint-00000008.dcp", tmp_path / "checkpoint-00000008.dcp")
    (folder / ".metadata").write_bytes(pickle.dumps(Bomb()))
    trainer = infill.resumed("two", "infill")
    with pytest.raises(UnreadableFile, match="delete it"):
        checkpoint.load(folder, trainer._blank, World())
    assert not (tmp_path / "harm").exists()


def test_a_checkpoint_that_cannot_be_written_says_so(infill: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = infill.resumed("one", "infill")

    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:668] . unexpected pos 128 vs 22\nframe #0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UnwritableFile, match="free some space") as caught:
        trainer.save()
    assert len(str(caught.value).splitlines()) == 1


# ---- the world


@given(count=st.integers(1, 40), size=st.integers(2, 9))
def test_shares_are_equally_long_and_give_everything_in_order(count: int, size: int) -> None:
    shares: dict[int, list[int]] = {}
    results = {}

    class Waiting(Exception):
        """Not all shares are there yet."""

    def gather(world: World, mine: list[int]) -> list[list[int]]:
        shares[world.rank] = mine
        if len(shares) < size:
            raise Waiting
        return [shares[rank] for rank in range(size)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(World, "gather", gather)
        for rank in (*range(size), *range(size)):
            with suppress(Waiting):
                results[rank] = World(rank, size).shared(range(count), lambda mine: [-item for item in mine])
    assert {len(share) for share in shares.values()} == {-(-count // size)}
    assert all(results[rank] == [-item for item in range(count)] for rank in range(size))


def test_a_process_alone_needs_no_group_and_no_torch() -> None:
    code = "from diffcode.training.distributed import joined; import sys\n"
    code += "with joined(None) as world, world.agreed():\n assert world.sum(0.1) == world.most(0.1) == 0.1\n"
    code += "world.leave(3); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=LIMIT)


def test_every_process_has_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    world = World(rank=11, size=16, local_rank=3)
    assert [world.device(name) for name in (None, "cuda", "cpu")] == ["cuda:3", "cuda:3", "cpu"]
    with pytest.raises(BadOption, match="leave the number out"):
        world.device("cuda:1")
    assert World().device("cuda:1") == "cuda:1"
