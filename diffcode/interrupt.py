"""Ctrl-C as a wish that the work itself looks at, so that nothing is cut in the middle of a write."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_int32


class Stop(threading.Event):
    """A wish to stop. Called it says whether it was made; machine code looks at `flag`, which is the same."""

    def __init__(self) -> None:
        super().__init__()
        self.flag = c_int32()

    def set(self) -> None:
        self.flag.value = 1
        super().set()

    def clear(self) -> None:
        self.flag.value = 0
        super().clear()

    def __call__(self) -> bool:
        return self.is_set()


@contextmanager
def interruptible(*also: signal.Signals) -> Iterator[Stop]:
    """Within this Ctrl-C (and each signal of `also`) sets the event; a second one kills."""
    stop = Stop()
    watched = {number: signal.getsignal(number) for number in (signal.SIGINT, *also)}

    def note(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    # Other threads may not, and whoever ignores a signal (nohup, a background job) meant to.
    here = threading.current_thread() is threading.main_thread()
    mine = [number for number, before in watched.items() if here and before not in (signal.SIG_IGN, None)]
    for number in mine:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        for number in mine:
            signal.signal(number, watched[number])
