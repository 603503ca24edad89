"""What `unshare` starts: builds the file system that a program sees, then stays as its process 1.

Started by path, as a script, in fresh namespaces; imports nothing of diffcode. Arguments: the Python script to run in
the jail, the most seconds (0: no end), the bytes of the writable folder, that folder, and every path that the script
may read. Does what bubblewrap does, for machines without it, and likewise leaves the script as another process: the
first one of a namespace cannot be killed from inside it, and when it ends, the kernel kills all the others.
"""

import ctypes
import os
import select
import sys

# Any folder serves as the mount point; this one exists everywhere and holds no file that anybody needs.
ROOT = "/sys"
# linux/mount.h
NOSUID, NODEV, BIND, RECURSIVE, DETACH = 2, 4, 4096, 16384, 2
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, READ_ONLY, NO_SUID = 442, -100, 0x8000, 1, 2
# Seconds that the watch on time outside is ahead of the one here.
GRACE = 2

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    script, seconds, disk, box, *paths = sys.argv[1:]
    with open(script, encoding="utf-8") as file:
        code = compile(file.read(), script, "exec", dont_inherit=True)
    build(paths, box, int(disk))
    child = os.fork()
    if child == 0:
        exec(code, {"__name__": "__main__"})
    else:
        watch(child, int(seconds))


def build(paths: list[str], box: str, disk: int) -> None:
    """Make a root of these paths, all of it read-only but the box, and enter it."""
    mount("tmpfs", ROOT, "tmpfs", NOSUID | NODEV, "mode=755,size=1m")
    for path in paths:
        bind(path, ROOT + path)
    os.makedirs(ROOT + box)
    # All mounts at once, those inside a bound folder too; which is why the kernel must be 5.12 or newer.
    attributes = (ctypes.c_uint64 * 4)(READ_ONLY | NO_SUID, 0, 0, 0)
    numbers = [ctypes.c_long(n) for n in (MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, ctypes.sizeof(attributes))]
    done(libc.syscall(*numbers[:2], ROOT.encode(), numbers[2], attributes, numbers[3]), "mount_setattr")
    mount("tmpfs", ROOT + box, "tmpfs", NOSUID | NODEV, f"mode=1777,size={disk},nr_inodes=4096")
    os.chdir(ROOT)
    # The old root lands on top of the new one, and goes.
    done(libc.pivot_root(b".", b"."), "pivot_root")
    done(libc.umount2(b".", DETACH), "umount2")
    os.chdir(box)


def bind(path: str, target: str) -> None:
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
    mount(path, target, "", BIND | RECURSIVE, "")


def mount(source: str, target: str, kind: str, flags: int, data: str) -> None:
    strings = [text.encode() for text in (source, target, kind, data)]
    done(libc.mount(*strings[:3], ctypes.c_ulong(flags), strings[3]), f"mount {target}")


def done(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), what)


def watch(child: int, seconds: int) -> None:
    """Wait for the child, but not for ever: whoever started all this may be gone."""
    # Not an alarm: `signal` would take a fifth of the start.
    select.select([os.pidfd_open(child)], [], [], seconds + GRACE if seconds else None)


if __name__ == "__main__":
    main()
