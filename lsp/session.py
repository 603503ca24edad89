"""The model's thread: one for all connections of a process, for the model is one and wants every core.

What waits is ordered by how urgent it is. A newer job about the same thing takes an older one's place, a more urgent
one stops what runs; both within a denoising step (interrupt.Stop).
"""

import asyncio
import itertools
import logging
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol, TypeAlias, TypeVar

from diffcode.errors import Cancelled, DiffcodeError
from diffcode.interrupt import Stop
from diffcode.lsp.endpoint import blame
from diffcode.lsp.filler import Filler, ModelSpec, Report, load

log = logging.getLogger(__name__)

T = TypeVar("T")
Work: TypeAlias = "Callable[[Filler, Stop], T]"
Load: TypeAlias = Callable[[ModelSpec, Report], Filler]

STOP_SECONDS = 1.5


class Rank(IntEnum):
    """Who goes first."""

    COMMAND = 0  # the user waits for it
    ASKED = 1  # a suggestion asked for by hand
    AUTOMATIC = 2
    IDLE = 3  # nobody waits for it


class Superseded(Exception):
    """Something newer or more urgent took the job's place."""


class CannotLoad(DiffcodeError):
    """Loading failed with something that is no diffcode error."""


class Watcher(Protocol):
    """Who wants to know how the model does. Called in the model's thread."""

    def loading(self, what: str, share: float | None) -> None: ...

    def loaded(self) -> None: ...

    def failed(self, reason: str) -> None: ...

    def working(self, rank: Rank | None) -> None:
        """A job has begun, or (None) the last one has ended and none waits."""


@dataclass(eq=False, slots=True)
class _Job:
    work: Callable[[Filler, Stop], Any]
    rank: Rank
    key: Hashable | None
    owner: object
    spec: ModelSpec
    number: int
    stop: Stop = field(default_factory=Stop)
    future: "Future[Any]" = field(default_factory=Future)


class Session:
    """Runs jobs with the model, which it loads when the first one needs it."""

    def __init__(self, load: Load = load) -> None:
        self.watchers: list[Watcher] = []
        self.spec: ModelSpec | None = None  # of what is loaded, or could not be
        self.failure: DiffcodeError | None = None
        self._load = load
        self._filler: Filler | None = None
        self._news = threading.Condition()
        self._waiting: list[_Job] = []
        self._running: _Job | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._numbers = itertools.count()

    @property
    def loaded(self) -> bool:
        return self._filler is not None

    @property
    def idle(self) -> bool:
        """Nobody waits for anything."""
        with self._news:
            jobs = [job for job in (self._running, *self._waiting) if job is not None]
        return all(job.rank is Rank.IDLE or job.future.done() for job in jobs)

    async def run(
        self, work: "Work[T]", *, spec: ModelSpec, rank: Rank, key: Hashable | None = None, owner: object = None
    ) -> T:
        """What `work` gives, in the model's thread. A newer job with the same key takes this one's place.

        Cancelling the task that waits here stops the work. Raises Superseded, Cancelled, what loading and what `work`
        raise. A model that could not be loaded is tried again for a COMMAND only, or after `forget`.
        """
        job = _Job(work, rank, key, owner, spec, next(self._numbers))
        self._submit(job)
        try:
            return await asyncio.wrap_future(job.future)
        except asyncio.CancelledError:
            self._drop(job)
            raise

    def forget(self) -> None:
        """Load anew for the next job."""
        with self._news:
            self.spec, self.failure, self._filler = None, None, None

    def make_way(self) -> None:
        """Stop what runs, if nobody waits for it: somebody types, and will ask when the server has looked at that."""
        with self._news:
            if self._running is not None and self._running.rank is Rank.IDLE:
                self._running.stop.set()

    def leave(self, owner: object) -> None:
        """Stop everything that one connection wanted."""
        with self._news:
            mine = [job for job in (*self._waiting, self._running) if job is not None and job.owner is owner]
        for job in mine:
            self._drop(job)

    def close(self, seconds: float = STOP_SECONDS) -> bool:
        """Stop everything; whether the thread has ended within that time. Loading cannot be stopped."""
        with self._news:
            self._closed = True
            for job in self._waiting:
                job.future.cancel()
            self._waiting.clear()
            if self._running is not None:
                self._running.stop.set()
            self._news.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(seconds)
        return thread is None or not thread.is_alive()

    # ---- any thread

    def _submit(self, job: _Job) -> None:
        with self._news:
            if self._closed:
                raise Superseded("the session is closed")
            for old in [old for old in self._waiting if job.key is not None and old.key == job.key]:
                self._waiting.remove(old)
                _fail(old, Superseded("a newer one took its place"))
            running = self._running
            if running is not None and (job.rank < running.rank or (job.key is not None and job.key == running.key)):
                running.stop.set()
            self._waiting.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="model", daemon=True)
                self._thread.start()
            self._news.notify()

    def _drop(self, job: _Job) -> None:
        job.stop.set()
        job.future.cancel()
        with self._news:
            if job in self._waiting:
                self._waiting.remove(job)

    # ---- the model's thread

    def _serve(self) -> None:
        while (job := self._next()) is not None:
            self._do(job)
            with self._news:
                self._running, idle = None, not self._waiting
            if idle:
                self._tell(lambda watcher: watcher.working(None))

    def _next(self) -> _Job | None:
        with self._news:
            while not self._waiting and not self._closed:
                self._news.wait()
            if self._closed:
                return None
            job = min(self._waiting, key=lambda job: (job.rank, job.number))
            self._waiting.remove(job)
            self._running = job
            return job

    def _do(self, job: _Job) -> None:
        if not job.future.set_running_or_notify_cancel():
            return
        try:
            filler = self._ready(job)
            if job.stop():
                raise Superseded("stopped before it began")
            self._tell(lambda watcher: watcher.working(job.rank))
            result = job.work(filler, job.stop)
        except Cancelled as error:
            job.future.set_exception(Superseded("stopped") if job.stop() else error)
        except BaseException as error:
            job.future.set_exception(error)
        else:
            job.future.set_result(result)

    def _ready(self, job: _Job) -> Filler:
        """The model that the job wants; the one before goes first, for two take twice the memory."""
        with self._news:
            if self.spec == job.spec and self._filler is not None:
                return self._filler
            if self.spec == job.spec and self.failure is not None and job.rank != Rank.COMMAND:
                raise self.failure
            self.spec, self.failure, self._filler = job.spec, None, None
        self._tell(lambda watcher: watcher.loading("starting", None))
        try:
            filler = self._load(job.spec, self._report)
        except DiffcodeError as error:
            self._give_up(job.spec, error)
            raise
        except Exception as error:
            log.error("loading failed: %s", blame(error))
            reason = CannotLoad(
                f"the model cannot be loaded ({type(error).__name__}): see the log, then diffcode.reload"
            )
            self._give_up(job.spec, reason)
            raise reason from None
        with self._news:
            if self.spec == job.spec:  # else it was told to forget meanwhile
                self._filler = filler
        self._tell(lambda watcher: watcher.loaded())
        return filler

    def _give_up(self, spec: ModelSpec, error: DiffcodeError) -> None:
        with self._news:
            if self.spec == spec:
                self.failure = error
        self._tell(lambda watcher: watcher.failed(str(error)))

    def _report(self, what: str, share: float | None) -> None:
        self._tell(lambda watcher: watcher.loading(what, share))

    def _tell(self, call: Callable[[Watcher], None]) -> None:
        for watcher in list(self.watchers):
            try:
                call(watcher)
            except Exception as error:
                log.error("a watcher failed: %s", blame(error))


def _fail(job: _Job, error: Exception) -> None:
    if job.future.set_running_or_notify_cancel():
        job.future.set_exception(error)
