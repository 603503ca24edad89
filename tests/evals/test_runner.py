"""A run with a made-up engine: what it is asked, in which order, and what becomes of its answers."""

from pathlib import Path

import pytest
from fake_evaluation import ISOLATION, PROBLEMS, FakeInfiller, row, trusting

from diffcode.config import DenoiseOptions
from diffcode.errors import BadOption
from diffcode.evals import runner, sandbox
from diffcode.evals.decoders import Filled, PolicyDecoder, Rules, split_names
from diffcode.evals.problems import Problem
from diffcode.evals.results import Folder

TWO = Problem("two", ("a = ", "\n", "print(a)\n"), ("1", "b = 2\n"), "", "a")


def decoders(infiller: FakeInfiller, *names: str) -> list[PolicyDecoder]:
    return [PolicyDecoder(name, infiller) for name in names]


def fake(completions: tuple[str, ...]) -> Filled:
    return Filled(completions, ("eos",) * len(completions), 1, 0.1)


def test_engine_is_asked_what_the_rules_say():
    infiller = FakeInfiller()
    (decoder,) = decoders(infiller, "threshold:threshold=0.7:span_rows=2")
    found = runner.fill_one(decoder, PROBLEMS[1], Rules(max_tokens=99, stops=("\n",)), 0)
    (call,) = infiller.calls
    assert call == {
        "text": "def f(n):\n    return m + 1\n",
        "holes": [(10, 10)],
        "options": DenoiseOptions("threshold", threshold=0.7, max_tokens=99, span_rows=2),
        "stop": ("\n",),
    }
    assert (found.task_id, found.decoder, found.sample) == ("Made/up/1", decoder.name, 0)
    assert (found.completions, found.exact, found.syntax) == (("    m = n + 1\n",), False, True)
    assert (found.tokens, found.forwards, found.seconds, found.context_seconds) == (6, 6, 0.25, 0.1)
    assert (found.span_proposed, found.span_accepted, found.ngram_proposed, found.ngram_accepted) == (3, 2, 1, 1)
    assert (found.passed, found.finished) == (None, ("eos",))


def test_numbers_of_several_holes_are_summed():
    infiller = FakeInfiller()
    found = runner.fill_one(decoders(infiller, "verified")[0], TWO, Rules(), 0)
    assert infiller.calls[0]["holes"] == [(4, 4), (5, 5)]
    assert (found.tokens, found.forwards, found.context_seconds) == (12, 6, 0.2)
    assert (found.span_accepted, found.ngram_accepted, len(found.completions)) == (4, 2, 2)


def test_exact_means_every_hole():
    assert runner.fill_one(decoders(FakeInfiller(), "verified")[0], PROBLEMS[0], Rules(), 0).exact
    for completions, exact in ((("1", "b = 2\n"), True), (("1", "b = 3\n"), False)):
        decoder = decoders(FakeInfiller(), "verified")[0]
        decoder.fill = lambda *_, completions=completions: fake(completions)  # type: ignore[method-assign]
        assert runner.fill_one(decoder, TWO, Rules(), 0).exact == exact


@pytest.mark.parametrize(
    ("stops", "before", "text", "completion"),
    [
        (("\n",), "def f():\n", "a", "a\n"),
        (("\n",), "def f():\n", "a\n", "a\n"),
        (("\n",), "", "a", "a\n"),
        (("\n",), "x = ", "a", "a"),  # the rest of its line stands behind it
        ((), "def f():\n", "a", "a"),
        (("\nclass",), "def f():\n", "a", "a"),
    ],
)
def test_whole_lines_get_the_line_end_that_the_stop_left_out(
    stops: tuple[str, ...], before: str, text: str, completion: str
):
    problem = Problem("t", (before, "z\n"), ("",), "", "f")
    assert runner.line_ends(problem, fake((text,)), Rules(stops=stops)) == (completion,)


def test_decoders_take_turns_at_going_first():
    infiller = FakeInfiller()
    found = list(runner.fill_all(decoders(infiller, "leftmost", "verified"), PROBLEMS, Rules(), 1))
    assert [row.decoder for row in found] == ["leftmost", "verified", "verified", "leftmost", "leftmost", "verified"]
    assert [row.task_id for row in found] == [PROBLEMS[n].task_id for n in (0, 0, 1, 1, 2, 2)]


def test_no_fill_is_measured_cold():
    infiller = FakeInfiller()
    fills = runner.fill_all(decoders(infiller, "verified", "leftmost"), PROBLEMS[:1], Rules(max_tokens=64), 1)
    assert len(list(fills)) == 2
    assert [call["options"].policy for call in infiller.calls] == ["verified", "leftmost"] * 2
    assert [call["options"].max_tokens for call in infiller.calls] == [8, 8, 64, 64]


def test_what_is_done_is_not_done_again():
    everything = list(runner.fill_all(decoders(FakeInfiller(), "leftmost", "verified"), PROBLEMS, Rules(), 2))
    assert len({row.key for row in everything}) == len(everything) == 12
    for stop in (0, 1, 5, 11):
        done = {row.key for row in everything[:stop]}
        rest = list(runner.fill_all(decoders(FakeInfiller(), "leftmost", "verified"), PROBLEMS, Rules(), 2, done))
        assert [row.key for row in rest] == [row.key for row in everything[stop:]]


def test_chance_is_the_same_for_all_decoders_and_another_for_each_problem_and_sample():
    infiller = FakeInfiller()
    rules = Rules(temperature=0.8, seed=5)
    list(runner.fill_all(decoders(infiller, "leftmost", "verified"), PROBLEMS, rules, 2))
    calls = infiller.calls[2:]
    seeds: dict[tuple[str, str], list[int]] = {}
    for call in calls:
        seeds.setdefault((call["text"], call["options"].policy), []).append(call["options"].seed)
    by_policy = [[seeds[p.text, policy] for p in PROBLEMS] for policy in ("leftmost", "verified")]
    assert by_policy[0] == by_policy[1]
    assert len({seed for pair in by_policy[0] for seed in pair}) == 6
    assert all(call["options"].temperature == 0.8 for call in calls)
    assert Rules(seed=6).seed_of(PROBLEMS[0], 0) != rules.seed_of(PROBLEMS[0], 0)


def test_equal_completions_are_run_once_and_judged_alike(monkeypatch: pytest.MonkeyPatch):
    asked: list[sandbox.Program] = []

    def count(programs: list[sandbox.Program], **more: object):
        asked.extend(programs)
        return trusting(programs, **more)

    monkeypatch.setattr(sandbox, "check_all", count)
    good, bad = ("    m = n\n",), ("    m = 7\n",)
    rows = [
        row("Made/up/0", "a", None, completions=good),
        row("Made/up/0", "b", None, completions=bad),
        row("Made/up/1", "a", None, completions=good),
        row("Made/up/0", "c", None, completions=good),
        row("Made/up/1", "b", None, completions=bad),
    ]
    judged = list(runner.judge(rows, PROBLEMS, ISOLATION))
    assert [(row.decoder, row.passed) for row in judged] == [(row.decoder, row.completions == good) for row in rows]
    assert [row.verdict for row in judged] == ["passed", "AssertionError", "passed", "passed", "AssertionError"]
    assert len(asked) == 4
    assert asked[0] == sandbox.Program(PROBLEMS[0].filled(good), PROBLEMS[0].test, "f")


def test_interrupt_keeps_what_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def interrupt(count: int) -> None:
        if count == 2 + 5:  # after the two warm-up fills: the last fill of six
            raise KeyboardInterrupt

    monkeypatch.setattr(sandbox, "check_all", trusting)
    folder = Folder(tmp_path / "run")
    folder.prepare()
    two = decoders(FakeInfiller(before=interrupt), "leftmost", "verified")
    rows, cut = runner.evaluate(two, PROBLEMS, Rules(), 1, ISOLATION, folder)
    assert cut
    assert len(rows) == 5
    assert all(row.passed is not None for row in rows)
    assert folder.rows() == rows
    again, cut = runner.evaluate(
        decoders(FakeInfiller(), "leftmost", "verified"), PROBLEMS, Rules(), 1, ISOLATION, folder, rows
    )
    assert not cut
    assert again[:5] == rows
    assert len(again) == 6


def test_interrupt_while_testing_keeps_the_verdicts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def interrupted(programs: list[sandbox.Program], **more: object):
        verdicts = trusting(programs, **more)
        yield next(verdicts)
        raise KeyboardInterrupt

    folder = Folder(tmp_path / "run")
    folder.prepare()
    one = decoders(FakeInfiller(), "verified")
    monkeypatch.setattr(sandbox, "check_all", interrupted)
    rows, cut = runner.evaluate(one, PROBLEMS, Rules(), 1, ISOLATION, folder)
    assert cut
    assert [row.passed for row in rows] == [True, None, None]
    asked = []
    monkeypatch.setattr(
        sandbox, "check_all", lambda programs, **more: asked.extend(programs) or trusting(programs, **more)
    )
    infiller = FakeInfiller()
    rows, cut = runner.evaluate(decoders(infiller, "verified"), PROBLEMS, Rules(), 1, ISOLATION, folder, rows)
    assert [row.passed for row in rows] == [True, True, True]
    assert (len(asked), infiller.calls) == (2, [])  # no fill, so no warm-up


def test_rows_are_on_disk_before_the_next_fill(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(sandbox, "check_all", trusting)
    folder = Folder(tmp_path / "run")
    folder.prepare()
    seen: list[int] = []
    infiller = FakeInfiller(before=lambda count: seen.append(len(folder.rows()) if count else -1))
    runner.evaluate(decoders(infiller, "verified"), PROBLEMS, Rules(), 1, ISOLATION, folder)
    assert seen == [-1, 0, 1, 2]


def test_names_of_decoders():
    assert split_names("leftmost, verified:ngrams=0,llama-cpp,openai:http://h/v1#m") == (
        "leftmost",
        "verified:ngrams=0",
        "llama-cpp",
        "openai:http://h/v1#m",
    )


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ("leftmost,nonsense", "no policy 'nonsense'"),
        ("leftmost,leftmost", "named twice"),
        ("verified:speed=9", "no setting 'speed'"),
        ("verified:threshold=much", "write a number"),
        ("", "no policy ''"),
    ],
)
def test_wrong_names_of_decoders(names: str, complaint: str):
    with pytest.raises(BadOption, match=complaint):
        split_names(names)
