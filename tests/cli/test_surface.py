"""The command line's surface: commands, options, help, and errors that need no model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from fake_infiller import TEXT, FakeInfiller, one_line, process

from diffcode import cli, hub
from diffcode.errors import ModelUnavailable

# ---- the surface


def options_of(command: click.Command) -> list[str]:
    return sorted(option for parameter in command.params for option in parameter.opts)


def test_commands_and_options_are_these() -> None:
    """Scripts rely on them: take nothing away and rename nothing without a note in the README."""
    assert {name: options_of(command) for name, command in cli.cli.commands.items()} == {
        "fill": [
            "--adapter", "--at", "--best-of", "--device", "--diff", "--dtype", "--hole", "--infill", "--json",
            "--lines", "--max-tokens", "--model", "--policy", "--retries", "--seed", "--steps", "--stop", "--svg",
            "--temperature", "--threshold", "--watch", "--write", "file",
        ],
        "pull": ["--clean", "--from", "--json"],
    }  # fmt: skip
    assert [option for parameter in cli.cli.params for option in parameter.opts] == ["--version"]
    names = ["bench", "data", "eval", "fill", "lsp", "plan", "pull", "train", "tune"]
    assert cli.cli.list_commands(click.Context(cli.cli)) == names


def test_options_of_train_are_these() -> None:
    from diffcode.training.command import command

    assert options_of(command) == [
        "--adapt", "--data", "--device", "--dtype", "--fresh", "--from", "--full", "--infill", "--json", "--minutes",
        "--model", "--out", "--probe", "--rank", "--rate", "--recompute", "--seed", "--set", "--stage", "--steps",
        "--texts",
    ]  # fmt: skip


def test_defaults_are_these(engine: FakeInfiller, code: Path) -> None:
    assert cli.run(["fill", "code.py"]) == 0
    (call,) = engine.calls
    assert callable(call.pop("cancelled"))
    assert call == {
        "text": TEXT,
        "holes": [(TEXT.index("???"), TEXT.index("???") + 3), (TEXT.rindex("???"), TEXT.rindex("???") + 3)],
        "policy": "verified",
        "threshold": None,
        "max_tokens": 256,
        "max_steps": None,
        "temperature": 0.0,
        "seed": 0,
        "stop": None,
        "language": "python",
        "retries": 8,
        "best_of": 9,
        "on_step": None,  # nobody looks
    }


def test_options_reach_the_model(engine: FakeInfiller, code: Path) -> None:
    options = "--policy edit --threshold 0.25 --max-tokens 7 --steps 3 --temperature 0.5 --seed 11 --stop a --stop b"
    loading = "--model m --adapter a --infill i --device cpu --dtype float32"
    assert cli.run(["fill", "code.py", *options.split(), *loading.split()]) == 0
    (call,), (load,) = engine.calls, engine.loads
    expected = {"policy": "edit", "threshold": 0.25, "max_tokens": 7, "max_steps": 3, "temperature": 0.5, "seed": 11}
    assert expected.items() <= call.items()
    assert call["stop"] == ("a", "b")
    assert (load.model, load.adapter, load.infill) == ("m", "a", "i")
    assert (load.device, load.dtype) == ("cpu", "float32")


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    heavy = ["torch", "transformers", "huggingface_hub", "numpy", "rich", "tokenizers", "gguf"]
    program = f"import sys, diffcode.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


HEAVY = ("torch", "transformers", "huggingface_hub", "numpy", "rich", "tokenizers", "gguf", "datasets", "tree_sitter")


def helped(*args: str) -> str:
    """What a help text says, from a process of its own that must not have loaded anything heavy for it."""
    program = (
        "import sys\nfrom diffcode import cli\n"
        f"code = cli.run({[*args, '--help']})\n"
        f"print(code, *(m for m in {HEAVY} if m in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.split() == ["0"]
    return done.stdout


def test_help_loads_nothing_heavy_and_teaches() -> None:
    shown = helped("fill")
    for line in (
        "  diffcode fill app.py --at 12:5 --write       insert code at line 12, column 5",
        "  130  interrupted; nothing was written (a second Ctrl-C kills at once)",
    ):
        assert line in shown, "click wrapped the examples"
    assert [f"  {n} " in shown for n in range(6)] == [True] * 6


def test_help_of_the_group_loads_nothing_heavy() -> None:
    """Though it has a word on the commands of other packages."""
    shown = helped()
    for name in ("bench", "data", "eval", "fill", "lsp", "plan", "pull", "train", "tune"):
        assert f"\n  {name}  " in shown


def test_help_of_train_loads_nothing_heavy() -> None:
    shown = helped("train")
    assert "  diffcode train --data runs/corpus --out runs/span      then a span adapter" in shown
    assert "  span     the adapter of the span rows: more tokens a forward" in shown


def test_help_of_the_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert cli.run([]) == 0
    assert capsys.readouterr().out == shown
    assert "diffcode fill app.py --write     put it there" in shown


def test_version() -> None:
    from diffcode.version import VERSION

    done = process("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"diffcode {VERSION}\n", "")


# ---- errors that need no model


@pytest.mark.parametrize(
    ("exit_code", "args", "says"),
    [
        (1, ["fill", "no_hole.py"], "write ???"),
        (2, ["fill"], "FILE"),
        (2, ["fill", "code.py", "--at", "99:1"], "lines 1 to 9"),
        (3, ["fill", "latin1.py"], "not UTF-8"),
        (4, ["fill", "read_only.py", "--write"], "read-only"),
        (5, ["pull", "--from", "missing"], "missing"),
    ],
)
def test_errors_of_the_process(bad_files: Path, exit_code: int, args: list[str], says: str) -> None:
    done = process(*args, cwd=bad_files, env={**os.environ, "DIFFCODE_HOME": str(bad_files / "none")})
    assert (done.returncode, done.stdout) == (exit_code, "")
    assert done.stderr.startswith("diffcode: ")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


@pytest.fixture
def bad_files(code: Path, tmp_path: Path) -> Path:
    (tmp_path / "no_hole.py").write_text("pass\n")
    (tmp_path / "binary.py").write_bytes(b"\0???")
    (tmp_path / "latin1.py").write_bytes(b"\xe9 ???")
    (tmp_path / "large.py").write_bytes(b"?" * 5_000_001)
    (tmp_path / "folder").mkdir()
    (tmp_path / "read_only.py").write_text("???")
    (tmp_path / "read_only.py").chmod(0o444)
    return tmp_path


@pytest.mark.parametrize(
    ("exit_code", "args", "says"),
    [
        (1, ["no_hole.py"], "write ???"),
        (1, ["code.py", "--hole", "TODO"], "write TODO"),
        (2, ["code.py", "--nonsense"], "--nonsense"),
        (2, ["code.py", "more.py"], "more.py"),
        (2, ["code.py", "--at", "0:1"], "lines 1 to 9"),
        (2, ["code.py", "--at", "4:14"], "columns 1 to 13"),
        (2, ["code.py", "--lines", "3:2"], "--lines 2:3"),
        (2, ["code.py", "--lines", "5", "--hole", "???"], "--lines 5 and ??? at 5:12 overlap"),
        (2, ["code.py", "--hole", ""], "--hole is empty"),
        (2, ["code.py", "--diff", "--write"], "--write and --diff exclude each other"),
        (2, ["-", "--write"], "standard input"),
        (2, ["code.py", "--policy", "best"], "leftmost"),
        (2, ["code.py", "--threshold", "1.5"], "between 0 and 1"),
        (2, ["code.py", "--threshold", "-0.1"], "negative"),
        (2, ["code.py", "--threshold", "nan"], "threshold"),
        (2, ["code.py", "--threshold", "inf", "--policy", "entropy_bound"], "threshold is inf"),
        (2, ["code.py", "--temperature", "-1"], "negative"),
        (2, ["code.py", "--temperature", "nan"], "temperature"),
        (2, ["code.py", "--temperature", "warm"], "temperature"),
        (2, ["code.py", "--steps", "0"], "--steps"),
        (2, ["code.py", "--max-tokens", "0"], "--max-tokens"),
        (2, ["code.py", "--dtype", "int3"], "bfloat16"),
        (2, ["code.py", "--stop", ""], "--stop is empty"),
        (2, ["code.py", "--adapter", "none", "--policy", "edit"], "needs a span adapter"),
        (2, ["code.py", "--svg", "./code.py"], "--svg names FILE itself"),
        (3, ["missing.py"], "does not exist"),
        (3, ["two\nlines.py"], "two lines.py"),
        (3, ["folder"], "is a folder"),
        (3, ["binary.py"], "binary"),
        (3, ["latin1.py"], "0xe9 in line 1"),
        (3, ["large.py"], "5 MB"),
        (4, ["read_only.py", "--write"], "chmod u+w"),
        (4, ["code.py", "--svg", "folder"], "name another file"),
        (4, ["code.py", "--svg", "none/a.svg"], "no folder none"),
    ],
)
def test_errors_come_before_the_model(
    bad_files: Path,
    engine: FakeInfiller,
    capsys: pytest.CaptureFixture[str],
    exit_code: int,
    args: list[str],
    says: str,
) -> None:
    assert cli.run(["fill", *args]) == exit_code
    assert says in one_line(capsys)
    assert engine.loads == []
    assert (bad_files / "code.py").read_text() == TEXT


def test_a_large_entropy_bound_is_allowed(engine: FakeInfiller, code: Path) -> None:
    assert cli.run(["fill", "code.py", "--policy", "entropy_bound", "--threshold", "2.5"]) == 0


@pytest.mark.parametrize(
    ("exit_code", "args"),
    [
        (1, ["--hole", "TODO"]),
        (2, ["--at", "0:1"]),
        (2, ["--nonsense"]),
        (2, ["--write"]),
        (2, ["--diff"]),
        (2, ["--threshold", "2"]),
    ],
)
def test_errors_as_json(
    engine: FakeInfiller, code: Path, capsys: pytest.CaptureFixture[str], exit_code: int, args: list[str]
) -> None:
    assert cli.run(["fill", "code.py", "--json", *args]) == exit_code
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert err == f"diffcode: {document['error'].pop('message')}\n"
    assert document == {"error": {"exit_code": exit_code}}


def test_a_model_that_cannot_be_had(
    engine: FakeInfiller, code: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(options: cli.FillOptions, report: hub.Report) -> None:
        raise ModelUnavailable("no weights: connect to the internet")

    monkeypatch.setattr(cli, "load_infiller", load)
    assert cli.run(["fill", "code.py", "--write"]) == 5
    assert one_line(capsys) == "diffcode: no weights: connect to the internet\n"
    assert code.read_text() == TEXT


def test_a_model_path_that_is_wrong(code: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the real loader, so that the two fit together."""
    assert cli.run(["fill", "code.py", "--model", "no/such/model"]) == 5
    assert "no/such/model" in one_line(capsys)
