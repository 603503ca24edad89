"""A filter for Linux system calls (seccomp-BPF), built here because it is forty instructions: a library for it
(pyseccomp) would need libseccomp on every machine.

It takes away what namespaces and limits leave open: sockets outside every network namespace (vsock reaches a virtual
machine's host), user namespaces and the large part of the kernel behind them, other processes' memory, the session's
keyrings, the kernel's log, and memory that no limit counts (memfd, System V). Numbers: Linux,
arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
"""

import platform
import struct

# Name -> number on x86_64 and aarch64. Each is refused with EPERM.
REFUSED = {
    "add_key": (248, 217),
    "bpf": (321, 280),
    "io_uring_setup": (425, 425),
    "kcmp": (312, 272),
    "keyctl": (250, 219),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "mount": (165, 40),
    "msgget": (68, 186),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "request_key": (249, 218),
    "semget": (64, 190),
    "setns": (308, 268),
    "shmget": (29, 194),
    "socket": (41, 198),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}
CLONE = (56, 220)
CLONE3 = 435
# linux/audit.h: ELF machine, 64 bits, little endian.
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# Bits of clone that make a namespace; clone3 hides its bits behind a pointer, which a filter cannot follow.
NAMESPACES = 0x7E020000
# From here on x86_64 takes the same calls again, under the x32 numbers.
X32 = 0x40000000
EPERM, ENOSYS = 1, 38

LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16
ALLOW, ERROR = 0x7FFF0000, 0x00050000


def build(machine: str = platform.machine()) -> bytes:
    """The filter as the kernel takes it, 8 bytes an instruction; empty on a machine whose numbers are not known."""
    if machine not in ARCHITECTURES:
        return b""
    column = list(ARCHITECTURES).index(machine)
    return b"".join(
        [
            _step(LOAD, ARCHITECTURE),
            _step(EQUAL, ARCHITECTURES[machine], skip=1),
            _step(RETURN, ERROR | EPERM),
            _step(LOAD, NUMBER),
            *(_refuse(EQUAL, numbers[column], EPERM) for numbers in REFUSED.values()),
            _refuse(AT_LEAST, X32, EPERM),
            # "No such call" makes the C library fall back on clone, whose bits can be read.
            _refuse(EQUAL, CLONE3, ENOSYS),
            _step(EQUAL, CLONE[column], otherwise=3),
            _step(LOAD, FIRST_ARGUMENT),
            _refuse(ANY_BIT, NAMESPACES, EPERM),
            _step(RETURN, ALLOW),
        ]
    )


def _refuse(test: int, value: int, error: int) -> bytes:
    return _step(test, value, otherwise=1) + _step(RETURN, ERROR | error)


def _step(code: int, value: int, skip: int = 0, otherwise: int = 0) -> bytes:
    """struct sock_filter: what to do, how many instructions to skip if the test holds and if not, the value."""
    return struct.pack("=HBBI", code, skip, otherwise, value)
