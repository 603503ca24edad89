"""The README's numbers are those of `make table`: the same tasks, decoders and settings, in the same order."""

import re
import shlex
from pathlib import Path

import pytest
from fake_evaluation import SITTING

from diffcode.evals import command
from diffcode.evals.results import Run
from diffcode.evals.summary import title

ROOT = Path(__file__).resolve().parents[2]
OFFICIAL = ROOT.parent / "shared" / "evals"


def measured() -> list[Run]:
    """The runs of `make table`, before they have rows."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^\t\$\(MEASURE\) (.*)$", text, re.MULTILINE)
    found = []
    for line in lines:
        words = shlex.split(line.replace("$(EVALS)", str(OFFICIAL)).replace("$(RUNS)", "runs"))
        given = command.command.make_context("eval", words).params
        for name in ("out", "resume", "unsafe", "markdown", "as_json"):
            del given[name]
        _, run = command._plan(command._settings(**given))
        found.append(run.continued(SITTING))
    return found


def published() -> list[tuple[str, list[str]]]:
    """Of each table of the README the title up to the commit, and the decoders."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tables = re.findall(r"^\*\*(.*, )commit .*\*\*\n\n\| decoder .*\n.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [(head, re.findall(r"^\| (\S+)", rows, re.MULTILINE)) for head, rows in tables]


def test_readme_has_the_tables_of_make_table():
    if not OFFICIAL.exists():
        pytest.skip(f"{OFFICIAL} is not on this machine")
    runs = measured()
    assert len(runs) == 7
    wanted = [(title(run, len(run.problems)).partition("commit ")[0], list(run.settings.decoders)) for run in runs]
    assert published() == wanted


def test_every_table_says_machine_threads_commit_and_date():
    """Once for each sitting: a run that was resumed has several, and its title their commits."""
    _, *tables = re.split(r"^\*\*(?=.*, commit )", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    footer = re.compile(
        r"^.*, \d+ cores; \d+ threads; torch .*; commit ([0-9a-f]{10}\+?); \d{4}-\d\d-\d\d$", re.MULTILINE
    )
    assert len(tables) == len(published())
    for table in tables:
        commits = re.findall(r"[0-9a-f]{10}\+?", table.partition("**")[0].rpartition("commit ")[2])
        assert commits
        assert footer.findall(table) == commits
