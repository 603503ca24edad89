"""The VS Code extension for tests: programs that are run, a file to be filled."""

import json
import os
import stat
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXTENSION = ROOT / "editors" / "vscode"
SCRIPTS = Path(__file__).parent / "lsp" / "node"
NO_NETWORK = ("ENOTFOUND", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "EAI_AGAIN", "ENOTCACHED", "network")

TEXT = '''import math


def area(r):
    """Area of a circle."""
    ...


def volume(r, h):
    return area(r) * ???


def double(x):
    return \n'''
ACCEPTED = TEXT.replace("return \n", "return 2 * x\n")
FILLED = ACCEPTED.replace("    ...", "    return math.pi * r**2").replace("???", "h")


def run(*command: object, seconds: float = 60, **options) -> subprocess.CompletedProcess:
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=seconds, **options)


def printed(done: subprocess.CompletedProcess) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def program(path: Path, script: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def environment(**more: object) -> dict[str, str]:
    ours = {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **ours, **{name: str(value) for name, value in more.items()}}
