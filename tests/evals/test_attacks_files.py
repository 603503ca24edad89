"""Programs that go for files and the network. None may get there.

A program's function tries something and returns what came of it, through the same guest as in a check. Each attempt is
bounded and goes for things of this test's own making, so that it does no harm if it succeeds. Most are also made with
no isolation at all, where they do succeed.
"""

import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile import in_each, needs_isolation, outcome

from diffcode.evals import sandbox
from diffcode.evals.isolation import NONE, UNSHARE, Isolation

pytestmark = needs_isolation
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["home", "temporary folder", "repository"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder of the test's own where a program has no business."""
    parents = {"home": Path.home(), "temporary folder": tmp_path, "repository": ROOT / ".pytest_cache"}
    parents[request.param].mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="canary-", dir=parents[request.param]) as folder:
        yield Path(folder)


@in_each
def test_reading_files_of_the_user(isolation: Isolation, place: Path):
    (place / ".ssh").mkdir()
    (place / ".ssh" / "id_ed25519").write_text("secret")
    place.chmod(0o755)  # not the kind of lock that is tested here
    body = f"""
os.environ["HOME"] = {str(place)!r}
return attempt(lambda: open(os.path.expanduser("~/.ssh/id_ed25519")).read())
"""
    assert outcome(body, isolation) == "FileNotFoundError"
    assert outcome(body, NONE) == "secret"


@in_each
def test_writing_files_of_the_user(isolation: Isolation, place: Path):
    place.chmod(0o777)
    body = f"return attempt(lambda: open({str(place / 'evil')!r}, 'w').write('evil'))"
    assert outcome(body, isolation) == "FileNotFoundError"
    assert list(place.iterdir()) == []
    assert outcome(body, NONE) == 4


@in_each
def test_symlinks_and_dots_lead_nowhere(isolation: Isolation, place: Path):
    place.chmod(0o777)
    (place / "there").write_text("secret")
    body = f"""
os.symlink({str(place)!r}, "link")
up = "../" * 40 + {str(place)[1:]!r}
ways = "link", up, "/proc/1/root/" + up, "/proc/self/cwd/" + up
return [attempt(lambda: open(way + "/there").read()) for way in ways]
"""
    assert outcome(body, isolation) == ["FileNotFoundError"] * 4
    assert outcome(body, NONE)[:2] == ["secret"] * 2


@in_each
def test_folders_that_are_visible_cannot_be_written(isolation: Isolation):
    folders = ["/", "/usr/lib", "/dev", os.path.dirname(os.__file__)]
    body = f"return [attempt(lambda: open(folder + '/evil', 'w')) for folder in {folders!r}]"
    assert outcome(body, isolation) == ["OSError"] * len(folders)
    body = f"return attempt(lambda: os.replace({os.__file__!r}, 'os.py'))"
    assert outcome(body, isolation) == "OSError"


@in_each
def test_links_modes_and_times_of_what_is_visible(isolation: Isolation):
    body = """
there = os.__file__
ways = [
    lambda: os.link(there, "link"), lambda: os.chmod(there, 0o4777), lambda: os.chown(there, os.getuid(), -1),
    lambda: os.utime(there, (0, 0)), lambda: os.setxattr(there, "user.x", b"x"), lambda: os.unlink(there),
    lambda: os.open("/usr/lib", os.O_TMPFILE | os.O_RDWR), lambda: os.rename("/usr/lib", "/usr/mine"),
]
return {attempt(way) for way in ways}, os.path.exists(there)
"""
    refused, there = outcome(body, isolation)
    assert refused <= {"OSError", "PermissionError"}
    assert there


@in_each
def test_nothing_is_visible_that_python_does_not_need(isolation: Isolation):
    names = "/bin/sh /dev/shm /dev/tty /etc/passwd /proc/self /proc/1/environ /run /sys/kernel /tmp /usr/bin/env /var"
    names = [*names.split(), f"/proc/{os.getpid()}/mem", str(Path.home() / ".cache"), str(ROOT / "evals")]
    # A checkout in /tmp has its interpreter there, which the program needs.
    names = [name for name in names if not any(p.startswith(f"{name}/") for p in (sys.prefix, sys.base_prefix))]
    body = f"return [name for name in {names!r} if os.path.lexists(name)]"
    assert outcome(body, isolation) == []


@in_each
def test_environment_and_descriptors_are_not_handed_down(isolation: Isolation, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DIFFCODE_TOKEN", "secret")
    body = """
there = []
for number in range(64):
    try: os.fstat(number)
    except OSError: continue
    there.append(number)
null = os.stat("/dev/null").st_rdev
return ["DIFFCODE_TOKEN" in os.environ, there, [os.fstat(stream).st_rdev == null for stream in range(3)]]
"""
    with open(__file__), open(os.devnull):  # what a careless start would hand down
        # The three standard streams, and the line to the tester.
        assert outcome(body, isolation) == [False, [0, 1, 2, 3], [True] * 3]


@in_each
def test_filling_the_disk(isolation: Isolation):
    body = """
def fill():
    for number in range(64):
        with open(str(number), "wb") as file: file.write(bytes(1 << 20))
filled = attempt(fill), sum(map(os.path.getsize, os.listdir())) <= 16 << 20
return *filled, attempt(lambda: os.write(os.open("more", os.O_CREAT | os.O_WRONLY), b"x"))
"""
    assert outcome(body, isolation) == ("OSError", True, "OSError")


@in_each
def test_one_large_file(isolation: Isolation):
    body = """
open("big", "w").close()
return attempt(lambda: os.truncate("big", (1 << 20) + 1)), os.path.getsize("big")
"""
    assert outcome(body, isolation) == ("OSError", 0)


@in_each
def test_many_empty_files(isolation: Isolation):
    if isolation is not UNSHARE:
        pytest.skip("bubblewrap cannot limit the number of files")
    body = "return attempt(lambda: [open(str(n), 'w').close() for n in range(9000)]), len(os.listdir()) < 4100"
    assert outcome(body, isolation) == ("OSError", True)


@in_each
def test_deleting_the_working_folder(isolation: Isolation):
    body = """
open("mine", "w").close()
return [attempt(lambda: shutil.rmtree(os.getcwd())), os.listdir("/box"), os.path.exists("/usr/lib")]
"""
    assert outcome(body, isolation) == ["OSError", [], True]


@pytest.fixture(params=[True, False], ids=["filtered", "unfiltered"])
def filtered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With the filter of system calls and without: the rest must hold alone."""
    if not request.param:
        monkeypatch.setattr(sandbox.seccomp, "build", lambda: b"")
    return request.param


@in_each
def test_connecting_to_a_port_of_this_machine(isolation: Isolation, filtered: bool):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        body = f"return attempt(lambda: socket.create_connection({server.getsockname()!r}, 3).close())"
        # Bubblewrap's loopback device is up, unshare's is down.
        assert outcome(body, isolation) in (["PermissionError"] if filtered else ["ConnectionRefusedError", "OSError"])
        if not filtered:
            assert outcome(body, NONE) is None
            server.accept()[0].close()
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


@in_each
def test_sending_a_datagram(isolation: Isolation, filtered: bool):
    # Needs no listener, only a way out.
    body = "return attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 9)))"
    assert outcome(body, isolation) == ("PermissionError" if filtered else "OSError")


@in_each
def test_connecting_to_an_abstract_socket(isolation: Isolation, filtered: bool):
    name = f"\0diffcode-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        body = f"return attempt(lambda: socket.socket(socket.AF_UNIX).connect({name!r}))"
        wanted = "PermissionError" if filtered else "ConnectionRefusedError"
        assert outcome(body, isolation) == wanted
        if not filtered:
            assert outcome(body, NONE) is None


@in_each
def test_sockets_that_no_namespace_holds(isolation: Isolation):
    families = [40, 38, 16, 17, 31]  # vsock (to a virtual machine's host), kernel crypto, netlink, packets, Bluetooth
    body = f"return [attempt(lambda: socket.socket(family, socket.SOCK_RAW).close()) for family in {families}]"
    assert outcome(body, isolation) == ["PermissionError"] * len(families)
