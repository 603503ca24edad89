"""Where a fill goes: a diff, the file, standard output, JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_infiller import FILLED, TEXT, FakeInfiller, one_line

from diffcode import cli

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
        "retries": 0,
        "others": 0,
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
