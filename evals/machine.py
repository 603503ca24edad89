"""What a measurement ran on, in one line: numbers without it cannot be compared."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path


def describe(device: str | None, dtype: str | None, isolation: str, load: float) -> str:
    """Processor, threads, torch, commit and date. `load` is what else ran: the load average before the first fill."""
    import torch  # here, since only a finished run needs it

    parts = [
        f"{processor()}, {len(os.sched_getaffinity(0))} cores",
        f"{torch.get_num_threads()} threads",
        f"load average {load:.1f} before the run",
        f"torch {torch.__version__}",
        f"device {device or 'default'}",
        f"dtype {dtype or 'default'}",
        f"tests run in {isolation}" if isolation != "none" else "tests run without isolation",
        f"commit {commit()}",
        datetime.now(UTC).date().isoformat(),
    ]
    if torch.cuda.is_available():
        parts.insert(1, torch.cuda.get_device_name())
    return "; ".join(parts)


def processor() -> str:
    """The processor's name as the kernel tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n")
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


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
