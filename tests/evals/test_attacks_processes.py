"""Programs that go for other processes, for memory, and for rights. None may get them.

A program's function tries something and returns what came of it, through the same guest as in a check. Each attempt is
bounded and goes for things of this test's own making, so that it does no harm if it succeeds. Most are also made with
no isolation at all, where they do succeed.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile import attacker, in_each, needs_isolation, outcome

from diffcode.evals import sandbox, seccomp
from diffcode.evals.isolation import NONE, UNSHARE, Isolation
from diffcode.evals.sandbox import Limits, Program, check

pytestmark = needs_isolation
NOT_PERMITTED = os.strerror(1)


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


@in_each
def test_killing_a_process_outside(isolation: Isolation, victim: subprocess.Popen[bytes]):
    body = f"return attempt(lambda: os.kill({victim.pid}, signal.SIGKILL))"
    assert outcome(body, isolation) == "ProcessLookupError"
    assert victim.poll() is None
    assert outcome(body, NONE) is None
    assert victim.wait(5) == -9


@in_each
def test_killing_parents_and_everybody(isolation: Isolation):
    # Signal 0 only asks. Process 1 of the namespace cannot be killed, so that the real signal may be sent to it.
    body = """
outside = os.getppid() != 1
everybody = attempt(lambda: os.kill(-1, 0))
if not outside:
    for number in signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM: attempt(lambda: os.kill(1, number))
time.sleep(0.2)
return outside, everybody in (None, "ProcessLookupError", "PermissionError"), os.getppid()
"""
    assert outcome(body, isolation) == (False, True, 1)


@in_each
def test_fork_bomb(isolation: Isolation):
    bomb = """
forks = 0
while forks < 200:
    try: child = os.fork()
    except BlockingIOError: break
    if child == 0: time.sleep(60)
    forks += 1
return forks
"""
    assert outcome(bomb, isolation) == 0
    assert 0 < outcome(bomb, isolation, processes=16) < 16


@in_each
def test_thread_bomb(isolation: Isolation):
    body = """
import threading
return attempt(lambda: [threading.Thread(target=time.sleep, args=[1]).start() for _ in range(200)])
"""
    assert outcome(body, isolation) == "RuntimeError"


def named(name: str) -> list[int]:
    """The processes of this machine that call themselves so."""
    found = []
    for comm in Path("/proc").glob("[0-9]*/comm"):
        try:
            if comm.read_text().strip() == name:
                found.append(int(comm.parent.name))
        except OSError:
            continue
    return found


@in_each
def test_daemon_does_not_outlive_its_program(isolation: Isolation):
    name = f"daemon-{os.getpid()}"
    # Two forks, a session of its own, no signal that can be ignored, and a minute to live.
    body = f"""
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in range(1, 32): attempt(lambda: signal.signal(number, signal.SIG_IGN))
        libc.prctl(15, {name.encode()!r}, 0, 0, 0)
        os.write(writer, b"x")
        time.sleep(60)
    os._exit(0)
return os.read(reader, 1)
"""
    assert outcome(body, isolation, processes=8) == b"x"
    end = time.monotonic() + 5
    while named(name) and time.monotonic() < end:
        time.sleep(0.01)
    assert named(name) == []
    assert outcome(body, NONE, processes=10_000) == b"x"
    (daemon,) = named(name)
    os.kill(daemon, 9)


@in_each
@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        ("for n in range(1, 32): attempt(lambda: signal.signal(n, signal.SIG_IGN))\nwhile True: pass", "timed out"),
        ("signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass", "timed out"),
        ("os.kill(os.getpid(), signal.SIGSTOP)", "timed out"),
        ("while True: print('x' * 1000)", "timed out"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "ended before the test did"),
        ("ctypes.string_at(0)", "ended before the test did"),
    ],
)
def test_signals_do_not_keep_a_program_alive(isolation: Isolation, body: str, verdict: str):
    began = time.monotonic()
    hostile = Program(attacker(body), "def check(attack): attack()", "attack")
    assert check(hostile, isolation=isolation, limits=Limits(seconds=1)) == verdict
    assert time.monotonic() - began < 4


@in_each
def test_too_much_memory(isolation: Isolation):
    body = """
import mmap
held = []
def grow(more):
    for _ in range(24): held.append(more())
ways = lambda: bytearray(1 << 24), lambda: mmap.mmap(-1, 1 << 24)
return *[attempt(lambda: grow(way)) for way in ways], len(held) <= 16
"""
    assert outcome(body, isolation, memory=1 << 28) == ("MemoryError", "OSError", True)


@in_each
def test_raising_the_limits(isolation: Isolation):
    body = """
names = ["RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NPROC", "RLIMIT_NOFILE", "RLIMIT_CORE"]
def more(number):
    most = resource.getrlimit(number)[1]
    resource.setrlimit(number, (most + 1, most + 1))
return {attempt(lambda: more(getattr(resource, name))) for name in names}
"""
    assert outcome(body, isolation) == {"ValueError"}


@in_each
def test_becoming_root(isolation: Isolation):
    body = """
sets = (ctypes.c_uint32 * 6)(*[0xFFFFFFFF] * 6)
version = (ctypes.c_uint32 * 2)(0x20080522, 0)
raised = libc.capset(version, sets)
libc.capget(version, sets)
if os.getuid(): attempt(lambda: os.setuid(0))
ways = lambda: os.setgroups([0]), lambda: os.chroot("/usr"), lambda: os.mknod("disk", 0o60600, 0xFE00)
return raised, list(sets), [attempt(way) for way in ways]
"""
    assert outcome(body, isolation) == (-1, [0] * 6, ["PermissionError"] * 3)


@in_each
def test_system_calls_that_are_not_for_programs(isolation: Isolation, monkeypatch: pytest.MonkeyPatch):
    machine = os.uname().machine
    if machine not in seccomp.ARCHITECTURES:
        pytest.skip(f"the filter knows no numbers of {machine}")
    numbers = {name: pair[list(seccomp.ARCHITECTURES).index(machine)] for name, pair in seccomp.REFUSED.items()}
    # Meaningless arguments: what gets past the filter says so, and does nothing.
    body = f"return {{name: call(number, *[-1] * 6) for name, number in {numbers}.items()}}"
    assert set(outcome(body, isolation).values()) == {NOT_PERMITTED}
    monkeypatch.setattr(sandbox.seccomp, "build", lambda: b"")
    let_pass = {name for name, came in outcome(body, isolation).items() if came != NOT_PERMITTED}
    assert {"keyctl", "memfd_create", "process_vm_readv", "socket", "shmget", "unshare"} <= let_pass


# getpid by its number for 32-bit programs: mov eax, 20; int 0x80; ret
OLD_CALL = """
import mmap
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex("b814000000cd80c3"))
return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
"""


@in_each
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="other processors have one set of system calls")
def test_system_calls_under_other_numbers(isolation: Isolation, monkeypatch: pytest.MonkeyPatch):
    new = "return call(0x40000000 + 41, -1, -1, -1)"  # socket by x32's number
    assert outcome(new, isolation) == NOT_PERMITTED
    here = subprocess.run([sys.executable, "-c", f"{attacker(OLD_CALL)}assert attack() == os.getpid()"], check=False)
    runs_old_programs = here.returncode == 0
    if runs_old_programs:
        assert outcome(OLD_CALL, isolation) == -1
    monkeypatch.setattr(sandbox.seccomp, "build", lambda: b"")
    assert outcome(new, isolation) != NOT_PERMITTED
    if runs_old_programs:
        assert outcome(OLD_CALL, isolation) > 1


@in_each
def test_processes_and_mounts_are_out_of_reach_without_the_filter(
    isolation: Isolation, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sandbox.seccomp, "build", lambda: b"")
    attach = "libc.ptrace(16, 1, None, None)"  # PTRACE_ATTACH to the namespace's first process
    mount = 'libc.mount(b"none", b"/box", b"tmpfs", 0, None)'
    # Bubblewrap's own first process has no more rights than the program, nor any secret: there the filter must do.
    for way in [mount, attach] if isolation is UNSHARE else [mount]:
        assert outcome(f"return {way}, os.strerror(ctypes.get_errno())", isolation) == (-1, NOT_PERMITTED)


@in_each
def test_clock_inside_ends_a_program_that_nobody_ends_outside(isolation: Isolation, tmp_path: Path):
    if isolation is not UNSHARE:
        pytest.skip("bubblewrap watches its parent instead")
    script = tmp_path / "sleeper.py"
    script.write_text("import time\ntime.sleep(60)\n")
    with sandbox.started(isolation, script, 1) as line:
        line.settimeout(20)
        assert line.recv(1) == b""
