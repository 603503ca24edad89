"""Ripples as actions, as a command, and as the next edits of Copilot's dialect."""

import asyncio

import pytest
from lsp_fake import FakeFiller, Loads, applied, ask, helped, place, span
from lsp_kit import URI, did_change, did_open, notice, request

from diffcode.errors import ModelUnavailable

TEXT = '''def area(radius):
    """π😀"""
    return 3 * radius * radius


print(area(2), area(radius=3))
'''
AT = TEXT.index("radius")
RENAMED = TEXT.replace("radius", "r")
CALLS = "def area(r):\n    return 3 * r\n\n\nx = area(2)\n\n\ny = area(4)\n"
GROWN = CALLS.replace("(r)", "(r, pi)")


def typed_over(text: str, start: int, end: int, new: str, encoding: str = "utf-16") -> list[dict]:
    """What somebody types: the old word is deleted, the new one comes letter by letter."""
    changes = [did_change(2, {"range": span(text, start, end, encoding), "text": ""})]
    text = text[:start] + text[end:]
    for n, letter in enumerate(new):
        changes.append(did_change(3 + n, {"range": span(text, start + n, start + n, encoding), "text": letter}))
        text = text[: start + n] + letter + text[start + n :]
    return changes


def next_edits(id_, text: str, cursor: int, version: int, encoding: str = "utf-16") -> dict:
    params = {"textDocument": {"uri": URI, "version": version}, "position": place(text, cursor, encoding)}
    return request(id_, "textDocument/copilotInlineEdit", params)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_rename_is_followed_as_an_action_without_the_model(encoding, end):
    text, renamed = TEXT.replace("\n", end), RENAMED.replace("\n", end)
    loads = Loads()

    async def run():
        async with helped(loads, encoding=encoding) as (_, wire):
            wire.feed(did_open(text), *typed_over(text, AT, AT + 6, "r", encoding))
            now = text[:AT] + "r" + text[AT + 6 :]
            params = {"textDocument": {"uri": URI}, "range": span(now, AT, AT, encoding), "context": {}}
            (action,) = await ask(wire, 1, "textDocument/codeAction", params)
            assert (action["title"], action["kind"]) == ("Rename radius to r in 3 other places", "quickfix")
            assert "tags" not in action, "no model has a hand in it"
            edit = (await ask(wire, 2, "codeAction/resolve", action))["edit"]
            assert applied(now, edit["documentChanges"][0]["edits"], encoding) == renamed

    asyncio.run(run())
    assert loads.specs == []


def test_a_rename_is_followed_by_a_command():
    async def run():
        async with helped(FakeFiller(), {}) as (_, wire):
            wire.feed(did_open(TEXT), *typed_over(TEXT, AT, AT + 6, "r"))
            now = TEXT[:AT] + "r" + TEXT[AT + 6 :]
            wire.feed(request(1, "workspace/executeCommand", {"command": "diffcode.ripple", "arguments": [URI]}))
            apply = await wire.asked("workspace/applyEdit")
            assert applied(now, apply["params"]["edit"]["changes"][URI]) == RENAMED
            wire.feed({"id": apply["id"], "result": {"applied": True}})
            assert (await wire.answer(1))["result"] == {"applied": True}

    asyncio.run(run())


def test_all_next_edits_at_once_or_one_after_the_other():
    async def run():
        async with helped(FakeFiller()) as (_, wire):
            wire.feed(did_open(TEXT), *typed_over(TEXT, AT, AT + 6, "r"))
            now, version, first = TEXT[:AT] + "r" + TEXT[AT + 6 :], 3, True
            for left in (3, 2, 1, 0):
                wire.feed(next_edits(left, now, AT, version))
                edits = (await wire.answer(left))["result"]["edits"]
                assert len(edits) == left
                for edit in edits:
                    assert edit["textDocument"] == {"uri": URI, "version": version}
                    assert edit["command"]["command"] == "diffcode.accepted"
                if first:
                    ordered = sorted(
                        edits, key=lambda e: (e["range"]["start"]["line"], e["range"]["start"]["character"])
                    )
                    assert applied(now, ordered) == RENAMED
                    assert edits == ordered, "the nearest first"
                    first = False
                if edits:  # the first one is taken, as copilot-lsp and copilot.el do it
                    wire.feed(notice("textDocument/didShowInlineEdit", {"item": {"command": edits[0]["command"]}}))
                    version += 1
                    wire.feed(did_change(version, {"range": edits[0]["range"], "text": edits[0]["text"]}))
                    wire.feed(notice("workspace/executeCommand", edits[0]["command"]))
                    now = applied(now, edits[:1])
            assert now == RENAMED

    asyncio.run(run())


def test_new_arguments_are_the_models():
    def answer(task):
        assert task.text == GROWN.replace("area(2)", "area(2, )").replace("area(4)", "area(4, )")
        assert [task.text[hole.start - 2 : hole.end + 1] for hole in task.holes] == [", )", ", )"]
        assert task.stop == "\n"
        return ["3.1", "3.2"]

    async def run():
        async with helped(filler := FakeFiller(answer)) as (_, wire):
            at = CALLS.index("r)") + 1
            wire.feed(did_open(CALLS), did_change(2, {"range": span(CALLS, at, at), "text": ", pi"}))
            wire.feed(next_edits(1, GROWN, at, 2))
            edits = (await wire.answer(1))["result"]["edits"]
            assert applied(GROWN, edits) == GROWN.replace("(2)", "(2, 3.1)").replace("(4)", "(4, 3.2)")
            params = {"textDocument": {"uri": URI}, "range": span(GROWN, at, at), "context": {}}
            (action,) = await ask(wire, 2, "textDocument/codeAction", params)
            assert action["tags"] == [1]
            assert len(filler.tasks) == 1

    asyncio.run(run())


def test_what_would_break_the_code_is_left_out():
    async def run():
        async with helped(FakeFiller("(((")) as (_, wire):
            at = CALLS.index("r)") + 1
            wire.feed(did_open(CALLS), did_change(2, {"range": span(CALLS, at, at), "text": ", pi"}))
            wire.feed(next_edits(1, GROWN, at, 2))
            assert (await wire.answer(1))["result"] == {"edits": []}

    asyncio.run(run())


def test_no_answer_is_an_error_or_null():
    """copilot-lsp shows the one to its user and fails on the other."""
    loads = Loads()
    loads.failure = ModelUnavailable("no model here: run diffcode pull")

    async def run():
        async with helped(loads) as (_, wire):
            wire.feed(next_edits("closed", CALLS, 0, 1), did_open(CALLS), next_edits("fresh", CALLS, 0, 1))
            at = CALLS.index("r)") + 1
            wire.feed(did_change(2, {"range": span(CALLS, at, at), "text": ", pi"}))
            wire.feed(next_edits("stale", CALLS, 0, 1), next_edits("no model", GROWN, at, 2))
            for id_ in ("closed", "fresh", "stale", "no model"):
                assert (await wire.answer(id_))["result"] == {"edits": []}

    asyncio.run(run())


@pytest.mark.parametrize("settings", [{"nextEdit": False}, {"enabled": False}, {"disabledLanguages": ["python"]}])
def test_nothing_where_it_is_switched_off(settings):
    async def run():
        async with helped(FakeFiller(), **settings) as (_, wire):
            wire.feed(did_open(TEXT), *typed_over(TEXT, AT, AT + 6, "r"))
            now = TEXT[:AT] + "r" + TEXT[AT + 6 :]
            wire.feed(next_edits(1, now, AT, 3))
            assert (await wire.answer(1))["result"] == {"edits": []}
            params = {"textDocument": {"uri": URI}, "range": span(now, AT, AT), "context": {}}
            assert await ask(wire, 2, "textDocument/codeAction", params) == []

    asyncio.run(run())


def test_an_edit_while_it_is_looked_for_makes_it_void():
    filler = FakeFiller("3.1")
    filler.held.clear()

    async def run():
        async with helped(filler) as (_, wire):
            at = CALLS.index("r)") + 1
            wire.feed(did_open(CALLS), did_change(2, {"range": span(CALLS, at, at), "text": ", pi"}))
            wire.feed(next_edits(1, GROWN, at, 2))
            await asyncio.to_thread(filler.begun.acquire)
            wire.feed(did_change(3, {"range": span(GROWN, 0, 0), "text": "\n"}), request("p", "$/ping"))
            await wire.answer("p")
            filler.held.set()
            assert (await wire.answer(1))["result"] == {"edits": []}

    asyncio.run(run())
