"""What is said about the machine, and how busy others kept it."""

import subprocess
import sys
import time

import pytest

from diffcode.evals import machine
from diffcode.evals.machine import Bystanders


def test_others_are_everybody_without_this_program(monkeypatch: pytest.MonkeyPatch):
    # (wall, everybody's, this program's) seconds: of 3 busy ones in 2 seconds, 2.2 were ours.
    moments = iter([(10.0, 100.0, 5.0), (12.0, 103.0, 7.2)])
    monkeypatch.setattr(Bystanders, "_now", staticmethod(lambda: next(moments)))
    assert Bystanders().others() == pytest.approx(0.4)


def test_no_account_is_no_number(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Bystanders, "_now", staticmethod(lambda: None))
    assert Bystanders().others() is None


def test_own_work_is_not_others():
    bystanders = Bystanders()
    if bystanders.others() is None and Bystanders._now() is None:
        pytest.skip("this kernel has no /proc/stat")
    began, busy = Bystanders._now(), time.perf_counter()
    while time.perf_counter() - busy < 0.1:
        pass
    ended = Bystanders._now()
    assert began is not None
    assert ended is not None
    wall, everybody, mine = (new - old for new, old in zip(ended, began, strict=True))
    assert wall == pytest.approx(0.1, abs=0.05)
    assert 0 < mine <= wall + 0.01
    assert everybody >= mine - 0.03  # the kernel counts everybody in 10 ms


def test_facts_are_told_in_one_line():
    facts = machine.facts("cpu", "float32", "bwrap")
    line = machine.describe(facts)
    assert "\n" not in line
    assert all(facts[name] in line for name in ("processor", "cores", "device", "dtype", "commit", "isolation"))
    assert facts["began"][:10] in line


def test_facts_load_no_torch():
    line = "import sys; from diffcode.evals.machine import facts; print(*facts(None, None, ''), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.endswith(" False\n")
    assert "threads" not in done.stdout
