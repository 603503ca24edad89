"""What is done before anybody asks: parsing, reading on, reading where the cursor rests."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from lsp_asks import CURSOR, TEXT, items, typing
from lsp_fake import FakeFiller, ask, helped, span
from lsp_kit import URI, Wire, did_open, notice

from diffcode.errors import CANCELLED, Cancelled
from diffcode.lsp.ahead import REST
from diffcode.lsp.filler import Written
from diffcode.syntax import Code


def test_the_first_question_in_a_file_finds_it_parsed(monkeypatch: pytest.MonkeyPatch):
    parsed = []
    monkeypatch.setattr("diffcode.lsp.desk.Code", lambda text, *more: (parsed.append(text), Code(text, *more))[1])

    async def run():
        async with helped(FakeFiller("math.pi")) as (_, wire):
            wire.feed(did_open(TEXT))
            await ask(wire, "s", "workspace/executeCommand", {"command": "diffcode.status"})
            assert parsed == [TEXT]
            assert await items(wire, 0, TEXT, CURSOR)
            assert parsed == [TEXT], "not once more"

    asyncio.run(run())


def test_a_file_that_nothing_is_offered_in_is_not_parsed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("diffcode.lsp.desk.Code", None)

    async def run():
        async with helped(FakeFiller("math.pi"), enabled=False) as (_, wire):
            wire.feed(did_open(TEXT))
            assert await items(wire, 0, TEXT, CURSOR) == []

    asyncio.run(run())


# ---- a context that is new


@pytest.mark.parametrize(("prefetch", "narrow", "reads"), [(True, True, 1), (True, False, 0), (False, True, 0)])
def test_what_there_was_no_time_to_read_is_read_afterwards(prefetch, narrow, reads):
    filler = FakeFiller(lambda _: [Written("math.pi", (0.9,), narrow=narrow)])

    async def run():
        async with helped(filler, prefetch=prefetch) as (_, wire):
            wire.feed(did_open(TEXT))
            assert await items(wire, 0, TEXT, CURSOR)
            await asyncio.sleep(0.05)
            assert [task.text for task in filler.read_on] == [TEXT] * reads
            assert 0 < filler.tasks[0].patience < 1

    asyncio.run(run())


class SlowReader(FakeFiller):
    """Reads on until it is stopped, for five seconds at most."""

    def __init__(self) -> None:
        super().__init__(lambda _: [Written("math.pi", (0.9,), narrow=True)])
        self.reading, self.stopped_reading = threading.Event(), threading.Event()

    def read(self, task, stop, least):
        self.reading.set()
        if stop.wait(5):
            self.stopped_reading.set()
            raise Cancelled(CANCELLED)


@asynccontextmanager
async def reading_on(filler: SlowReader) -> AsyncIterator[Wire]:
    """A server that has made a suggestion for TEXT and reads on."""
    async with helped(filler) as (_, wire):
        wire.feed(did_open(TEXT))
        await items(wire, 0, TEXT, CURSOR)
        assert await asyncio.to_thread(filler.reading.wait, 5)
        yield wire


def test_a_closed_document_is_read_no_further():
    filler = SlowReader()

    async def run():
        async with reading_on(filler) as wire:
            wire.feed(notice("textDocument/didClose", {"textDocument": {"uri": URI}}))
            assert await asyncio.to_thread(filler.stopped_reading.wait, 2)

    asyncio.run(run())


def test_reading_on_is_in_nobodys_way():
    filler = SlowReader()

    async def run():
        async with reading_on(filler) as wire:
            wire.feed(typing(2, TEXT, CURSOR, "!"))
            text = TEXT[:CURSOR] + "!" + TEXT[CURSOR:]
            began = time.monotonic()
            await items(wire, 1, text, CURSOR + 1)
            assert time.monotonic() - began < 2
            assert filler.stopped_reading.is_set()

    asyncio.run(run())


async def until(found: Callable[[], object]) -> None:
    """For five seconds at most."""
    for _ in range(500):
        if found():
            return
        await asyncio.sleep(0.01)


async def lightbulb(wire: Wire, id_: str, at: int, text: str = TEXT, **context: object) -> None:
    """What editors ask wherever the cursor comes to rest."""
    where = {"textDocument": {"uri": URI}, "range": span(text, at, at)}
    await ask(wire, id_, "textDocument/codeAction", where | {"context": {"diagnostics": [], **context}})


def test_where_the_cursor_rests_is_read_before_anybody_asks():
    filler = FakeFiller("math.pi")

    async def run():
        async with helped(filler) as (_, wire):
            wire.feed(did_open(TEXT))
            await lightbulb(wire, "before", CURSOR)
            await asyncio.sleep(REST + 0.1)
            assert filler.read_least == [], "no model is loaded for it"
            await items(wire, 0, TEXT, CURSOR)
            on_its_way = (lightbulb(wire, f"l{n}", at, triggerKind=2) for n, at in enumerate((len(TEXT), 3, 5)))
            await asyncio.gather(*on_its_way)
            await until(lambda: filler.read_least)
            await lightbulb(wire, "again", 5)
            await lightbulb(wire, "menu", len(TEXT), triggerKind=1)
            await asyncio.sleep(REST + 0.1)
            assert [(task.text, task.holes[0].start) for task in filler.read_least] == [(TEXT, 3)]
            assert filler.read_on == [], "nobody types here"
            text = f"x{TEXT}"
            wire.feed(typing(2, TEXT, 0, "x"))
            await lightbulb(wire, "typed", 1, text)
            await until(lambda: filler.read_on)
            assert [task.text for task in filler.read_on] == [task.text for task in filler.read_least[1:]] == [text]

    asyncio.run(run())


def test_a_cursor_in_another_document_ends_the_reading_of_the_first():
    filler, other = SlowReader(), "file:///other.py"

    async def run():
        async with helped(filler) as (_, wire):
            wire.feed(did_open(TEXT, uri=other), did_open(TEXT))
            await items(wire, 0, TEXT, CURSOR)
            assert await asyncio.to_thread(filler.reading.wait, 5)
            place = {"textDocument": {"uri": other}, "position": {"line": 0, "character": 0}}
            wire.feed(notice("diffcode/cursor", place))
            assert await asyncio.to_thread(filler.stopped_reading.wait, 2)

    asyncio.run(run())


def test_whoever_wants_no_reading_ahead_gets_none():
    filler = FakeFiller("math.pi")

    async def run():
        async with helped(filler, prefetch=False) as (_, wire):
            wire.feed(did_open(TEXT))
            await items(wire, 0, TEXT, CURSOR)
            await lightbulb(wire, "l", 3)
            await asyncio.sleep(REST + 0.1)
            assert filler.read_least == []

    asyncio.run(run())
