"""Actions and commands under way: edits meanwhile, progress, wrong arguments, the form of the edit."""

import asyncio
import random

import pytest
from lsp_acts import TEXT, offers
from lsp_fake import ALL, EDITS, FakeFiller, applied, helped, place, span
from lsp_kit import URI, did_change, did_open, notice, request
from lsp_model import CHARACTERS, ENDS, random_text

from diffcode.holes import Hole
from diffcode.lsp.carry import Change
from diffcode.lsp.client import Client
from diffcode.lsp.document import Document
from diffcode.lsp.edits import workspace_edit

types = pytest.importorskip("lsprotocol").types
from lsprotocol import converters  # noqa: E402

PROGRESS = {**ALL, "window": {"workDoneProgress": True}}


# ---- the document meanwhile


@pytest.mark.parametrize("when", ["before", "during"])
def test_an_edit_meanwhile_makes_it_void(when):
    filler = FakeFiller("h")
    change = did_change(2, {"range": span(TEXT, 0, 0), "text": "#"})

    async def run():
        async with helped(filler) as (_, wire):
            wire.feed(did_open(TEXT))
            at = TEXT.index("???")
            action = (await offers(wire, 1, TEXT, at, at))[0]
            if when == "before":
                wire.feed(change, request(2, "codeAction/resolve", action))
            else:
                filler.held.clear()
                wire.feed(request(2, "codeAction/resolve", action))
                await asyncio.to_thread(filler.begun.acquire)
                wire.feed(change, request("ping", "$/ping"))
                await wire.answer("ping")
                filler.held.set()
            assert (await wire.answer(2))["error"]["code"] == -32801
            assert len(filler.tasks) == (when == "during")

    asyncio.run(run())


def test_a_suggestion_gives_way_to_an_action():
    filler = FakeFiller("h")
    filler.held.clear()

    async def run():
        async with helped(filler) as (_, wire):
            wire.feed(did_open(TEXT))
            at = TEXT.index("result = ") + 9
            text = TEXT[:at] + TEXT[at + 1 :]
            wire.feed(did_change(2, {"range": span(TEXT, at, at + 1), "text": ""}))
            wire.feed(did_change(3, {"range": span(text, 0, 0), "text": "\n"}))
            text = "\n" + text
            params = {"textDocument": {"uri": URI}, "position": place(text, at + 1), "context": {"triggerKind": 2}}
            wire.feed(request(1, "textDocument/inlineCompletion", params))
            await asyncio.to_thread(filler.begun.acquire)
            hole = text.index("???")
            action = (await offers(wire, 2, text, hole, hole))[0]
            wire.feed(request(3, "codeAction/resolve", action))
            assert (await wire.answer(1))["result"]["items"] == []
            await asyncio.to_thread(filler.begun.acquire)
            filler.held.set()
            assert "edit" in (await wire.answer(3))["result"]

    asyncio.run(run())


# ---- progress


def progress_of(wire) -> list[dict]:
    return [m["params"]["value"] for m in wire.sent if m.get("method") == "$/progress"]


async def allow(wire) -> None:
    """Say yes to every progress that is asked for from now on."""
    done = set()
    for _ in range(400):
        for message in list(wire.sent):
            if message.get("method") == "window/workDoneProgress/create" and message["id"] not in done:
                done.add(message["id"])
                wire.feed({"id": message["id"], "result": None})
        await asyncio.sleep(0.002)


def test_a_command_reports_to_the_token_that_came_with_it():
    """And asks for no other: there would be two messages for one wish."""

    async def run():
        async with helped(FakeFiller("h", frames=["math."]), PROGRESS) as (_, wire):
            wire.feed(did_open(TEXT))
            where = {"uri": URI, "position": place(TEXT, TEXT.index("???"))}
            wish = {"command": "diffcode.fill", "arguments": [where], "workDoneToken": "mine"}
            wire.feed(request(1, "workspace/executeCommand", wish))
            edit = await wire.asked("workspace/applyEdit")
            wire.feed({"id": edit["id"], "result": {"applied": True}})
            await wire.answer(1)
            told = [m["params"] for m in wire.sent if m.get("method") == "$/progress"]
            return [params["value"] for params in told if params["token"] == "mine"], told

    mine, told = asyncio.run(run())
    assert [value["kind"] for value in mine] == ["begin", "report", "end"]
    assert (mine[0]["title"], mine[1]["message"]) == ("diffcode: Fill ???", "math.")
    assert not any("Fill" in params["value"].get("title", "") for params in told if params["token"] != "mine")


@pytest.mark.parametrize("live", [True, False])
def test_a_live_preview_is_shown_while_it_is_made(live):
    filler = FakeFiller("h", frames=["math.", "math.pi"])
    filler.held.clear()

    async def run():
        async with helped(filler, PROGRESS, livePreview=live) as (_, wire):
            allowing = asyncio.create_task(allow(wire))
            wire.feed(did_open(TEXT))
            at = TEXT.index("???")
            action = (await offers(wire, 1, TEXT, at, at))[0]
            wire.feed(request(2, "codeAction/resolve", action))
            await asyncio.to_thread(filler.begun.acquire)
            for _ in range(100):
                await asyncio.sleep(0.005)
                if any("Fill ???" in str(value.get("title")) for value in progress_of(wire)):
                    break
            filler.frames = ["math.pi"]
            filler.held.set()
            await wire.answer(2)
            again = (await offers(wire, 3, TEXT, 0, 0))[0]
            filler.held.clear()
            wire.feed(request(4, "codeAction/resolve", again))
            await asyncio.sleep(0.05)
            filler.held.set()
            await wire.answer(4)
            allowing.cancel()
            return progress_of(wire)

    values = asyncio.run(run())
    titles = [value["title"] for value in values if value["kind"] == "begin"]
    assert "diffcode: Fill ???" in titles
    begun = [value for value in values if value["kind"] == "begin" and "Fill" in value["title"]]
    assert all(value["cancellable"] for value in begun)
    assert len([value for value in values if value["kind"] == "end"]) == len(titles)
    assert any("math" in str(value.get("message")) for value in values) <= live


def test_who_cancels_the_progress_cancels_the_work():
    filler = FakeFiller("h")
    filler.held.clear()

    async def run():
        async with helped(filler, PROGRESS) as (_server, wire):
            wire.feed(did_open(TEXT))
            at = TEXT.index("???")
            action = (await offers(wire, 1, TEXT, at, at))[0]
            allowing = asyncio.create_task(allow(wire))
            wire.feed(request(2, "codeAction/resolve", action))
            await asyncio.to_thread(filler.begun.acquire)
            begin = await wire.until(lambda m: "Fill" in str(m.get("params", {}).get("value", {}).get("title")))
            wire.feed(notice("window/workDoneProgress/cancel", {"token": begin["params"]["token"]}))
            assert (await wire.answer(2))["error"]["code"] == -32800
            for _ in range(200):
                await asyncio.sleep(0.002)
                if filler.stopped:
                    break
            allowing.cancel()

    asyncio.run(run())
    assert filler.stopped == 1


# ---- commands


def test_a_command_with_an_argument_varies_at_that_strength():
    filler = FakeFiller(lambda task: ["form"] * len(task.holes))

    async def run():
        async with helped(filler) as (_, wire):
            wire.feed(did_open(TEXT))
            where = span(TEXT, TEXT.index("result = 0"), len(TEXT))
            argument = {"uri": URI, "range": where, "strength": 0.05, "seed": 4}
            wire.feed(request(1, "workspace/executeCommand", {"command": "diffcode.vary", "arguments": [argument]}))
            apply = await wire.asked("workspace/applyEdit")
            assert apply["params"]["label"] == "Vary selection (5%)"
            wire.feed({"id": apply["id"], "result": {"applied": False, "failureReason": "no"}})
            assert (await wire.answer(1))["result"] == {"applied": False, "failureReason": "no"}

    asyncio.run(run())


@pytest.mark.parametrize(
    ("command", "arguments", "code"),
    [
        ("diffcode.fill", [], -32602),
        ("diffcode.fill", [{"uri": "file:///other.py"}], -32803),
        ("diffcode.fill", [{"uri": URI, "version": 7}], -32801),
        ("diffcode.fill", [{"uri": URI, "range": {"start": 1}}], -32602),
        ("diffcode.vary", [{"uri": URI}], -32602),
        ("diffcode.vary", [{"uri": URI, "position": {"line": 0, "character": 0}, "strength": 7}], -32602),
        ("diffcode.rewrite", [{"uri": URI, "position": {"line": 1, "character": 0}}], -32803),
        ("diffcode.ripple", [URI], -32803),
        ("diffcode.nothing", [], -32602),
    ],
)
def test_wrong_commands_are_answered_in_one_line(command, arguments, code):
    async def run():
        async with helped(FakeFiller()) as (_, wire):
            wire.feed(did_open(TEXT))
            wire.feed(request(1, "workspace/executeCommand", {"command": command, "arguments": arguments}))
            error = (await wire.answer(1))["error"]
            assert (error["code"], error["message"].count("\n")) == (code, 0)

    asyncio.run(run())


def test_a_bad_resolve_is_answered():
    async def run():
        async with helped(FakeFiller()) as (_, wire):
            wire.feed(did_open(TEXT))
            good = {"diffcode": "fill", "uri": URI, "version": 1, "start": 0, "end": 0}
            for n, data in enumerate(
                [None, {}, good | {"diffcode": "x"}, good | {"end": 10**9}, good | {"start": "0"}]
            ):
                wire.feed(request(n, "codeAction/resolve", {"title": "x", "data": data}))
                assert (await wire.answer(n))["error"]["code"] == -32602

    asyncio.run(run())


# ---- the edit's form


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_any_changes_arrive_as_they_were_meant(encoding):
    chance = random.Random(5)
    for _ in range(60):
        text = random_text(chance, ENDS, 60)
        document = Document(URI, "python", 3, text, encoding)
        cuts = sorted(chance.choices(range(len(text) + 1), k=6))
        cuts = [cut - (text[cut - 1 : cut + 1] == "\r\n") for cut in cuts]
        news = ["".join(chance.choices(CHARACTERS, k=3)) for _ in range(3)]
        pairs = [Hole(a, b) for a, b in zip(cuts[::2], cuts[1::2], strict=True)]
        changes = [Change(hole, new) for hole, new in zip(pairs, news, strict=True) if pairs.count(hole) == 1]
        for capabilities in ({"workspace": EDITS}, {"workspace": {"workspaceEdit": {}}}):
            edit = workspace_edit(Client(capabilities=capabilities), document.snapshot(), changes, "x")
            edits = edit["documentChanges"][0]["edits"] if "documentChanges" in edit else edit["changes"][URI]
            wanted = text
            for change in reversed(changes):
                wanted = wanted[: change.hole.start] + change.text + wanted[change.hole.end :]
            assert applied(text, edits, encoding) == wanted


def test_what_is_not_sure_asks_to_be_confirmed_where_it_can():
    document = Document(URI, "python", 3, "a b", "utf-16").snapshot()
    changes = [Change(Hole(0, 1), "x"), Change(Hole(2, 3), "y", sure=False)]
    edit = workspace_edit(Client(capabilities={"workspace": EDITS}), document, changes, "Rename a to x")
    needs = {name: known["needsConfirmation"] for name, known in edit["changeAnnotations"].items()}
    assert [needs[e["annotationId"]] for e in edit["documentChanges"][0]["edits"]] == [False, True]
    converters.get_converter().structure(edit, types.WorkspaceEdit)
