"""Suggestions through the protocol, over a made-up model: what is shown, and when nothing is."""

import asyncio

import pytest
from lsp_asks import CURSOR, TEXT, inline, items, shows
from lsp_fake import ALL, FakeFiller, Loads, ask, helped, span
from lsp_kit import did_open, request, served

from diffcode.config import RETRIES
from diffcode.errors import ModelUnavailable
from diffcode.lsp.abilities import abilities
from diffcode.lsp.filler import Written
from diffcode.lsp.session import Session

# ---- what is shown


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_suggestion_stands_at_the_cursor_in_every_encoding(encoding, end):
    text = TEXT.replace("return ", "π😀 = ").replace("\n", end)
    cursor = text.index(" = ") + 3
    new, whole = shows(text, cursor, "math.pi * r ** 2", encoding=encoding)
    assert new == "math.pi * r ** 2"
    assert whole == text[:cursor] + new + text[cursor:]


def test_one_line_where_the_line_is_unfinished_and_several_where_a_body_is_missing():
    for text, cursor, stop in ((TEXT, CURSOR, "\n"), ("def f(x):", 9, None), ("def f(x):\n    ", 14, None)):
        filler = FakeFiller("x + 1")
        shows(text, cursor, filler)
        assert [task.stop for task in filler.tasks] == [stop]
        for setting, expected in (("never", "\n"), ("always", None)):
            filler = FakeFiller("x + 1")
            shows(text, cursor, filler, settings={"multiLine": setting})
            assert [task.stop for task in filler.tasks] == [expected]


def test_who_asks_by_hand_waits_for_other_tries():
    for kind, retries in ((1, RETRIES), (2, 0)):
        filler = FakeFiller("math.pi * r ** 2")
        shows(TEXT, CURSOR, filler, kind)
        assert [(task.options.retries, task.language) for task in filler.tasks] == [(retries, "python")]


def test_several_lines_come_with_the_documents_line_ends_and_indentation():
    text = "def f(x):\r\n\tif x:\r\n\t\treturn 1\r\n\r\n\r\ndef g(x):"
    new, _ = shows(text, len(text), FakeFiller(lambda _: ["\r\n    y = 1\r\n    return y"]))
    assert new == "\r\n\ty = 1\r\n\treturn y"


def test_what_follows_on_the_line_is_replaced_and_not_repeated():
    text = "function f() {}\n"
    new, whole = shows(text, text.index("}"), "\n  return 1;\n", language="javascript", uri="file:///a.js")
    assert whole == "function f() {\n  return 1;\n}\n"
    assert new.endswith("}")
    text = "  g((x) => {});\n"  # the bracket gets its line also where the model has not said so
    new, whole = shows(text, text.index("}"), "\n    return h(x", language="javascript", uri="file:///a.js")
    assert whole == "  g((x) => {\n    return h(x)\n  });\n"
    text = "x = f()\n"
    new, whole = shows(text, 6, "a, b)")
    assert (new, whole) == ("a, b", "x = f(a, b)\n")


def test_what_was_cut_short_ends_at_a_whole_line():
    long = Written("\n    a = 1\n    b = a + ", (0.9,), "budget")
    assert shows("def f(x):", 9, FakeFiller(lambda _: [long]))[0] == "\n    a = 1"
    assert shows(TEXT, CURSOR, FakeFiller(lambda _: [Written("r * r", (0.9,), "budget")]))[0] == "r * r"


def test_the_picked_item_of_the_list_is_completed_in_its_own_range():
    text = TEXT.replace("return ", "return math.s")
    cursor = text.index("math.s") + 6
    picked = {"range": span(text, cursor - 1, cursor), "text": "sqrt"}
    filler = FakeFiller("(r)")
    new, whole = shows(text, cursor, filler, selectedCompletionInfo=picked)
    assert (new, whole) == ("sqrt(r)", text.replace("math.s", "math.sqrt(r)"))
    assert filler.tasks[0].text == text.replace("math.s", "math.sqrt"), "the model sees it put in"
    elsewhere = {"range": span(text, 0, 6), "text": "sqrt"}
    assert shows(text, cursor, "(r)", selectedCompletionInfo=elsewhere) is None


@pytest.mark.parametrize(
    ("capabilities", "name", "kinds", "expected"),
    [
        ({}, "", [2, 1], [False, True]),
        ({}, "", [1, 2, 1], [True, False, True]),
        ({}, "", [0, 1, 1], [True, False, False]),
        ({}, "Visual Studio Code", [1, 0, 1], [False, True, False]),
        ({"codeAction": {"tagSupport": {"valueSet": [1]}}}, "Visual Studio Code", [1, 2], [True, False]),
    ],
)
def test_both_dialects_of_trigger_kinds(capabilities, name, kinds, expected):
    """In a comment only a suggestion asked for by hand is made."""
    text = "x = 1  # and so \n"

    async def run():
        session = Session(Loads(FakeFiller("on = 2")))
        known = {"textDocument": {"inlineCompletion": {}, **capabilities}}
        params = {"capabilities": known, "clientInfo": {"name": name}}
        async with served(abilities(session), params) as (_, wire):
            wire.feed(did_open(text))
            found = [bool(await items(wire, n, text, 16, kind)) for n, kind in enumerate(kinds)]
        assert session.close(5)
        return found

    assert asyncio.run(run()) == expected


# ---- silence


@pytest.mark.parametrize(
    ("text", "cursor", "new"),
    [
        ("x = 1  # and so ", 16, "on"),
        (TEXT, CURSOR, "<|fim_middle|>x"),
        (TEXT, CURSOR, ""),
        (TEXT, CURSOR, "((((("),
        ("", 0, "import os"),
    ],
)
def test_gates_before_and_behind(text, cursor, new):
    assert shows(text, cursor, new) is None


@pytest.mark.parametrize(
    ("settings", "more", "reason"),
    [
        ({"enabled": False}, {}, "switched off"),
        ({"disabledLanguages": ["python"]}, {}, "disabledLanguages"),
        ({"exclude": ["*/a.py"]}, {}, "diffcode.exclude"),
        ({"exclude": ["a.p?"]}, {}, "diffcode.exclude"),
        ({"maxFileSize": 1000}, {"text": TEXT + "#" * 1000}, "more than diffcode.maxFileSize"),
    ],
)
def test_why_nothing_is_offered_is_said_once(settings, more, reason, caplog):
    text, filler = more.get("text", TEXT), FakeFiller("r")
    caplog.set_level("INFO", "diffcode")

    async def run():
        async with helped(filler, **settings) as (_, wire):
            wire.feed(did_open(text), did_open("a = ", uri="file:///b.txt"))
            for n in range(3):
                assert await items(wire, n, text, CURSOR) == []
                await ask(
                    wire,
                    f"b {n}",
                    "textDocument/inlineCompletion",
                    inline("a = ", 4) | {"textDocument": {"uri": "file:///b.txt"}},
                )
            return [m["params"] for m in wire.sent if m.get("method") == "diffcode/status"]

    told = asyncio.run(run())
    inactive = [status for status in told if status["state"] == "inactive"]
    assert inactive
    assert all(reason in status["reason"] for status in inactive)
    assert sum(reason in record.getMessage() for record in caplog.records) == 1
    assert all(task.text == "a = " for task in filler.tasks)


@pytest.mark.parametrize(
    ("cursor", "new", "why"),
    [
        (CURSOR, "r * r", None),
        (TEXT.index("def ") + 1, "x", "the cursor is inside a word"),
        (CURSOR, "1 +* 2", "it makes a syntax error"),
        (CURSOR, Written("r * r", (0.1,)), "the model is not sure (0.10)"),
    ],
)
def test_the_status_tells_why_there_was_no_suggestion(cursor, new, why):
    async def run():
        async with helped(FakeFiller(lambda _task: [new])) as (_, wire):
            wire.feed(did_open(TEXT))
            for n in range(2):  # the second time from memory
                found = await items(wire, n, TEXT, cursor)
                status = await ask(wire, f"s{n}", "workspace/executeCommand", {"command": "diffcode.status"})
                assert (bool(found), status["silence"]) == (why is None, why)

    asyncio.run(run())


def test_a_model_that_fails_shows_in_the_status_until_it_does_better():
    def broken(_task):
        raise RuntimeError("what the user typed")

    async def run():
        filler = FakeFiller(broken)
        async with helped(filler) as (_, wire):
            wire.feed(did_open(TEXT), request(1, "textDocument/inlineCompletion", inline(TEXT, CURSOR)))
            failed = (await wire.answer(1))["error"]
            filler.answer = lambda _: ["r * r"]
            assert len(await items(wire, 2, TEXT, CURSOR)) == 1
            told = [m["params"] for m in wire.sent if m.get("method") == "diffcode/status"]
            return failed, [status for status in told if status["state"] != "busy"]

    failed, told = asyncio.run(run())
    assert failed["code"] == -32603
    assert [status["state"] for status in told] == ["normal", "normal", "error", "normal"]
    assert told[2]["reason"] == "the model has failed (RuntimeError): see the log, then diffcode.reload"
    assert "typed" not in str(failed)


def test_a_setting_for_inline_suggestions_alone():
    assert shows(TEXT, CURSOR, "r * r", settings={"inlineCompletion": False}) is None


def test_without_a_model_the_status_says_why_and_no_request_fails():
    loads = Loads()
    loads.failure = ModelUnavailable("no model here: run diffcode pull")

    async def run():
        async with helped(loads, {**ALL, "window": {"workDoneProgress": True}}) as (_, wire):
            wire.feed(did_open(TEXT))
            for n in range(3):
                assert await items(wire, n, TEXT, CURSOR) == []
            await wire.until(lambda m: m.get("method") == "diffcode/status" and m["params"]["state"] == "inactive")
            told = [m["params"] for m in wire.sent if m.get("method") == "diffcode/status"]
            assert [status["state"] for status in told] == ["normal", "busy", "inactive"]
            assert told[-1]["reason"] == "no model here: run diffcode pull"
            assert len(loads.specs) == 1
            loads.failure = None
            status = await ask(wire, "r", "workspace/executeCommand", {"command": "diffcode.reload"})
            assert (status["state"], status["loaded"]) == ("normal", True)
            assert len(await items(wire, "again", TEXT, CURSOR)) == 1

    asyncio.run(run())
