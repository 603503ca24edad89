"""Rows, their file, and the table made of them."""

from pathlib import Path

import pytest

from diffcode.errors import UnwritableFile
from diffcode.evals import rows, table
from diffcode.evals.rows import Row


def row(task: str, policy: str, passed: bool, **changes: object) -> Row:
    plain = {
        "task_id": task,
        "policy": policy,
        "completion": "x",
        "exact": False,
        "tokens": 10,
        "forwards": 5,
        "steps": 5,
        "seconds": 0.3,
        "context_seconds": 0.1,
        "span_proposed": 6,
        "span_accepted": 4,
        "ngram_proposed": 2,
        "ngram_accepted": 1,
        "finished": "eos",
    }
    return Row(**{**plain, **changes}).judged("passed" if passed else "AssertionError")


@pytest.fixture
def some() -> list[Row]:
    return [
        row("a", "verified", True, seconds=0.2),
        row("a", "leftmost", True, forwards=10, ngram_accepted=0),
        row("b", "leftmost", False, forwards=30, tokens=30, ngram_accepted=0, completion="y"),
        row("b", "verified", True, forwards=15, tokens=30, ngram_accepted=6, seconds=0.4, exact=True),
    ]


def test_judged_row_knows_its_verdict():
    wrong = row("a", "leftmost", False)
    assert (wrong.passed, wrong.verdict) == (False, "AssertionError")
    assert wrong.judged("passed").passed


def test_rows_survive_the_file(tmp_path: Path, some: list[Row]):
    path = tmp_path / "rows.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for one in some[:2]:
            rows.append(one, file)
        assert rows.read(path) == tuple(some[:2])  # on disk before the file is closed
    rows.save(some, path)
    assert rows.read(path) == tuple(some)
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_file_is_named(tmp_path: Path, some: list[Row]):
    with pytest.raises(UnwritableFile, match=r"gone/rows\.jsonl"):
        rows.save(some, tmp_path / "gone" / "rows.jsonl")


def test_only_problems_that_every_policy_filled_count(some: list[Row]):
    assert rows.complete(some[:3], ("leftmost", "verified")) == tuple(some[:2])
    assert rows.complete(some, ("leftmost", "verified", "edit")) == ()


def test_summary_is_worked_out_from_the_rows(some: list[Row]):
    summary = table.summarise([some[0], some[3]])
    assert (summary.policy, summary.fills, summary.pass_rate, summary.exact_rate) == ("verified", 2, 1.0, 0.5)
    assert summary.interval == (1.0, 1.0)
    assert summary.tokens_per_forward == 40 / 20
    assert summary.tokens_per_forward_without_ngrams == (40 - 7) / 20
    assert summary.forwards_per_fill == 10
    assert summary.seconds_p50 == pytest.approx(0.3)
    assert summary.seconds_p95 == pytest.approx(0.39)
    assert summary.denoise_p50 == pytest.approx(0.2)


def test_comparison_pairs_by_problem(some: list[Row]):
    _, (comparison,) = table.report(some)
    assert (comparison.policy, comparison.baseline, comparison.fills) == ("verified", "leftmost", 2)
    assert (comparison.gained, comparison.lost, comparison.same) == (1, 0, 1)
    assert comparison.p_value == 1.0


def test_baseline_comes_first(some: list[Row]):
    summaries, _ = table.report(some)
    assert [summary.policy for summary in summaries] == ["leftmost", "verified"]


def test_without_a_baseline_nothing_is_compared(some: list[Row]):
    assert table.report([some[0]])[1] == ()


def test_markdown(some: list[Row]):
    lines = table.markdown(some).split("\n")
    assert lines[0].startswith("| policy | n | pass@1 |")
    assert lines[2] == (
        "| leftmost | 2 | 0.500 | 0.000 to 1.000 | 0.000 | 1.00 | 1.00 | 20.0 | 0.300 | 0.300 | 100 | 200 |"
    )
    assert len({line.count("|") for line in lines[:4]}) == 1
    assert lines[5] == (
        "* verified against leftmost: same completion in 1 of 2, 1 problems gained, 0 lost (McNemar exact p = 1.000)"
    )
