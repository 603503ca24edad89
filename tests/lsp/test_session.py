"""The model's thread: order, newest wins, stopping, loading, ending."""

import asyncio
import threading
import time

import pytest
from lsp_fake import Loads

from diffcode.errors import CANCELLED, Cancelled, ModelUnavailable
from diffcode.lsp.filler import ModelSpec
from diffcode.lsp.session import CannotLoad, Rank, Session, Superseded

SPEC = ModelSpec()


class Watch:
    def __init__(self) -> None:
        self.heard: list = []

    def loading(self, what, share):
        self.heard.append((what, share))

    def loaded(self):
        self.heard.append("loaded")

    def failed(self, reason):
        self.heard.append(reason)

    def working(self, rank):
        self.heard.append(rank)


def run(test, loads: Loads | None = None):
    session = Session(loads or Loads())
    try:
        return asyncio.run(test(session))
    finally:
        assert session.close(5)


def go(session: Session, work, rank=Rank.AUTOMATIC, key=None, spec=SPEC, owner=None) -> asyncio.Task:
    return asyncio.create_task(session.run(work, spec=spec, rank=rank, key=key, owner=owner))


def until_stopped(began: threading.Event):
    def work(_filler, stop):
        began.set()
        assert stop.wait(5)
        assert stop.flag.value == 1
        raise Cancelled(CANCELLED)

    return work


async def begun(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 5)


async def outcome(task: asyncio.Task):
    (done,) = await asyncio.gather(task, return_exceptions=True)
    return type(done) if isinstance(done, BaseException) else done


def test_the_model_is_loaded_once_and_when_it_is_needed():
    loads, watch = Loads(), Watch()

    async def test(session):
        session.watchers.append(watch)
        await asyncio.sleep(0.01)
        assert (loads.specs, session.loaded, session.idle) == ([], False, True)
        fillers = [await go(session, lambda filler, _stop: filler) for _ in range(3)]
        assert all(filler is loads.filler for filler in fillers)
        assert session.loaded

    run(test, loads)
    assert loads.specs == [SPEC]
    assert watch.heard[:4] == [("starting", None), ("reading", 0.5), "loaded", Rank.AUTOMATIC]
    assert watch.heard.count(None) >= 1


def test_the_most_urgent_goes_first_and_stops_what_is_less_urgent():
    async def test(session):
        began, order = threading.Event(), []
        first = go(session, until_stopped(began), Rank.IDLE)
        await begun(began)
        ranks = [Rank.IDLE, Rank.AUTOMATIC, Rank.COMMAND, Rank.AUTOMATIC, Rank.ASKED, Rank.COMMAND]
        tasks = [go(session, lambda *_, n=n: order.append(n), rank) for n, rank in enumerate(ranks)]
        assert await outcome(first) is Superseded
        await asyncio.gather(*tasks)
        return order

    order = run(test)
    assert sorted(order) == list(range(6))
    assert order.index(2) < order.index(5) < order.index(4) < order.index(3) < order.index(0)
    assert order.index(1) < order.index(3)


def test_the_newest_of_a_kind_takes_the_place_of_those_before():
    async def test(session):
        began, may_end, ran = threading.Event(), threading.Event(), []

        def work(_filler, stop):
            began.set()
            assert may_end.wait(5)
            assert stop(), "the first newer one has stopped it"
            raise Cancelled(CANCELLED)

        running = go(session, work, key="a")
        await begun(began)
        other = go(session, lambda *_: ran.append("other"), key="b")
        tasks = [go(session, lambda *_, n=n: ran.append(n), key="a") for n in range(50)]
        await asyncio.sleep(0.01)
        may_end.set()
        assert [await outcome(task) for task in (running, *tasks)] == [*[Superseded] * 50, None]
        await other
        return ran

    assert run(test) == ["other", 49]


@pytest.mark.parametrize("rank", list(Rank))
def test_whoever_types_stops_what_nobody_waits_for(rank: Rank):
    """At once, so that the cores are free for what comes before a question."""

    async def test(session):
        session.make_way()  # nothing runs
        first = threading.Event()
        job = go(session, until_stopped(first), rank)
        await begun(first)
        session.make_way()
        if rank is not Rank.IDLE:
            assert not session._running.stop()
            session._running.stop.set()
        assert await outcome(job) is Superseded
        assert await go(session, lambda _filler, _stop: 7, Rank.IDLE) == 7

    run(test)


def test_a_command_is_not_stopped_by_a_suggestion():
    async def test(session):
        began, may_end = threading.Event(), threading.Event()

        def work(_filler, stop):
            began.set()
            assert may_end.wait(5)
            return stop()

        command = go(session, work, Rank.COMMAND)
        await begun(began)
        suggestion = go(session, lambda *_: "suggested")
        await asyncio.sleep(0.01)
        may_end.set()
        assert (await command, await suggestion) == (False, "suggested")

    run(test)


def test_cancelling_the_task_stops_the_work_at_once():
    async def test(session):
        began, ran = threading.Event(), []
        running, waiting = go(session, until_stopped(began)), go(session, lambda *_: ran.append(1))
        await begun(began)
        moment = time.perf_counter()
        for task in (waiting, running):
            task.cancel()
            assert await outcome(task) is asyncio.CancelledError
        assert await go(session, lambda *_: "next") == "next"
        assert time.perf_counter() - moment < 0.5
        assert ran == []

    run(test)


def test_a_model_that_cannot_be_had_is_tried_again_only_when_asked_for():
    loads, watch = Loads(), Watch()
    loads.failure = ModelUnavailable("no model here: run diffcode pull")

    async def test(session):
        session.watchers.append(watch)
        for rank in (Rank.AUTOMATIC, Rank.AUTOMATIC, Rank.IDLE):
            assert await outcome(go(session, lambda *_: 1, rank)) is ModelUnavailable
        assert (len(loads.specs), str(session.failure)) == (1, "no model here: run diffcode pull")
        assert await outcome(go(session, lambda *_: 1, Rank.COMMAND)) is ModelUnavailable
        assert len(loads.specs) == 2
        loads.failure = None
        assert await outcome(go(session, lambda *_: 1)) is ModelUnavailable
        assert await outcome(go(session, lambda *_: 1, Rank.COMMAND)) == 1
        assert await outcome(go(session, lambda *_: 1)) == 1

    run(test, loads)
    assert watch.heard.count("no model here: run diffcode pull") == 2


def test_any_error_while_loading_is_one_line(caplog):
    loads = Loads()
    loads.failure = RuntimeError("secret")

    async def test(session):
        (error,) = await asyncio.gather(go(session, lambda *_: 1), return_exceptions=True)
        assert isinstance(error, CannotLoad)
        assert "RuntimeError" in str(error)
        session.forget()
        loads.failure = None
        assert await go(session, lambda *_: 1) == 1

    run(test, loads)
    assert "secret" not in caplog.text


def test_another_model_is_loaded_in_the_place_of_the_first():
    loads = Loads()

    async def test(session):
        for name in (None, "other", "other", None):
            await go(session, lambda *_: 1, spec=ModelSpec(name))

    run(test, loads)
    assert [spec.model for spec in loads.specs] == [None, "other", None]


def test_what_work_raises_reaches_who_asked_and_the_thread_lives_on():
    async def test(session):
        assert await outcome(go(session, lambda *_: 1 / 0)) is ZeroDivisionError
        assert await go(session, lambda *_: "still here") == "still here"

    run(test)


def test_a_connection_that_ends_takes_its_jobs_along():
    async def test(session):
        began, mine, other = threading.Event(), object(), object()
        running = go(session, until_stopped(began), owner=mine)
        await begun(began)
        waiting, theirs = go(session, lambda *_: 1, owner=mine), go(session, lambda *_: "theirs", owner=other)
        await asyncio.sleep(0.005)
        session.leave(mine)
        assert await theirs == "theirs"
        assert await outcome(running) is Superseded
        assert await outcome(waiting) is asyncio.CancelledError

    run(test)


def test_closing_stops_the_thread_but_cannot_wait_for_loading():
    hold = threading.Event()

    def slow(_spec, _report):
        hold.wait(5)
        return Loads().filler

    async def test(session):
        task = go(session, lambda *_: 1)
        await asyncio.sleep(0.01)
        assert not session.close(0.05)
        assert await outcome(go(session, lambda *_: 1)) is Superseded
        hold.set()
        return await outcome(task)

    session = Session(slow)
    assert asyncio.run(test(session)) in (Superseded, 1)
    assert session.close(5)


@pytest.mark.parametrize("rank", list(Rank))
def test_many_jobs_of_many_connections_all_end(rank):
    async def test(session):
        tasks = [go(session, lambda *_, n=n: n, rank, owner=n % 7) for n in range(300)]
        for task in tasks[::3]:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [n for n, one in enumerate(found) if one == n] == [n for n in range(300) if n % 3]
        assert session.idle

    run(test)
