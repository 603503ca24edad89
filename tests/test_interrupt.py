"""Ctrl-C as a wish: the first one is noted, a second one kills, and nothing else is touched."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from diffcode.interrupt import interruptible

WATCHED = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """As a fresh Python has them, and put back afterwards."""
    before = {number: signal.getsignal(number) for number in WATCHED}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", WATCHED)
def test_a_signal_is_noted_and_cuts_nothing(number: signal.Signals) -> None:
    with interruptible(signal.SIGTERM) as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        assert stop.is_set()
    assert stop.is_set()


def test_a_second_one_would_kill() -> None:
    with interruptible(signal.SIGTERM):
        os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL, "the other one is still a wish"


@pytest.mark.parametrize("also", [(), (signal.SIGTERM,)])
def test_handlers_come_back(also: tuple[signal.Signals, ...]) -> None:
    before = [signal.getsignal(number) for number in WATCHED]
    with interruptible(*also):
        inside = [signal.getsignal(number) for number in WATCHED]
        assert [a != b for a, b in zip(inside, before, strict=True)] == [True, bool(also)]
    assert [signal.getsignal(number) for number in WATCHED] == before
    with pytest.raises(ZeroDivisionError), interruptible(*also) as stop:
        _ = 1 / (stop.is_set() * 1)
    assert [signal.getsignal(number) for number in WATCHED] == before


def test_they_come_back_after_a_signal_too() -> None:
    with interruptible(signal.SIGTERM):
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


@pytest.mark.parametrize("number", WATCHED)
def test_who_ignores_a_signal_meant_to(number: signal.Signals) -> None:
    """`nohup`, or a job in the background of a script."""
    signal.signal(number, signal.SIG_IGN)
    with interruptible(signal.SIGTERM) as stop:
        os.kill(os.getpid(), number)
        assert not stop.is_set()
        assert signal.getsignal(number) == signal.SIG_IGN
    assert signal.getsignal(number) == signal.SIG_IGN


def test_another_thread_may_use_it_and_hears_nothing() -> None:
    found = []

    def work() -> None:
        with interruptible(signal.SIGTERM) as stop:
            found.append(stop.is_set())

    before = [signal.getsignal(number) for number in WATCHED]
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
    assert [signal.getsignal(number) for number in WATCHED] == before


PROGRAM = """
import signal, sys, time
from diffcode.interrupt import interruptible
with interruptible(signal.SIGTERM) as stop:
    print("ready", flush=True)
    while not stop.is_set():
        time.sleep(0.01)
    print("noted", flush=True)
    time.sleep(60 if sys.argv[1] == "hang" else 0)
print("done", flush=True)
"""


@pytest.mark.parametrize("number", WATCHED)
def test_in_a_process_the_first_ends_it_cleanly_and_the_second_at_once(number: signal.Signals) -> None:
    for how, code, said in (("end", 0, "done\n"), ("hang", -number, "")):
        command = [sys.executable, "-c", PROGRAM, how]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
            assert process.stdout.readline() == "noted\n"
            if how == "hang":
                process.send_signal(number)
            out, err = process.communicate(timeout=20)
            assert (process.returncode, out, err) == (code, said, "")
