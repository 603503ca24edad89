"""Every request id is answered exactly once, whatever is asked and whenever."""

import asyncio
import gc
import logging
import time

import pytest
from lsp_demo import Demo
from lsp_kit import framed, notice, request, served

from diffcode.lsp import endpoint
from diffcode.lsp.endpoint import NoAnswer
from diffcode.lsp.messages import RequestError


def code(answer: dict) -> int | None:
    return answer.get("error", {}).get("code")


async def settled(wire) -> None:
    """Everything sent so far has been dealt with."""
    mark = f"mark {len(wire.sent)}"
    wire.feed(request(mark, "demo/echo"))
    await wire.answer(mark)


@pytest.mark.parametrize(
    ("message", "id_", "wanted"),
    [
        (b'{"id": 1, "method": ', None, -32700),
        ([], None, -32600),
        ([request(1, "demo/echo")], None, -32600),
        ({"id": 7, "method": 3}, 7, -32600),
        (request(None, "demo/echo"), None, -32600),
        (request(1.5, "demo/echo"), 1.5, -32600),
        (request(1, "demo/unknown"), 1, -32601),
        (request(1, "$/unknown"), 1, -32601),
        (request("a", "demo/echo", [1]), "a", -32602),
        (request("a", "demo/echo", 5), "a", -32602),
        (request(1, "demo/bad"), 1, -32602),
        (request(1, "demo/bad", {"position": {"line": -1, "character": 0}}), 1, -32602),
        (request(1, "demo/bad", {"position": {"line": "0", "character": 0}}), 1, -32602),
        (request(1, "demo/bad", {"position": {"line": True, "character": 0}}), 1, -32602),
        (request(1, "workspace/executeCommand", {"command": "rm"}), 1, -32602),
        (request(1, "demo/fail"), 1, -32603),
        (request(1, "demo/noJson"), 1, -32603),
        (request(1, "demo/unavailable"), 1, -32803),
        (request(1, "initialize", {"capabilities": {}}), 1, -32600),
        (request(1, "demo/echo", {"class": 1, "a-b": [None]}), 1, None),
        (request(0, "demo/echo"), 0, None),
        (request(-5, "demo/echo"), -5, None),
        (request("", "demo/echo"), "", None),
        ({"id": 1, "method": "demo/echo"}, 1, None),
        ({"id": 1, "method": "demo/echo", "params": None}, 1, None),
        (request(1, "demo/bad", {"position": {"line": 3.0, "character": 0}}), 1, None),
        (request(1, "workspace/executeCommand", {"command": "demo.count", "arguments": [1, 2]}), 1, None),
    ],
    ids=repr,
)
def test_one_answer_each(message, id_, wanted):
    async def run():
        async with served([Demo()]) as (_, wire):
            wire.feed(framed(message))
            assert code(await wire.answer(id_)) == wanted
            await settled(wire)
            assert len(wire.answers(id_)) == 1

    asyncio.run(run())


@pytest.mark.parametrize(
    "message",
    [
        notice("demo/echo"),
        notice("$/unknown"),
        notice("demo/unknown", [1, 2]),
        notice("textDocument/didChange", 5),
        notice("textDocument/didOpen", {"textDocument": {"uri": 4}}),
        notice("$/cancelRequest"),
        notice("$/cancelRequest", {"id": "nothing"}),
        notice("$/cancelRequest", {"id": {"a": 1}}),
        notice("initialized"),
        {"id": 99, "result": 5},
        {"id": 99, "error": {"code": 1, "message": "no"}},
        {"id": None, "error": None},
    ],
    ids=repr,
)
def test_notifications_and_strange_answers_are_not_answered(message):
    async def run():
        async with served([Demo()]) as (_, wire):
            before = len(wire.sent)
            wire.feed(message)
            await settled(wire)
            assert [m for m in wire.sent[before:] if "id" in m] == [wire.sent[-1]]

    asyncio.run(run())


@pytest.mark.parametrize("method", ["demo/sleep", "demo/stubborn"])
def test_a_cancelled_request_is_answered_within_50_ms(method):
    async def run():
        async with served([demo := Demo()]) as (_, wire):
            wire.feed(request(1, method))
            await asyncio.sleep(0.01)
            began = time.perf_counter()
            wire.feed(notice("$/cancelRequest", {"id": 1}))
            assert code(await wire.answer(1)) == -32800
            assert time.perf_counter() - began < 0.05
            await asyncio.sleep(0.3)
            assert len(wire.answers(1)) == 1
            wire.feed(notice("$/cancelRequest", {"id": 1}), request(1, "demo/echo"))  # the id is free again
            await settled(wire)
            assert len(wire.answers(1)) == 2
            assert demo.calls == (["begun"] if method == "demo/sleep" else [])

    asyncio.run(run())


def test_a_storm_of_cancels_is_answered_in_full():
    async def run():
        async with served([Demo()]) as (server, wire):
            for id_ in range(2000):
                wire.feed(request(id_, "demo/sleep", {"seconds": 60 if id_ < 1999 else 0.01}))
                if id_:
                    wire.feed(notice("$/cancelRequest", {"id": id_ - 1}))
            assert (await wire.answer(1999))["result"] == "slept"
            codes = [code(answer) for id_ in range(1999) for answer in wire.answers(id_)]
            assert codes == [-32800] * 1999
            assert not server.endpoint._running

    asyncio.run(run())


def test_requests_and_cancel_in_one_read():
    async def run():
        async with served([Demo()]) as (_, wire):
            wire.feed(request(1, "demo/sleep"), notice("$/cancelRequest", {"id": 1}), request(2, "demo/echo"))
            assert code(await wire.answer(1)) == -32800
            assert "result" in await wire.answer(2)

    asyncio.run(run())


def test_an_id_that_is_still_worked_on_is_refused_and_both_are_answered():
    async def run():
        async with served([Demo()]) as (_, wire):
            wire.feed(request(1, "demo/sleep", {"seconds": 0.05}), request(1, "demo/echo"), request("1", "demo/echo"))
            await wire.until(lambda m: m.get("id") == 1 and "result" in m)
            assert [code(answer) for answer in wire.answers(1)] == [-32600, None]
            assert len(wire.answers("1")) == 1

    asyncio.run(run())


def test_a_request_sees_the_text_as_it_was_when_it_came():
    async def run():
        from lsp_kit import URI, did_change, did_open

        async with served([Demo()]) as (_, wire):
            ask = {"textDocument": {"uri": URI}}
            wire.feed(did_open("a"), request(1, "demo/text", ask), did_change(2, {"text": "b"}))
            wire.feed(request(2, "demo/text", ask))
            assert [(await wire.answer(id_))["result"]["text"] for id_ in (1, 2)] == ["a", "b"]

    asyncio.run(run())


# ---- questions to the editor


def test_questions_are_answered_refused_late_or_never():
    async def run():
        async with served() as (server, wire):
            ask = server.endpoint.ask
            pending = [asyncio.create_task(ask(f"x/{n}", {}, seconds=0.1 if n == 2 else 5)) for n in range(4)]
            ids = [(await wire.asked(f"x/{n}"))["id"] for n in range(4)]
            assert len(set(ids)) == 4
            wire.feed({"id": ids[0], "result": {"a": 1}}, {"id": ids[1], "error": {"code": -5, "message": "no"}})
            assert await pending[0] == {"a": 1}
            with pytest.raises(RequestError, match="no") as refused:
                await pending[1]
            assert refused.value.code == -5
            with pytest.raises(NoAnswer, match=r"within 0\.1 s"):
                await pending[2]
            pending[3].cancel()
            await asyncio.wait([pending[3]])
            cancels = [m["params"]["id"] for m in wire.sent if m.get("method") == "$/cancelRequest"]
            assert cancels == [ids[2], ids[3]]
            wire.feed({"id": ids[2], "result": 1}, {"id": ids[3], "result": 1}, {"id": ids[0], "result": 2})
            wire.feed(request(1, "$/ping"))
            await wire.answer(1)  # alive, and all the late ones ignored
            assert not server.endpoint._asked

    asyncio.run(run())


def test_questions_end_with_the_connection():
    async def run():
        async with served() as (server, wire):
            pending = asyncio.create_task(server.endpoint.ask("x/y", {}))
            await wire.asked("x/y")
        await asyncio.wait([pending], timeout=1)
        assert pending.cancelled()
        with pytest.raises(NoAnswer):
            await server.endpoint.ask("x/z", {})

    asyncio.run(run())


def test_what_may_be_dropped_is_when_the_editor_is_behind():
    async def run():
        async with served() as (server, wire):
            wire.behind = endpoint.CROWDED + 1
            server.endpoint.notify("x/drop", {}, droppable=True)
            server.endpoint.notify("x/keep", {})
            assert [m["method"] for m in wire.sent if m.get("method", "").startswith("x/")] == ["x/keep"]

    asyncio.run(run())


def test_nothing_stays_behind_after_many_requests():
    async def run():
        async with served([Demo()]) as (server, wire):
            for batch in range(20):
                wire.feed(*(request(f"{batch} {n}", "demo/echo", {"n": n}) for n in range(100)))
                await wire.answer(f"{batch} 99")
            await asyncio.sleep(0.01)
            gc.collect()
            assert not server.endpoint._running
            assert not server.endpoint._tasks

    asyncio.run(run())


def test_the_log_has_places_but_not_the_users_text(caplog):
    async def run():
        async with served([Demo()]) as (_, wire):
            wire.feed(
                request(1, "demo/fail", {"text": "secret code of the user"}), b"junk", notice("demo/secret\u20ac")
            )
            answer = await wire.answer(1)
            await settled(wire)
            assert "RuntimeError" in answer["error"]["message"]

    logger = logging.getLogger("diffcode")
    logger.propagate = True  # a test before this one may have set up the server's own handlers
    with caplog.at_level(logging.DEBUG, "diffcode"):
        asyncio.run(run())
    assert "demo/fail failed: RuntimeError" in caplog.text
    assert "lsp_demo.py" in caplog.text
    assert "secret code" not in caplog.text


def test_bodies_are_logged_when_asked_for(caplog):
    async def run():
        async with served([Demo()], log_bodies=True) as (_, wire):
            wire.feed(request(1, "demo/echo", {"text": "visible code"}))
            await wire.answer(1)
            assert not [m for m in wire.sent if m.get("method") == "window/logMessage" and "visible" in str(m)]

    logging.getLogger("diffcode").propagate = True
    with caplog.at_level(logging.INFO, "diffcode"):
        asyncio.run(run())
    assert caplog.text.count("visible code") == 2
