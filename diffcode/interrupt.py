"""Ctrl-C as a wish that the work itself looks at, so that nothing is cut in the middle of a write."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruptible(*also: signal.Signals) -> Iterator[threading.Event]:
    """Within this Ctrl-C (and each signal of `also`) sets the event; a second one kills."""
    stop = threading.Event()
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
