"""What rows come to, and how it is said."""

from dataclasses import replace

import pytest
from fake_evaluation import SITTING, row, run_of
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcode.evals import summary, table
from diffcode.evals.results import Row, Run


@pytest.fixture
def rows() -> list[Row]:
    return [
        row("a", "verified", True, seconds=0.2),
        row("a", "leftmost", True, forwards=10, ngram_accepted=0),
        row("b", "leftmost", False, forwards=30, tokens=30, ngram_accepted=0, completions=("y",), syntax=False),
        row("b", "verified", True, forwards=15, tokens=30, ngram_accepted=6, seconds=0.4, exact=True),
    ]


@pytest.fixture
def run() -> Run:
    return run_of(["a", "b"])


def test_summary_is_worked_out_from_the_rows(rows: list[Row]):
    found = summary.summarise([rows[0], rows[3]])
    assert (found.decoder, found.problems, found.pass_at, found.exact, found.syntax) == (
        "verified",
        2,
        {"1": 1},
        0.5,
        1,
    )
    assert found.interval == (1.0, 1.0)
    assert found.tokens_per_forward == 40 / 20
    assert found.tokens_per_forward_without_ngrams == (40 - 7) / 20
    assert found.forwards == 10
    assert found.seconds_p50 == pytest.approx(0.3)
    assert found.seconds_p95 == pytest.approx(0.39)
    assert (found.context_p50, found.context_p95) == (0.1, 0.1)
    assert found.denoise_p50 == pytest.approx(0.2)
    assert found.denoise_p95 == pytest.approx(0.29)


@pytest.mark.parametrize("name", ["verified:retries=8", "verified:best_of=9"])
def test_n_gram_drafts_of_other_fills_are_not_taken_from_the_tokens_of_one(name: str):
    found = summary.summarise([row("a", name, True, forwards=40, tokens=10, ngram_accepted=30)])
    assert (found.tokens_per_forward, found.tokens_per_forward_without_ngrams) == (10 / 40, None)


def test_why_fills_ended_is_told_hole_by_hole():
    rows = [row("a", "edit", True, finished=("line", "eos")), row("b", "edit", True, finished=("line", "budget"))]
    found = summary.summarise(rows)
    assert found.finished == {"line": 0.5, "eos": 0.25, "budget": 0.25}
    assert found.endings() == "edit: holes ended by line 0.50, eos 0.25, budget 0.25"


def test_samples_give_pass_at_k():
    # c of 5 samples pass: 5, 1 and 0.
    rows = [
        row(task, "verified", sample < passed, sample=sample)
        for task, passed in (("a", 5), ("b", 1), ("c", 0))
        for sample in range(5)
    ]
    found = summary.summarise(rows)
    assert (found.problems, found.samples) == (3, 5)
    assert found.pass_at == {"1": pytest.approx((1 + 0.2) / 3), "5": pytest.approx(2 / 3)}
    low, high = found.interval
    assert 0 <= low < found.pass_at["1"] < high <= 1


def test_what_an_engine_does_not_tell_is_not_made_up():
    rows = [row(task, "openai:http://h", True, forwards=None, context_seconds=None, others=None) for task in "ab"]
    found = summary.summarise(rows)
    assert found.tokens_per_forward is found.forwards is found.context_p50 is found.denoise_p95 is found.others is None
    assert "-" in table.cells(found)
    assert found.idle


def test_comparison_pairs_by_problem(rows: list[Row], run: Run):
    (found,) = summary.report(rows, run).comparisons
    assert (found.decoder, found.baseline, found.problems) == ("verified", "leftmost", 2)
    assert (found.gained, found.lost, found.same) == (("b",), (), 1)
    assert (found.p_value, found.difference) == (1.0, 0.5)
    assert found.interval == (0.0, 1.0)


def test_comparison_of_samples_counts_the_first_for_flips_and_all_for_the_difference():
    mine = [row("a", "verified", passed, sample=n) for n, passed in enumerate([True, False, False, False])]
    theirs = [row("a", "leftmost", passed, sample=n) for n, passed in enumerate([False, True, True, True])]
    found = summary.compare(mine, theirs)
    assert (found.gained, found.lost) == (("a",), ())
    assert found.difference == pytest.approx(0.25 - 0.75)


def test_baseline_comes_first(rows: list[Row], run: Run):
    assert [found.decoder for found in summary.report(rows, run).summaries] == ["leftmost", "verified"]


def test_without_a_baseline_nothing_is_compared(rows: list[Row]):
    assert summary.report([rows[0]], run_of(["a"], decoders=("verified",))).comparisons == ()


def test_unfinished_problems_do_not_count(rows: list[Row], run: Run):
    found = summary.report(rows[:3], run)
    assert (found.problems, found.wanted) == (1, 2)
    assert [one.problems for one in found.summaries] == [1, 1]


def test_nothing_finished_is_no_error(run: Run):
    found = summary.report([], run)
    assert (found.summaries, found.comparisons, found.problems) == ((), (), 0)
    assert "0 of 9 problems" in table.markdown(found)


@settings(max_examples=8)
@given(st.permutations(range(6)))
def test_order_of_the_rows_does_not_matter(order: list[int]):
    rows = [row(task, "verified", task != "b", sample=n, seconds=0.1 * n + 0.1) for task in "abc" for n in range(2)]
    run = run_of(["a", "b", "c"], decoders=("verified",), samples=2)
    assert summary.report([rows[at] for at in order], run) == summary.report(rows, run)


def test_title_says_what_was_measured():
    run = run_of(
        ["a"], newline_stop=True, max_tokens=64, temperature=0.2, samples=3, shard="1/2", model="m", adapter="d"
    )
    run = run.continued({**SITTING, "commit": "def456", "began": "2026-11-24T01:00:00+00:00"})
    assert summary.title(run, 1) == (
        "infill-single, 1 of 9 problems, shuffle seed 0, shard 1/2, stop at the newline, at most 64 tokens a hole, "
        "no oracle length, 3 samples at temperature 0.2, seed 0, model m, adapter d, "
        "commit abc123 and def456, 2026-11-23 and 2026-11-24"
    )
    plain = summary.title(run_of(["a"], shuffle_seed=None), 1)
    assert plain.startswith("infill-single, 1 of 9 problems, in order, no newline stop, ")


@pytest.mark.parametrize(
    ("others", "said", "marked"),
    [(0.02, "idle otherwise: others kept 0.02", False), (0.9, "* The machine was not idle: others kept 0.90", True)],
)
def test_busy_machine_is_told(rows: list[Row], run: Run, others: float, said: str, marked: bool):
    found = summary.report([replace(one, others=others) for one in rows], run)
    assert said in found.footer
    assert sum("*" in name for name in table.headers(found)) == 3 * marked


def test_time_that_others_took_counts_by_length():
    rows = [row("a", "leftmost", True, seconds=3.0, others=1.0), row("b", "leftmost", True, seconds=1.0, others=-0.2)]
    assert summary.others(rows) == pytest.approx((3.0 - 0.2) / 4)
    assert summary.others([row("a", "leftmost", True, others=-0.01)]) == 0.0
    assert summary.others([row("a", "leftmost", True, others=None)]) is None


def test_markdown(rows: list[Row], run: Run):
    lines = table.markdown(summary.report(rows, run)).split("\n")
    assert lines[0].startswith("**infill-single, 2 of 9 problems, ")
    assert lines[2].startswith("| decoder | n | pass@1 | pass@1, 95 % interval | exact | syntax |")
    cells = ("leftmost", "2", "0.500", "0.000 to 1.000", "0.000", "0.500", "1.00", "1.00", "20.0")
    assert lines[4] == f"| {' | '.join(cells)} | 0.300, 0.300 | 100, 100 | 200, 200 |"
    assert len({line.count("|") for line in lines[2:6]}) == 1
    assert lines[7] == (
        "* verified against leftmost: same completion in 1 of 2, 1 problems gained, 0 lost (McNemar exact p = 1.000), "
        "pass@1 +0.500 (+0.000 to +1.000)"
    )
    assert lines[8] == "* leftmost: holes ended by eos 1.00"
    assert lines[11].startswith("Abacus, 2 cores; ")
    assert lines[11].endswith("tests run without isolation; commit abc123; 2026-11-23")


def test_grid_is_wide_enough_for_a_pipe(rows: list[Row], run: Run, capsys: pytest.CaptureFixture[str]):
    long = "threshold:threshold=0.85:span_rows=4"
    renamed = [replace(one, decoder=long) if one.decoder == "verified" else one for one in rows]
    table.show(summary.report(renamed, replace(run, settings=replace(run.settings, decoders=("leftmost", long)))))
    out = capsys.readouterr().out
    assert f" {long} " in out
    assert "0.000 to 1.000" in out
    assert "…" not in out
