"""The ways to shut a process off from this machine: bubblewrap, unshare, or not at all.

Both ways give it namespaces of its own (processes, network, IPC, mounts, host name) and a file system that holds the
interpreter with its libraries, numpy if installed, five harmless devices and one empty folder in memory, and nothing
else: no home, no repository, no /proc, no /sys, no shell. Only the folder can be written.
"""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

# The folder in memory. Not /tmp: an interpreter that lies there must stay visible.
BOX = "/box"
JAIL = Path(__file__).with_name("jail.py")
# Ids that no distribution gives out (systemd, "UIDS-GIDS"). One a program, in turn: root's programs share no user.
SPARE_IDS = range(65520, 65534)
SHARED = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/nix/store", "/etc/ld.so.cache")
DEVICES = tuple(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom"))


@dataclass(frozen=True, slots=True)
class Isolation:
    """A way to shut off a Python script. `command(tool, script, seconds, disk)` is the command line that does it, for
    at most so many seconds (0: no end) and bytes of files; `tool` is the program that it needs, "" for none."""

    name: str
    tool: str
    command: Callable[[str, Path, int, int], list[str]]

    def start_line(self, script: Path, seconds: int, disk: int) -> list[str]:
        """The command line; FileNotFoundError where the tool is not installed."""
        tool = shutil.which(self.tool) if self.tool else ""
        if tool is None:
            raise FileNotFoundError(self.tool)
        return self.command(tool, script, seconds, disk)


@cache
def libraries() -> list[str]:
    """Folders where Python finds packages that programs may import besides the standard library: numpy's."""
    found = find_spec("numpy")
    return [str(Path(found.origin).parents[1])] if found and found.origin else []


@cache
def visible() -> list[str]:
    """The files and folders that a program may read, the outer before the inner."""
    prefix = Path(sys.base_prefix)
    packages = [f"{folder}/{name}" for folder in libraries() for name in ("numpy", "numpy.libs")]
    wanted = [*SHARED, str(prefix / "lib"), str(prefix / "lib64"), _interpreter(), *packages]
    found: list[str] = []
    for path in filter(os.path.exists, wanted):
        if not any(Path(path).is_relative_to(outer) for outer in found):
            found.append(path)
    return found


def spare_user(turn: int) -> int | None:
    """An id that owns nothing, for programs that root starts; None for other users, who cannot change theirs."""
    if os.geteuid() != 0:
        return None
    for line in Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines():
        first, _, count = map(int, line.split())
        if first <= SPARE_IDS[0] and SPARE_IDS[-1] < first + count:
            return SPARE_IDS[turn % len(SPARE_IDS)]
    return None


@cache
def _interpreter() -> str:
    # Not the virtual environment's link: its folder is not visible.
    return os.path.realpath(sys.executable)


def _python(script: str) -> list[str]:
    return [_interpreter(), "-I", "-S", "-B", script]


def _bubblewrap(tool: str, script: Path, seconds: int, disk: int) -> list[str]:
    paths = visible()
    # Made one by one, since bubblewrap hides the parents that it makes by itself from a spare user.
    parents = sorted({str(parent) for path in [*paths, *DEVICES] for parent in Path(path).parents})
    folders = [part for parent in parents for part in ("--dir", parent)]
    binds = [part for path in paths for part in ("--ro-bind", path, path)]
    devices = [part for path in DEVICES for part in ("--dev-bind", path, path)]
    inside = f"/{script.name}"
    # Root keeps its user namespace and what it takes to become a spare user; the script gives the rest away.
    as_root = spare_user(0) is not None
    user = (
        ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if as_root else ["--unshare-user"]
    )
    return [
        tool,
        *("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"),
        *user,
        "--die-with-parent",
        *folders,
        *binds,
        *devices,
        *("--ro-bind", str(script), inside),
        *("--perms", "1777", "--size", str(disk), "--tmpfs", BOX),
        *("--remount-ro", "/", "--chdir", BOX, "--"),
        *_python(inside),
    ]


def _unshare(tool: str, script: Path, seconds: int, disk: int) -> list[str]:
    user = [] if spare_user(0) is not None else ["--user", "--map-root-user"]
    return [
        tool,
        *user,
        *("--ipc", "--pid", "--net", "--uts", "--cgroup", "--mount", "--fork", "--kill-child"),
        *_python(str(JAIL)),
        *(str(script), str(seconds), str(disk), BOX, *visible(), *DEVICES),
    ]


BUBBLEWRAP = Isolation("bubblewrap", "bwrap", _bubblewrap)
UNSHARE = Isolation("unshare", "unshare", _unshare)
NONE = Isolation("none", "", lambda tool, script, seconds, disk: _python(str(script)))
