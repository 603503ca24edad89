"""The isolations that work on this machine, and programs that try something in them."""

from typing import Any

import pytest

from diffcode.evals import sandbox, tester
from diffcode.evals.isolation import BUBBLEWRAP, UNSHARE, Isolation
from diffcode.evals.sandbox import Limits

WORKING = [kind for kind in (BUBBLEWRAP, UNSHARE) if sandbox.works(kind)]
NAMES = [kind.name for kind in WORKING]
in_each = pytest.mark.parametrize("isolation", WORKING or [BUBBLEWRAP], ids=NAMES or ["bubblewrap"])
needs_isolation = pytest.mark.skipif(not WORKING, reason="neither bubblewrap nor unshare works on this machine")

# `attempt` and `call` say what came of it.
ATTEMPT = """
import ctypes, os, resource, shutil, signal, socket, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def attempt(what):
    try: return what()
    except Exception as error: return type(error).__name__
def call(number, *arguments):
    result = libc.syscall(number, *map(ctypes.c_long, arguments))
    return os.strerror(ctypes.get_errno()) if result == -1 else "done"
def attack():
"""


def best() -> Isolation:
    """The one that `best_isolation` would choose, or none at all."""
    return WORKING[0] if WORKING else sandbox.NONE


def attacker(body: str) -> str:
    """A program whose function `attack` has this body."""
    return ATTEMPT + "".join(f"    {line}\n" for line in body.strip().splitlines())


def outcome(body: str, isolation: Isolation, **limits: int) -> Any:
    """What `attack` returns in a guest; a failure if it does not return."""
    most = Limits(**{"seconds": 10, **limits})
    with sandbox.started(isolation, sandbox.GUEST, most.seconds, most.disk) as line:
        line.settimeout(most.seconds)
        guest = tester.Guest(line, most.output, pytest.fail)
        job = {"code": attacker(body), "entry_point": "attack", "limits": sandbox.confinement(isolation, most)}
        return guest.load(job, set())["attack"]()
