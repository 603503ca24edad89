"""What is measured through the language server's protocol: typing sessions, and holes in packages with tests."""

import os
import random
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from diffcode.evals import keystrokes, packages
from diffcode.evals.cuts import Line
from diffcode.evals.editor import INVOKED, EditorProcess, Reply, applied, items, uri_of

BEFORE, SOLUTION, BEHIND = "def triple(x):\n", "    return 2 * x", "\n\nprint(triple(2))\n"


def test_a_line_is_typed_and_every_pause_told(editor: EditorProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keystrokes, "GAP", 0.0)
    monkeypatch.setattr(keystrokes, "BURST", 1.0)  # a pause behind every key
    line = Line(BEFORE + BEHIND, len(BEFORE), SOLUTION)
    keys = list(keystrokes.type_line(editor, line, 1, random.Random(1)))
    assert len(keys) == len("return 2 * x")
    made = [key for key in keys if key.by_model]
    assert made
    assert [key.cold for key in made] == [True] + [False] * (len(made) - 1)
    behind = keys[len("return ")]
    assert behind.shown
    assert behind.fits
    remembered = keys[len("return 2")]
    assert (remembered.shown, remembered.fits, remembered.by_model) == (True, True, False)
    assert all(key.overhead > -0.001 for key in made)
    grid = keystrokes.table(keys, [0.001, 0.003], 1.0)
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(grid)
    said = console.export_text()
    assert f"{len(keys)} pauses in 1 sessions" in said
    assert "2.0" in next(row for row in said.splitlines() if "ping" in row)


def test_parts_share_the_sessions_and_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_server) -> None:
    line = Line(BEFORE + BEHIND, len(BEFORE), SOLUTION)
    monkeypatch.setattr(keystrokes, "library_lines", lambda count, seed: [line] * count)
    monkeypatch.setattr(keystrokes, "GAP", 0.0)
    monkeypatch.setattr(keystrokes, "EditorProcess", lambda: EditorProcess(fake_server))
    options = ["--sessions", "3", "--out", str(tmp_path / "keys.jsonl"), "--part"]
    first = CliRunner().invoke(keystrokes.main, [*options, "1/2"])
    both = CliRunner().invoke(keystrokes.main, [*options, "2/2"])
    assert "in 2 sessions" in first.stdout
    assert "in 3 sessions" in both.stdout
    assert "3/2 is no part" in CliRunner().invoke(keystrokes.main, [*options, "3/2"]).stderr


def test_pings_are_answered_meanwhile(editor: EditorProcess) -> None:
    pinger = keystrokes.Pinger(editor)
    editor.open("file:///a.py", BEFORE + "    return " + BEHIND)
    assert items(editor.end(editor.begin_suggestion("file:///a.py", 1, len("    return "), INVOKED)))
    while len(pinger.seconds) < 3:
        pass
    pinger.stop()
    assert max(pinger.seconds) < 5


def test_an_error_is_a_reply_too(editor: EditorProcess) -> None:
    reply = editor.ask("no/such", {})
    assert reply.error is not None
    assert items(reply) == []


@given(st.text("ab\n", max_size=30), st.data())
def test_a_suggestion_is_put_in_by_its_range(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    new = data.draw(st.text("xyz\n", max_size=5))

    def place(at: int) -> dict[str, int]:
        return {"line": text.count("\n", 0, at), "character": at - (text.rfind("\n", 0, at) + 1)}

    item = {"insertText": new, "range": {"start": place(start), "end": place(end)}}
    assert applied(text, item) == text[:start] + new + text[end:]


def test_items_come_as_a_list_or_in_an_object() -> None:
    one = {"insertText": "a"}
    assert items(Reply([one], None, 0)) == items(Reply({"items": [one]}, None, 0)) == [one]
    assert items(Reply(None, None, 0)) == []


# ---- packages


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> packages.Package:
    """A package whose tests need one of its two lines."""
    root = tmp_path / "made-1.0"
    (root / "src").mkdir(parents=True)
    (root / "src" / "made.py").write_text(
        "unused = []\ndef triple(x):\n    return 3 * x\ndef never():\n    unused.append(1)\n", encoding="utf8"
    )
    (root / "test_made.py").write_text("import made\ndef test(): assert made.triple(2) == 6\n", encoding="utf8")
    monkeypatch.setattr(packages, "_fetched", lambda name, folder: root)
    return packages.Package("made", tmp_path)


def test_only_needed_lines_are_holes(package: packages.Package) -> None:
    assert package.passes()
    (path,) = package.files()
    source = path.read_text(encoding="utf8")
    found = package.holes(random.Random(0))
    where, line = next(found)
    assert (where, line.solution) == (path, "    return 3 * x")
    assert path.read_text(encoding="utf8") == source
    assert next(found, None) is None, "every line once"
    assert path.read_text(encoding="utf8") == source
    holes = list(packages.in_turn([package, package], random.Random(0)))
    assert [(p, where) for p, where, _ in holes] == [(package, path)] * 2
    there = packages.Outcome(*package.where(path, line), line.solution, None, False, 0.1).where
    assert list(package.holes(random.Random(0), {there})) == []


def test_holes_that_were_measured_are_kept(package: packages.Package, tmp_path: Path, monkeypatch, fake_server) -> None:
    monkeypatch.setattr(packages, "EditorProcess", lambda: EditorProcess(fake_server))
    for _ in range(2):
        done = CliRunner().invoke(packages.main, ["--holes", "2", "--out", str(tmp_path), "made"])
        assert done.exit_code == 0, done.output
        assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 1, "there is but one"


def test_a_suggestion_is_judged_by_the_tests(package: packages.Package, editor: EditorProcess) -> None:
    path, line = next(package.holes(random.Random(0)))
    source = path.read_text(encoding="utf8")
    suggested, text, _ = packages.suggestion(editor, path, line)
    # The made-up model knows `triple(x):`, but not a line that is begun: what it says then is wrong.
    assert suggested is not None
    assert not package.judge(path, text)
    assert package.judge(path, text.replace(suggested, "return x * 3"))
    assert path.read_text(encoding="utf8") == source
    outcome = packages.Outcome("made", "a.py", 3, "    return 3 * x", " return 3 * x", True, 0.1)
    assert outcome.exact


def test_a_package_that_cannot_be_had_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.sys, "executable", shutil.which("false") or "/bin/false")
    with pytest.raises(packages.UnreadableFile, match="made-up has no source distribution"):
        packages.Package("made-up", tmp_path)


def test_addresses_of_files(tmp_path: Path) -> None:
    assert uri_of(tmp_path / "a b.py").startswith("file:///")
    assert uri_of(tmp_path / "a b.py").endswith("/a%20b.py")
