"""The checker passes what is right, fails all the ways of being wrong, and leaves nothing behind."""

import os
import shutil
import time
from pathlib import Path

import pytest

from diffcode.evals import checker
from diffcode.evals.checker import BWRAP, NONE, PASSED, TIMED_OUT, UNSHARE, Isolation, Limits, best_isolation, check
from diffcode.evals.problems import Problem, load, sample

OFFICIAL = Path(__file__).resolve().parents[3] / "shared" / "evals"
PROBLEM = Problem(
    task_id="Made/up/0",
    prompt="def twice(n):\n",
    suffix="    return total\n",
    solution="    total = 2 * n\n",
    test="def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-1) == -2\n",
    entry_point="twice",
)
WRONG = {
    "wrong answer": ("    total = n * n\n", "AssertionError"),
    "syntax error": ("    total = (\n", "SyntaxError"),
    "null byte": ("    total = '\0'\n", "SyntaxError"),
    "leaves early": ("    import sys; sys.exit(0)\n", "SystemExit"),
    "leaves at once": ("    import os; os._exit(0)\n", "ended before the test did"),
    "reads input": ("    total = input()\n", "EOFError"),
    "too much memory": ("    total = len(bytearray(1 << 31))\n", "MemoryError"),
    "too large a file": ("    open('big', 'w').write('x' * (1 << 21)).close()\n", "OSError"),
    "prints another secret": ("    print('0' * 32); total = 3\n", "AssertionError"),
    "writes another secret": (
        "    import os\n"
        "    for stream in range(3, 32):\n"
        "        try: os.write(stream, b'0' * 32)\n"
        "        except OSError: pass\n"
        "    total = 2 * n\n",
        "ended before the test did",
    ),
}


@pytest.fixture(scope="module")
def isolation() -> Isolation:
    return best_isolation()


def works(isolation: Isolation) -> bool:
    return shutil.which(isolation.name) is not None and check("pass", isolation=isolation) == PASSED


def verdict(completion: str, isolation: Isolation, seconds: int = 5) -> str:
    return check(PROBLEM.program(completion), isolation=isolation, limits=Limits(seconds=seconds))


@pytest.mark.parametrize("isolation", [BWRAP, UNSHARE, NONE], ids=lambda isolation: isolation.name)
def test_solution_passes(isolation: Isolation):
    if isolation is not NONE and not works(isolation):
        pytest.skip(f"{isolation.name} does not work on this machine")
    assert verdict(PROBLEM.solution, isolation) == PASSED


@pytest.mark.parametrize("name", WRONG)
def test_wrong_completion_fails(name: str, isolation: Isolation):
    completion, wanted = WRONG[name]
    assert verdict(completion, isolation) == wanted


@pytest.mark.parametrize("name", ["leaves early", "writes another secret"])
def test_wrong_completion_fails_without_isolation(name: str):
    completion, wanted = WRONG[name]
    assert verdict(completion, NONE) == wanted


def test_endless_loop_is_stopped(isolation: Isolation):
    began = time.monotonic()
    assert verdict("    while True: pass\n", isolation, seconds=1) == TIMED_OUT
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("shut_off", [True, False])
def test_forked_child_fails_and_does_not_stay(shut_off: bool, isolation: Isolation, tmp_path: Path):
    # The child holds a pipe open for as long as it lives: reading to the end of it waits for the child's death.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    child = f"    import os, time\n    if os.fork() == 0:\n        os.open({str(pipe)!r}, os.O_WRONLY)\n"
    stay = child + "        time.sleep(600)\n    time.sleep(0.1)\n    total = 2 * n\n"
    assert verdict(stay, isolation if shut_off else NONE, seconds=1) != PASSED
    os.set_blocking(reader, True)
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_child_that_has_ended_is_no_offence(isolation: Isolation):
    if os.getuid() != 0:
        pytest.skip("only root may start processes under the checker's limit")
    # Waited for, but not reaped: that is left to the guest.
    child = (
        "    import os\n    child = os.fork() or os._exit(0)\n    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)\n"
    )
    assert verdict(child + PROBLEM.solution, isolation) == PASSED


def test_folder_is_fresh_writable_and_removed(isolation: Isolation):
    here = "    import os; assert os.listdir('.') == []; open('mine', 'w').close()\n"
    where = "    assert os.getcwd() == os.environ['HOME'] != '/'; raise OSError(os.getcwd())\n"
    assert verdict(here + PROBLEM.solution.replace("\n", "; os.remove('mine')\n"), isolation) == PASSED
    before = set(Path(checker.tempfile.gettempdir()).glob("diffcode-check-*"))
    assert verdict(here + where, isolation) == "OSError"
    assert set(Path(checker.tempfile.gettempdir()).glob("diffcode-check-*")) <= before


def test_environment_is_empty(isolation: Isolation, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DIFFCODE_SECRET", "1")
    assert verdict("    import os; assert 'DIFFCODE_SECRET' not in os.environ; total = 2 * n\n", isolation) == PASSED


def test_isolated_program_has_no_network_and_cannot_write(isolation: Isolation, tmp_path: Path):
    if isolation is NONE:
        pytest.skip("neither bwrap nor unshare works on this machine")
    target = tmp_path / "evil"
    assert verdict(f"    open({str(target)!r}, 'w')\n", isolation) == "OSError"
    assert not target.exists()
    # A datagram needs no listener: only a machine without routes refuses it.
    send = "    import socket\n    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 9))\n"
    assert verdict(send, isolation) == "OSError"


def test_isolation_that_does_not_work_is_passed_over(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checker, "BWRAP", Isolation("sh", lambda folder: ["sh", "-c", "exit 1"]))
    monkeypatch.setattr(checker, "UNSHARE", Isolation("no-such-program", lambda folder: ["no-such-program"]))
    assert best_isolation() is NONE


def test_verdicts_keep_the_order(isolation: Isolation):
    programs = ["import time; time.sleep(0.3)", "raise KeyError", "pass"]
    assert list(checker.check_all(programs, isolation=isolation)) == [PASSED, "KeyError", PASSED]


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        pytest.param("HumanEval-RandomSpanInfillingLight", 164, marks=pytest.mark.slow),
        ("HumanEval-SingleLineInfilling", 60),
    ],
)
def test_canonical_solutions_pass(name: str, limit: int, isolation: Isolation):
    path = OFFICIAL / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    problems = sample(load(path), limit, 0)
    programs = [problem.program(problem.solution) for problem in problems]
    verdicts = zip(problems, checker.check_all(programs, isolation=isolation), strict=True)
    assert {problem.task_id: verdict for problem, verdict in verdicts if verdict != PASSED} == {}
    assert len(problems) == limit
