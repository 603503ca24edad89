"""What a measurement ran on: numbers without it cannot be compared."""

import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from diffcode.kernels.processor import processor


def facts(device: str | None, dtype: str | None, isolation: str) -> dict[str, str]:
    """Processor, threads, torch, how tests are shut off, commit and time, as texts by name."""
    found = {
        "processor": processor(),
        "cores": str(processors()),
        "device": device or "default",
        "dtype": dtype or "default",
        "isolation": isolation,
        "commit": commit(),
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if "torch" in sys.modules:  # a run of outside engines alone loads none
        import torch

        found |= {"torch": torch.__version__, "threads": str(torch.get_num_threads())}
        if torch.cuda.is_available():
            found["accelerator"] = torch.cuda.get_device_name()
    return found


def describe(facts: dict[str, str]) -> str:
    """`facts` in one line."""
    parts = [f"{facts['processor']}, {facts['cores']} cores"]
    parts += [facts["accelerator"]] if "accelerator" in facts else []
    parts += [f"{facts['threads']} threads", f"torch {facts['torch']}"] if "torch" in facts else []
    parts += [f"device {facts['device']}", f"dtype {facts['dtype']}"]
    parts.append("tests run without isolation" if facts["isolation"] == "none" else f"tests in {facts['isolation']}")
    return "; ".join([*parts, f"commit {facts['commit']}", facts["began"][:10]])


def processors() -> int:
    """How many this program may use."""
    return len(os.sched_getaffinity(0))


class Bystanders:
    """Measures how many processors other programs keep busy while something runs here.

    The load average cannot tell: it counts this program too. None where the kernel keeps no such account.
    """

    def __init__(self) -> None:
        self._began = self._now()

    def others(self) -> float | None:
        """Processors that others kept busy on average since this was made.

        The kernel counts in 10 ms: of a short time it may come out a little below zero.
        """
        if self._began is None or (now := self._now()) is None:
            return None
        wall, busy, mine = (new - old for new, old in zip(now, self._began, strict=True))
        return round((busy - mine) / wall, 3) if wall > 0 else None

    @staticmethod
    def _now() -> tuple[float, float, float] | None:
        """(wall, everybody's, this program's) seconds."""
        try:
            with open("/proc/stat", encoding="ascii") as file:
                ticks = [int(part) for part in file.readline().split()[1:9]]
        except (OSError, ValueError):
            return None
        user, nice, system, _idle, _waiting, *interrupts = ticks
        busy = (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), busy, time.process_time()


def commit() -> str:
    """The commit of the checkout that this file is in, `+` if files differ from it; `unknown` outside of one."""
    try:
        # An installed copy may lie in some other project's checkout, whose commit says nothing about it.
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        return _git("describe", "--always", "--exclude=*", "--abbrev=10", "--dirty=+")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).resolve().parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
