"""The Triton kernels' numbers, on the CPU: `tests/kernels/interpreted` in a process of its own, for Triton decides at
import time between its interpreter and its compiler."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Two processes at once, of about the same length: the interpreter uses one core.
HALVES = ("ahead", "attention", "commit", "dispatch", "gpu"), ("head", "integration", "linear", "step")

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


@pytest.mark.parametrize("speed", ["quick", pytest.param("slow", marks=pytest.mark.slow)])
def test_kernels_equal_their_specifications(speed: str) -> None:
    chosen = ["-m", "slow" if speed == "slow" else "not slow"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *chosen, *map(file_of, half)],
            cwd=ROOT,
            env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for half in HALVES
    ]
    try:
        for process in processes:
            said, _ = process.communicate(timeout=500)
            assert process.returncode == 0, said[-8000:]
            assert " passed" in said
    finally:
        for process in processes:
            process.kill()


def file_of(name: str) -> str:
    return f"tests/kernels/interpreted/check_{name}.py"


def test_no_file_is_forgotten() -> None:
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "tests/kernels/interpreted").glob("check_*.py")}
    assert sorted(map(file_of, (*HALVES[0], *HALVES[1]))) == sorted(there)
