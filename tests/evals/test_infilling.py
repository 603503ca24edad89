"""The evaluation from problem file to table with a made-up engine: what it is asked, what becomes of its answers."""

import gzip
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from diffcode.config import DenoiseOptions
from diffcode.denoise import Drafts
from diffcode.errors import ModelUnavailable
from diffcode.evals import checker, infilling, rows
from diffcode.evals.infilling import Settings
from diffcode.evals.problems import Problem
from diffcode.infill import Fill, SpanFill

PROBLEMS = [
    Problem(
        f"Made/up/{n}",
        "def f(n):\n",
        f"    return m + {n}\n",
        "    m = n\n",
        f"def check(f): assert f(1) == {n + 1}",
        "f",
    )
    for n in range(3)
]


def span_fill(text: str, at: int, tokens: int, forwards: int) -> Fill:
    drafts = Drafts(3, 2, 1, 1)
    span = SpanFill(at, at, text, (1,) * tokens, (0.5,) * tokens, forwards, forwards, 0.2, 0.1, "stop", drafts)
    return Fill(text, (span,), forwards, tokens, 0.25)


@dataclass
class FakeInfiller:
    """Right with `verified`, wrong with every other policy."""

    calls: list[dict[str, Any]] = field(default_factory=list)
    before: Callable[[int], None] = lambda count: None

    def fill_with(self, text: str, holes: list[tuple[int, int]], options: DenoiseOptions, **more: Any) -> Fill:
        self.before(len(self.calls))
        self.calls.append({"text": text, "holes": holes, "options": options, **more})
        right = options.policy == "verified"
        return span_fill("    m = n" if right else "    m = n + 1", holes[0][0], 6, 3 if right else 6)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    lines = []
    for problem in PROBLEMS:
        row = vars(problem) | {"canonical_solution": problem.solution}
        lines.append(json.dumps(row))
    path = tmp_path / "Made-up.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def run(monkeypatch: pytest.MonkeyPatch, infiller: FakeInfiller, *arguments: object) -> Result:
    monkeypatch.setattr(infilling, "load_infiller", lambda *model, **options: infiller)
    monkeypatch.setattr(checker, "best_isolation", lambda: checker.NONE)
    return CliRunner().invoke(infilling.main, [str(argument) for argument in arguments])


def test_hole_lies_between_prompt_and_suffix():
    infiller = FakeInfiller()
    settings = Settings(("verified",), threshold=0.7, newline_stop=True, max_tokens=99)
    row = infilling.fill_one(infiller, PROBLEMS[1], "verified", settings)
    (call,) = infiller.calls
    assert call == {
        "text": "def f(n):\n    return m + 1\n",
        "holes": [(10, 10)],
        "options": DenoiseOptions("verified", threshold=0.7, max_tokens=99),
        "stop": "\n",
    }
    assert (row.completion, row.exact, row.passed) == ("    m = n\n", True, None)
    assert (row.tokens, row.forwards, row.seconds, row.context_seconds) == (6, 3, 0.25, 0.1)
    assert (row.span_proposed, row.span_accepted, row.ngram_proposed, row.ngram_accepted) == (3, 2, 1, 1)


@pytest.mark.parametrize(
    ("newline_stop", "text", "completion"), [(True, "a", "a\n"), (True, "a\n", "a\n"), (False, "a", "a")]
)
def test_completion_ends_as_the_official_ones_do(newline_stop: bool, text: str, completion: str):
    fill = span_fill(text, 0, 1, 1)
    assert rows.row_of(PROBLEMS[0], "verified", fill, newline_stop).completion == completion


def test_policies_take_turns_at_going_first():
    infiller = FakeInfiller()
    filled = list(infilling.fill_all(infiller, PROBLEMS, Settings(("leftmost", "verified"))))
    assert [row.policy for row in filled] == ["leftmost", "verified", "verified", "leftmost", "leftmost", "verified"]
    assert [row.task_id for row in filled] == [PROBLEMS[n].task_id for n in (0, 0, 1, 1, 2, 2)]
    assert infiller.calls[0]["stop"] is None


def test_table_and_rows(monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path):
    out = tmp_path / "runs" / "rows.jsonl"
    done = run(monkeypatch, FakeInfiller(), data, "--newline-stop", "--markdown", "--out", out)
    assert done.exit_code == 0, done.output
    assert "**Made-up, 3 problems, shuffle seed 0, stop at the newline, at most 256 tokens" in done.stdout
    assert "| leftmost | 3 | 0.000 | 0.000 to 0.000 | 0.000 | 1.00 |" in done.stdout
    assert "| verified | 3 | 1.000 | 1.000 to 1.000 | 1.000 | 2.00 |" in done.stdout
    assert "same completion in 0 of 3, 3 problems gained, 0 lost (McNemar exact p = 0.250)" in done.stdout
    assert "tests run without isolation" in done.stdout
    kept = rows.read(out)
    assert {(row.policy, row.passed, row.verdict) for row in kept} == {
        ("leftmost", False, "AssertionError"),
        ("verified", True, "passed"),
    }
    assert len(kept) == 6


def test_plain_table_shows_the_same_numbers(monkeypatch: pytest.MonkeyPatch, data: Path):
    done = run(monkeypatch, FakeInfiller(), data, "--newline-stop", "--limit", 2)
    assert done.exit_code == 0, done.output
    assert "3 problems" not in done.stdout
    assert "0.000 to 0.000" in done.stdout
    assert "verified against leftmost: same completion in 0 of 2" in done.stdout


def test_no_fill_is_measured_cold(monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path):
    infiller = FakeInfiller()
    out = tmp_path / "rows.jsonl"
    run(monkeypatch, infiller, data, "--policies", "verified,leftmost,threshold", "--limit", 1, "--out", out)
    assert [call["options"].policy for call in infiller.calls[:3]] == ["verified", "leftmost", "threshold"]
    assert len(infiller.calls) == 6
    assert len(rows.read(out)) == 3


def test_interrupt_keeps_what_is_complete(monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path):
    def interrupt(count: int) -> None:
        if count == 2 + 5:  # after the two warm-up fills: the last fill of six
            os.kill(os.getpid(), signal.SIGINT)

    out = tmp_path / "rows.jsonl"
    done = run(monkeypatch, FakeInfiller(before=interrupt), data, "--newline-stop", "--markdown", "--out", out)
    assert done.exit_code == infilling.INTERRUPTED, done.output
    assert "2 problems" in done.stdout
    assert "| verified | 2 | 1.000 |" in done.stdout
    assert "Stopped early" in done.stderr
    kept = rows.read(out)
    assert len(kept) == 5
    assert all(row.passed is not None for row in kept)


def test_rows_are_on_disk_before_the_next_fill(data: Path, tmp_path: Path):
    out = tmp_path / "rows.jsonl"
    seen: list[int] = []
    infiller = FakeInfiller(before=lambda count: seen.append(len(rows.read(out))))
    infilling.collect(infilling.fill_all(infiller, PROBLEMS, Settings(("verified",))), out)
    assert seen == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--policies", "leftmost,nonsense"], "no policy 'nonsense'"),
        (["--policies", "leftmost,leftmost"], "named twice"),
        (["--policies", "verified:speed=9"], "no setting 'speed'"),
        (["--policies", "verified:threshold=much"], "write a number"),
        (["--limit", "0"], "limit"),
    ],
)
def test_wrong_options(monkeypatch: pytest.MonkeyPatch, data: Path, arguments: list[str], complaint: str):
    done = run(monkeypatch, FakeInfiller(), data, *arguments)
    assert done.exit_code == 2
    assert complaint in done.stderr


def test_errors_are_one_line_and_their_exit_code(monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path):
    missing = run(monkeypatch, FakeInfiller(), tmp_path / "missing.jsonl")
    assert (missing.exit_code, missing.stderr.count("\n")) == (3, 1)
    (tmp_path / "file").write_text("")
    unwritable = run(monkeypatch, FakeInfiller(), data, "--out", tmp_path / "file" / "rows.jsonl")
    assert (unwritable.exit_code, unwritable.stderr.count("\n")) == (4, 1)

    def unavailable(count: int) -> None:
        raise ModelUnavailable("no weights; run diffcode pull")

    broken = run(monkeypatch, FakeInfiller(before=unavailable), data)
    assert broken.exit_code == 5
    assert broken.stderr.rstrip().endswith("Error: no weights; run diffcode pull")
