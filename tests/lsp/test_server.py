"""Lifecycle, documents, status, progress, trace: what a connection goes through."""

import asyncio
import logging

import pytest
from lsp_demo import Demo, Wrong
from lsp_kit import URI, Wire, did_change, did_open, notice, request, served

from diffcode.lsp.feature import Feature, merged
from diffcode.lsp.server import Server

INITIALIZE = request(1, "initialize", {"capabilities": {}})


def run_session(*messages, features=(), end: bool = True) -> tuple[int, list[dict]]:
    """Feed the messages, then the end of input; the exit code and what was sent."""

    async def run():
        wire = Wire()
        server = Server(wire, wire, features)
        running = asyncio.create_task(server.run())
        for message in messages:
            wire.feed(message)
            await asyncio.sleep(0.002)
        if end:
            wire.feed(b"")
        return await asyncio.wait_for(running, 5), wire.sent

    return asyncio.run(run())


def codes(sent: list[dict]) -> dict:
    return {m["id"]: m.get("error", {}).get("code") for m in sent if "method" not in m}


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([INITIALIZE, notice("initialized"), request(2, "shutdown"), notice("exit")], 0),
        ([INITIALIZE, request(2, "shutdown"), request(3, "exit")], 0),  # Eglot
        ([INITIALIZE, notice("shutdown"), notice("exit")], 0),  # Kate
        ([INITIALIZE, notice("initialized"), notice("exit")], 1),
        ([notice("exit")], 1),
        ([request(5, "exit")], 1),
    ],
    ids=["usual", "exit with an id", "shutdown without one", "no shutdown", "at once", "at once with an id"],
)
def test_exit_codes(messages, code):
    got, sent = run_session(*messages, end=False)
    assert got == code
    wanted = [m["id"] for m in messages if "id" in m]
    assert [m["id"] for m in sent if "method" not in m] == wanted


@pytest.mark.parametrize(("messages", "code"), [([INITIALIZE], 1), ([INITIALIZE, request(2, "shutdown")], 0), ([], 1)])
def test_an_editor_that_just_goes(messages, code):
    assert run_session(*messages)[0] == code


def test_before_initialize_and_after_shutdown():
    demo = Demo()
    _, sent = run_session(
        request(0, "demo/echo"),
        request("x", "shutdown"),
        did_open("a"),
        INITIALIZE,
        request(2, "initialize", {"capabilities": {}}),
        request(3, "demo/sleep"),
        request(4, "shutdown"),
        request(5, "demo/echo"),
        request(6, "shutdown"),
        did_open("b"),
        notice("exit"),
        features=[demo],
        end=False,
    )
    assert codes(sent) == {0: -32002, "x": -32002, 1: None, 2: -32600, 3: -32800, 4: None, 5: -32600, 6: -32600}
    assert demo.calls == ["begun", "stopped"]


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"capabilities": None},
        {"capabilities": [], "clientInfo": 3, "processId": "x", "trace": 1, "workspaceFolders": [1, {}], "rootUri": 5},
        {"capabilities": {"general": {"positionEncodings": "utf-8"}, "window": 1, "textDocument": {"x": None}}},
        {"capabilities": {"general": {"positionEncodings": [None, {}, "utf-7"]}}, "processId": 2**80},
        {"capabilities": {}, "processId": -1, "initializationOptions": "x"},
    ],
)
def test_initialize_bears_any_params(params):
    _, sent = run_session(request(1, "initialize", params), features=[Demo()])
    capabilities = next(m for m in sent if m.get("id") == 1)["result"]["capabilities"]
    assert capabilities["textDocumentSync"]["change"] == 2
    assert capabilities.get("positionEncoding", "utf-16") == "utf-16"


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["utf-16"], "utf-16"),
        (["utf-8", "utf-16"], "utf-8"),
        (["utf-32", "utf-8", "utf-16"], "utf-32"),
        (["ebcdic", "utf-8"], "utf-8"),
        ([], "utf-16"),
    ],
)
def test_the_first_known_encoding_is_chosen_and_used(offered, chosen):
    async def run():
        async with served([Demo()], {"capabilities": {"general": {"positionEncodings": offered}}}) as (server, wire):
            assert (await wire.answer("init"))["result"]["capabilities"]["positionEncoding"] == chosen
            column = {"utf-8": 4, "utf-16": 2, "utf-32": 1}[chosen]
            place = {"line": 0, "character": column}
            wire.feed(did_open("😀b"), did_change(2, {"range": {"start": place, "end": place}, "text": "a"}))
            wire.feed(request(1, "demo/text", {"textDocument": {"uri": URI}}))
            assert (await wire.answer(1))["result"]["text"] == "😀ab"
            assert server.documents.encoding == chosen

    asyncio.run(run())


def test_documents_are_opened_changed_and_closed():
    async def run():
        ask = {"textDocument": {"uri": URI}}
        async with served([Wrong(), demo := Demo()]) as (server, wire):
            wire.feed(request(1, "demo/text", ask), did_open("a\nb", 4), request(2, "demo/text", ask))
            wire.feed(did_change(5, {"text": "c"}), did_change(5, {"text": "d"}), request(3, "demo/text", ask))
            wire.feed(did_change(6, {"text": "e"}), request(4, "demo/text", ask))
            wire.feed(did_change(7, {"text": "e"}, {"range": {"start": 1}, "text": "x"}), request(5, "demo/text", ask))
            wire.feed(did_open("again", 1), request(6, "demo/text", ask))
            wire.feed(notice("textDocument/didSave", {**ask, "text": "again"}))
            wire.feed(notice("textDocument/didClose", ask), did_change(9, {"text": "z"}), request(7, "demo/text", ask))
            await wire.answer(7)
            texts = [(wire.answers(n)[0]["result"] or {}).get("text") for n in range(1, 8)]
            assert texts == [None, "a\nb", None, "e", None, "again", None]
            assert demo.calls[0] == ("opened", 4)
            assert demo.calls[-1] == ("closed", 1)
            assert list(server.documents) == []

    asyncio.run(run())


def test_a_feature_that_fails_leaves_the_others():
    _, sent = run_session(
        request(1, "initialize", {"capabilities": {"textDocument": {"inlineCompletion": {}}}}),
        features=[Wrong(), Demo()],
    )
    assert next(m for m in sent if m.get("id") == 1)["result"]["capabilities"]["inlineCompletionProvider"] is True
    with pytest.raises(ValueError, match="two features answer demo/echo"):
        Server(Wire(), Wire(), [Demo(), Demo()])


def test_capabilities_of_several_features_are_one_object():
    parts = [{"a": True, "b": {"c": [1, 2], "d": True}}, {"a": {"x": 1}, "b": {"c": [2, 3]}}, {"a": True}]
    assert merged(parts) == {"a": {"x": 1}, "b": {"c": [1, 2, 3], "d": True}}


def test_several_features_may_hear_the_same_notification():
    heard = []

    class Listener(Feature):
        def notifications(self):
            return {"demo/heard": lambda params: heard.append(params["n"])}

    run_session(INITIALIZE, notice("demo/heard", {"n": 1}), features=[Listener(), Listener()])
    assert heard == [1, 1]


# ---- status, progress, trace, log


def test_status_is_told_to_who_wants_it():
    async def run():
        for wanted in (True, False):
            async with served([], {"capabilities": {"experimental": {"diffcodeStatus": wanted}}}) as (server, wire):
                wire.feed(request(1, "$/ping"))
                await wire.answer(1)
                for state in ("busy", "busy", "normal"):
                    server.status.set(state)
                server.status.set("inactive", "the file is too large")
                told = [m["params"] for m in wire.sent if m.get("method") == "diffcode/status"]
                assert (
                    told
                    == [
                        {"state": "normal", "reason": None},
                        {"state": "busy", "reason": None},
                        {"state": "normal", "reason": None},
                        {"state": "inactive", "reason": "the file is too large"},
                    ]
                    * wanted
                )

    asyncio.run(run())


PROGRESS = {"capabilities": {"window": {"workDoneProgress": True}}}


def kinds(wire: Wire, token) -> list[str]:
    all_ = [m["params"] for m in wire.sent if m.get("method") == "$/progress"]
    return [p["value"]["kind"] for p in all_ if p["token"] == token]


def test_progress_with_the_editors_token():
    async def run():
        async with served() as (server, wire):
            progress = server.progress.start("Filling", "token 1", cancellable=True)
            progress.report("step 1", 12.6)
            progress.report("step 2", 400)  # too soon
            await asyncio.sleep(0.06)
            progress.report("step 3")
            stopped = []
            progress.on_cancel = lambda: stopped.append(True)
            wire.feed(notice("window/workDoneProgress/cancel", {"token": "token 1"}), request(1, "$/ping"))
            await wire.answer(1)
            progress.end("done")
            progress.end("again")
            progress.report("late")
            assert kinds(wire, "token 1") == ["begin", "report", "report", "end"]
            assert (stopped, progress.cancelled) == ([True], True)
            assert not server.progress._running

    asyncio.run(run())


def test_progress_of_the_server_waits_for_the_editors_leave():
    async def run():
        async with served([], PROGRESS) as (server, wire):
            shown, hidden, short = (server.progress.start(name) for name in ("a", "b", "c"))
            shown.report("before the answer")
            asked = [m for m in [await wire.asked("window/workDoneProgress/create")] and wire.sent]
            await asyncio.sleep(0)
            asked = [m for m in wire.sent if m.get("method") == "window/workDoneProgress/create"]
            short.end()
            wire.feed({"id": asked[0]["id"], "result": None}, {"id": asked[1]["id"], "error": {"code": 1}})
            wire.feed({"id": asked[2]["id"], "result": None}, request(1, "$/ping"))
            await wire.answer(1)
            await asyncio.sleep(0.01)
            shown.report("after it")
            shown.end()
            hidden.end()
            tokens = [m["params"]["token"] for m in asked]
            assert [kinds(wire, token) for token in tokens] == [["begin", "report", "end"], [], []]
            assert not server.progress._running

    asyncio.run(run())


def test_progress_where_the_editor_has_none():
    async def run():
        async with served() as (server, wire):
            progress = server.progress.start("Filling")
            progress.report("x")
            progress.end()
            assert not [m for m in wire.sent if "rogress" in m.get("method", "")]

    asyncio.run(run())


@pytest.mark.parametrize("level", ["off", "messages", "verbose", "loud"])
def test_trace(level):
    async def run():
        async with served([Demo()]) as (_, wire):
            wire.feed(notice("$/setTrace", {"value": level}), request(1, "demo/echo", {"text": "secret"}))
            await wire.answer(1)
            traces = [m["params"] for m in wire.sent if m.get("method") == "$/logTrace"]
            assert bool(traces) == (level in ("messages", "verbose"))
            assert "secret" not in str(traces)
            if traces:
                assert "demo/echo" in str(traces)
                assert ("verbose" in traces[0]) == (level == "verbose")

    asyncio.run(run())


def test_log_records_reach_the_editor_also_from_a_thread():
    from diffcode.lsp import logs

    async def run():
        async with served([Demo()]) as (_, wire):
            wire.feed(request(1, "demo/log"))
            await wire.until(lambda m: m.get("params", {}).get("message") == "from a thread")
            told = [m["params"] for m in wire.sent if m.get("method") == "window/logMessage"]
            assert {"type": 2, "message": "from the loop"} in told
            assert {"type": 1, "message": "from a thread"} in told

    logger = logging.getLogger("diffcode")
    try:
        logs.configure("error", None)
        logger.setLevel(logging.INFO)
        asyncio.run(run())
    finally:
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
