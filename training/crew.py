"""Work in several processes with results in order, and never more of it under way than fits in memory."""

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

from diffcode.errors import DiffcodeError

Job = TypeVar("Job")
Result = TypeVar("Result")
_AHEAD = 3  # batches a worker
_ENDING = (signal.SIGINT, signal.SIGTERM)


class WorkerDied(DiffcodeError):
    """A worker process was killed, mostly for want of memory."""


class Crew:
    """Runs a function over jobs in `workers` processes; with one, here.

    `tools` are sent to each process once; the function gets them with every job.
    """

    def __init__(self, workers: int, tools: Any) -> None:
        self._workers, self._tools = workers, tools
        # spawned, not forked: the libraries around have threads, and a forked lock may never open
        self._pool = (
            ProcessPoolExecutor(workers, get_context("spawn"), initializer=_equip, initargs=(tools,))
            if workers > 1
            else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, work: Callable[[Any, Job], Result], jobs: Iterable[Job], *, batch: int) -> Iterator[Result]:
        """work(tools, job) of every job, in the jobs' order; `batch` jobs go to a process at a time."""
        if self._pool is None:
            for job in jobs:
                yield work(self._tools, job)
            return
        pending: deque[Future[list[Result]]] = deque()
        source = iter(jobs)
        try:
            while True:
                while len(pending) < _AHEAD * self._workers and (some := list(islice(source, batch))):
                    with undisturbed():
                        pending.append(self._pool.submit(_run, work, some))
                if not pending:
                    return
                yield from pending.popleft().result()
        except BrokenProcessPool as error:
            raise WorkerDied("a worker process was killed: try fewer --workers") from error


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until this is done. A process that is started meanwhile begins with them waiting.

    Blocking them is not enough: a thread of a numeric library, which does not, takes them, and Python then runs the
    handler in the main thread all the same.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    handlers = {number: signal.getsignal(number) for number in _ENDING}
    mine = [number for number, handler in handlers.items() if callable(handler)]
    for number in mine:
        signal.signal(number, lambda number, frame: came.append((number, frame)))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number in mine:
            signal.signal(number, handlers[number])
        for number_, frame in came:
            handler = handlers[signal.Signals(number_)]
            if callable(handler):
                handler(number_, frame)


_equipped: Any = None


def _equip(tools: Any) -> None:
    global _equipped
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the first one says what to do
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    _equipped = tools


def _run(work: Callable[[Any, Job], Result], jobs: list[Job]) -> list[Result]:
    return [work(_equipped, job) for job in jobs]
