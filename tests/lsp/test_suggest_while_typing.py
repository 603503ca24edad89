"""Suggestions while somebody types: from memory, void or not, stopped, looked for ahead."""

import asyncio
import time

import pytest
from lsp_asks import CURSOR, TEXT, inline, items, typing
from lsp_fake import FakeFiller, applied, ask, helped, span
from lsp_kit import URI, did_change, did_open, notice, request

# ---- typing along


def test_typing_along_is_answered_without_the_model():
    filler = FakeFiller("math.pi * r ** 2")

    async def run():
        async with helped(filler) as (_, wire):
            wire.feed(did_open(TEXT))
            text = TEXT
            assert (await items(wire, 0, text, CURSOR))[0]["insertText"] == "math.pi * r ** 2"
            for n, letter in enumerate("math.pi"):
                wire.feed(typing(n + 2, text, CURSOR + n, letter))
                text = text[: CURSOR + n] + letter + text[CURSOR + n :]
                (item,) = await items(wire, f"k{n}", text, CURSOR + n + 1)
                assert applied(text, [item]) == TEXT.replace("return ", "return math.pi * r ** 2")
            assert len(filler.tasks) == 1
            status = await ask(wire, "s", "workspace/executeCommand", {"command": "diffcode.status"})
            assert (status["asked"], status["remembered"], status["shown"]) == (8, 7, 1)
            wire.feed(typing(20, text, CURSOR + 7, "!"))
            filler.answer = lambda _: ["= 3 and r"]
            text = text[: CURSOR + 7] + "!" + text[CURSOR + 7 :]
            await items(wire, "other", text, CURSOR + 8)
            assert len(filler.tasks) == 2

    asyncio.run(run())


def test_a_closed_bracket_behind_the_cursor_is_typing_along():
    filler = FakeFiller("area(r)")

    async def run():
        async with helped(filler) as (_, wire):
            wire.feed(did_open(TEXT))
            await items(wire, 0, TEXT, CURSOR)
            text = TEXT.replace("return ", "return area()")
            wire.feed(typing(2, TEXT, CURSOR, "area()"))
            (item,) = await items(wire, 1, text, CURSOR + 5)
            assert applied(text, [item]) == TEXT.replace("return ", "return area(r)")
            assert len(filler.tasks) == 1

    asyncio.run(run())


def test_what_was_just_deleted_is_not_offered_again():
    filler = FakeFiller("math.pi * r ** 2")

    async def run():
        async with helped(filler) as (_, wire):
            text = TEXT.replace("return ", "return math.pi")
            wire.feed(did_open(text))
            assert await items(wire, 0, text, CURSOR + 7)
            wire.feed(did_change(2, {"range": span(text, CURSOR, CURSOR + 7), "text": ""}))
            assert await items(wire, 1, TEXT, CURSOR) == []

    asyncio.run(run())


# ---- edits meanwhile


@pytest.mark.parametrize(("meanwhile", "rest"), [("math", ".pi"), ("r", None), ("math.pi", None)])
def test_an_edit_meanwhile_makes_it_void_unless_the_typed_text_agrees(meanwhile, rest):
    filler = FakeFiller("math.pi")
    filler.held.clear()

    async def run():
        async with helped(filler) as (_, wire):
            wire.feed(did_open(TEXT), request(1, "textDocument/inlineCompletion", inline(TEXT, CURSOR)))
            await asyncio.to_thread(filler.begun.acquire)
            wire.feed(typing(2, TEXT, CURSOR, meanwhile), request(2, "demo/ping"))
            await wire.answer(2)
            filler.held.set()
            found = (await wire.answer(1))["result"]["items"]
            now = TEXT[:CURSOR] + meanwhile + TEXT[CURSOR:]
            if rest is None:
                assert found == []
            else:
                assert found[0]["insertText"] == rest
                assert applied(now, found) == TEXT.replace("return ", "return math.pi")

    asyncio.run(run())


def test_the_newest_request_wins_and_begins_where_the_last_one_was_stopped():
    filler = FakeFiller("math.pi", frames=["ma", "math"])
    filler.held.clear()

    async def run():
        async with helped(filler) as (_, wire):
            wire.feed(did_open(TEXT), request(1, "textDocument/inlineCompletion", inline(TEXT, CURSOR)))
            await asyncio.to_thread(filler.begun.acquire)
            text = TEXT.replace("return ", "return m")
            wire.feed(typing(2, TEXT, CURSOR, "m"))
            wire.feed(request(2, "textDocument/inlineCompletion", inline(text, CURSOR + 1)))
            assert (await wire.answer(1))["result"]["items"] == []
            await asyncio.to_thread(filler.begun.acquire)
            assert filler.stopped == 1
            filler.held.set()
            await wire.answer(2)

    asyncio.run(run())
    # when the first was stopped its draft was not there yet for the second, which had been asked before
    assert filler.tasks[1].text == TEXT.replace("return ", "return m")


def test_who_goes_on_in_another_document_does_not_wait_for_the_first():
    filler, other = FakeFiller("math.pi"), "file:///other.py"
    filler.held.clear()

    async def run():
        async with helped(filler) as (_, wire):
            wire.feed(did_open(TEXT), did_open(TEXT, uri=other))
            wire.feed(request(1, "textDocument/inlineCompletion", inline(TEXT, CURSOR)))
            await asyncio.to_thread(filler.begun.acquire)
            asked = inline(TEXT, CURSOR) | {"textDocument": {"uri": other}}
            wire.feed(request(2, "textDocument/inlineCompletion", asked))
            assert (await wire.answer(1))["result"]["items"] == []
            await asyncio.to_thread(filler.begun.acquire)
            assert filler.stopped == 1
            filler.held.set()
            assert (await wire.answer(2))["result"]["items"][0]["insertText"] == "math.pi"

    asyncio.run(run())


def test_a_stopped_suggestion_is_the_draft_of_the_next():
    filler = FakeFiller("math.pi", frames=["ma", "math"])
    filler.held.clear()

    async def run():
        async with helped(filler) as (_, wire):
            wire.feed(did_open(TEXT), request(1, "textDocument/inlineCompletion", inline(TEXT, CURSOR)))
            await asyncio.to_thread(filler.begun.acquire)
            moment = time.perf_counter()
            wire.feed(notice("$/cancelRequest", {"id": 1}))
            assert (await wire.answer(1))["error"]["code"] == -32800
            assert time.perf_counter() - moment < 0.5
            filler.held.set()
            text = TEXT.replace("return ", "return m")
            wire.feed(typing(2, TEXT, CURSOR, "m"))
            await items(wire, 2, text, CURSOR + 1)

    asyncio.run(run())
    assert filler.stopped == 1
    assert [task.drafts for task in filler.tasks] == [("",), ("ath",)]


def test_a_storm_of_requests_is_answered_one_by_one():
    """2,000 requests, of which 1,999 are cancelled."""
    filler = FakeFiller("r * r")
    filler.held.clear()

    async def run():
        async with helped(filler) as (_, wire):
            wire.feed(did_open(TEXT))
            began = time.perf_counter()
            for n in range(2000):
                wire.feed(request(n, "textDocument/inlineCompletion", inline(TEXT, CURSOR)))
                if n < 1999:
                    wire.feed(notice("$/cancelRequest", {"id": n}))
            wire.feed(request("ping", "$/ping"))
            await wire.answer("ping")
            filler.held.set()
            last = await wire.answer(1999)
            print(f"{time.perf_counter() - began:.2f} s for 2,000 requests")
            codes = [[a.get("error", {}).get("code") for a in wire.answers(n)] for n in range(1999)]
            assert codes == [[-32800]] * 1999
            assert len(last["result"]["items"]) == 1
            assert len(wire.answers(1999)) == 1

    asyncio.run(run())


def test_typing_waits_for_a_pause_and_asking_by_hand_does_not():
    filler = FakeFiller("r * r")

    async def run():
        async with helped(filler, debounce=80) as (_, wire):
            wire.feed(did_open(TEXT), typing(2, TEXT, 0, "#"))
            began = time.perf_counter()
            assert await items(wire, 0, "#" + TEXT, CURSOR + 1, 0)
            assert time.perf_counter() - began < 0.07
            text = "##" + TEXT
            wire.feed(typing(3, "#" + TEXT, 0, "#"))
            began = time.perf_counter()
            await items(wire, 1, text, CURSOR + 2, 1)
            assert time.perf_counter() - began > 0.07

    asyncio.run(run())


# ---- after acceptance


def test_the_next_suggestion_is_looked_for_when_one_was_taken():
    filler = FakeFiller("math.pi")

    async def run():
        async with helped(filler) as (_, wire):
            text = "import math\n\n\ndef area(r):\n    p = "
            wire.feed(did_open(text))
            await items(wire, 0, text, len(text))
            filler.answer = lambda _: ["return p * r ** 2"]
            wire.feed(typing(2, text, len(text), "math.pi"))
            for _ in range(200):
                await asyncio.sleep(0.005)
                if len(filler.tasks) == 2:
                    break
            assert filler.tasks[1].text == text + "math.pi\n    "
            await asyncio.sleep(0.02)
            text += "math.pi"
            wire.feed(typing(3, text, len(text), "\n    "))
            (item,) = await items(wire, 1, text + "\n    ", len(text) + 5)
            assert item["insertText"] == "return p * r ** 2"
            assert len(filler.tasks) == 2
            status = await ask(wire, "s", "workspace/executeCommand", {"command": "diffcode.status"})
            assert (status["accepted"], status["prefetched"]) == (1, 1)

    asyncio.run(run())


def test_undoing_something_else_takes_nothing():
    """The text is again what it was when a suggestion was taken."""
    text = "import math\n\n\ndef area(r):\n    p = "

    async def run():
        async with helped(FakeFiller("math.pi"), prefetch=False) as (_, wire):
            wire.feed(did_open(text))
            await items(wire, 0, text, len(text))
            wire.feed(typing(2, text, len(text), "math.pi"), typing(3, text, 0, "# "))
            wire.feed(did_change(4, {"range": span(text, 0, 2), "text": ""}))
            status = await ask(wire, "s", "workspace/executeCommand", {"command": "diffcode.status"})
            assert status["accepted"] == 1

    asyncio.run(run())


def test_nothing_is_looked_for_where_that_is_switched_off():
    filler = FakeFiller("math.pi")

    async def run():
        async with helped(filler, prefetch=False) as (_, wire):
            text = "import math\n\n\ndef area(r):\n    p = "
            wire.feed(did_open(text))
            await items(wire, 0, text, len(text))
            wire.feed(typing(2, text, len(text), "math.pi"))
            await asyncio.sleep(0.05)
            assert len(filler.tasks) == 1

    asyncio.run(run())


# ---- Copilot's additions


def test_a_stale_version_gets_nothing_and_formatting_options_count():
    async def run():
        async with helped(FakeFiller("\n    return x")) as (_, wire):
            text = "def f(x):"
            wire.feed(did_open(text, 4))
            options = {"tabSize": 2, "insertSpaces": True}
            stale, good = (
                inline(text, 9) | {"textDocument": {"uri": URI, "version": v}, "formattingOptions": options}
                for v in (3, 4)
            )
            assert (await ask(wire, 1, "textDocument/inlineCompletion", stale))["items"] == []
            (item,) = (await ask(wire, 2, "textDocument/inlineCompletion", good))["items"]
            assert item["insertText"] == "\n  return x"

    asyncio.run(run())


def test_odd_places_are_answered():
    async def run():
        async with helped(FakeFiller("r")) as (_, wire):
            wire.feed(request(0, "textDocument/inlineCompletion", inline(TEXT, CURSOR)))
            assert (await wire.answer(0))["result"]["items"] == []
            wire.feed(did_open(TEXT))
            for n, position in enumerate([{"line": 99, "character": 0}, {"line": -1, "character": 0}, None, {}], 1):
                params = {"textDocument": {"uri": URI}, "position": position, "context": None}
                wire.feed(request(n, "textDocument/inlineCompletion", params))
                assert (await wire.answer(n))["error"]["code"] == -32602
            far = {"textDocument": {"uri": URI}, "position": {"line": 4, "character": 10**6}}
            assert (await ask(wire, 9, "textDocument/inlineCompletion", far))["items"]

    asyncio.run(run())
