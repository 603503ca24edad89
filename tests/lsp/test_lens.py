"""The doubt lens over a made-up model: pulled and pushed, off by default, what has not changed is not read again."""

import asyncio

import pytest
from lsp_fake import FakeFiller, Loads, ask, helped, span
from lsp_kit import URI, did_change, did_open, notice, request

from diffcode.lsp import lens
from diffcode.lsp.session import Superseded

TEXT = "total = 1\nprint(totl)\n"
AT = TEXT.index("totl")
PULLS = {"textDocument": {"diagnostic": {"dynamicRegistration": False}}}
PULL = {"textDocument": {"uri": URI}}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lens, "REST_SECONDS", 0.02)


async def pushed(wire, count: int) -> list[dict]:
    """The `count`-th publishDiagnostics."""
    for _ in range(400):
        told = [m["params"] for m in wire.sent if m.get("method") == "textDocument/publishDiagnostics"]
        if len(told) >= count:
            return told
        await asyncio.sleep(0.005)
    raise AssertionError(f"{len(told)} pushed")


def test_off_by_default():
    filler = FakeFiller(least_likely="totl")

    async def run():
        async with helped(filler, PULLS) as (_, wire):
            assert "diagnosticProvider" not in (await wire.answer("init"))["result"]["capabilities"]
            wire.feed(did_open(TEXT))
            assert await ask(wire, 1, "textDocument/diagnostic", PULL) == {"kind": "full", "items": []}
            await asyncio.sleep(0.05)
            assert not any(m.get("method") == "textDocument/publishDiagnostics" for m in wire.sent)

    asyncio.run(run())
    assert filler.doubted == []


def test_an_unlikely_token_is_a_hint_for_who_asks():
    async def run():
        async with helped(FakeFiller(least_likely="totl"), PULLS, doubtLens=True) as (_, wire):
            options = (await wire.answer("init"))["result"]["capabilities"]["diagnosticProvider"]
            assert options["workspaceDiagnostics"] is False
            wire.feed(did_open(TEXT))
            report = await ask(wire, 1, "textDocument/diagnostic", PULL)
            (hint,) = report["items"]
            assert (hint["range"], hint["severity"], hint["source"]) == (span(TEXT, AT, AT + 4), 4, "diffcode")
            assert hint["message"] == "Unlikely (at most 0.1%): the model expects `better` here"
            again = await ask(wire, 2, "textDocument/diagnostic", PULL | {"previousResultId": report["resultId"]})
            assert again == {"kind": "unchanged", "resultId": report["resultId"]}
            assert not any(m.get("method") == "textDocument/publishDiagnostics" for m in wire.sent)

    asyncio.run(run())


def test_editors_that_do_not_ask_are_told_and_live_settings_count():
    async def run():
        async with helped(FakeFiller(least_likely="totl"), {}, doubtLens=True) as (_, wire):
            wire.feed(did_open(TEXT))
            (first,) = await pushed(wire, 1)
            assert (first["version"], len(first["diagnostics"])) == (1, 1)
            wire.feed(did_change(2, {"range": span(TEXT, AT, AT + 4), "text": "total"}))
            assert (await pushed(wire, 2))[1] == {"uri": URI, "version": 2, "diagnostics": []}
            wire.feed(did_change(3, {"text": TEXT}))
            assert len((await pushed(wire, 3))[2]["diagnostics"]) == 1
            wire.feed(notice("workspace/didChangeConfiguration", {"settings": {"doubtLens": False}}))
            assert (await pushed(wire, 4))[3]["diagnostics"] == []
            settings = {"doubtLens": True, "doubtBelow": 0.0001}
            wire.feed(notice("workspace/didChangeConfiguration", {"settings": settings}))
            assert (await pushed(wire, 5))[4]["diagnostics"] == []
            wire.feed(notice("textDocument/didClose", PULL))
            assert (await pushed(wire, 6))[5] == {"uri": URI, "diagnostics": []}

    asyncio.run(run())


def test_only_the_regions_that_an_edit_is_near_are_read_again():
    lines = [f"value_{n:04} = {n:040}\n" for n in range(240)]
    filler = FakeFiller(least_likely="nothing")

    async def run():
        text = "".join(lines)
        async with helped(filler, PULLS, doubtLens=True) as (_, wire):
            wire.feed(did_open(text))
            await ask(wire, 1, "textDocument/diagnostic", PULL)
            first = list(filler.doubted)
            assert all(region.count("\n") < lens.REGION for region in first)
            assert len(first) == lens.REACH // lens.REGION
            wire.feed(did_change(2, {"range": span(text, 0, 0), "text": "#"}))
            await ask(wire, 2, "textDocument/diagnostic", PULL)
            assert 1 <= len(filler.doubted) - len(first) < len(first)

    asyncio.run(run())


def test_anything_else_comes_first():
    filler = FakeFiller("h")

    async def run():
        async with helped(loads := Loads(filler), PULLS, doubtLens=True) as (_, wire):
            wire.feed(did_open("x = \n"), did_change(2, {"text": "x = \ny = 1\n"}))
            wire.feed(request(1, "textDocument/diagnostic", PULL))
            position = {"line": 0, "character": 4}
            params = PULL | {"position": position, "context": {"triggerKind": 1}}
            filler.held.clear()
            wire.feed(request(2, "textDocument/inlineCompletion", params))
            await asyncio.to_thread(filler.begun.acquire)
            assert filler.doubted == [], "while somebody waits nothing is read"
            filler.held.set()
            await wire.answer(2)
            assert (await wire.answer(1))["result"]["kind"] == "full"
            assert len(loads.specs) == 1

    asyncio.run(run())


def test_a_text_that_changed_meanwhile_is_asked_for_again():
    async def run():
        async with helped(FakeFiller(), PULLS, doubtLens=True) as (_, wire):
            wire.feed(did_open(TEXT), request(1, "textDocument/diagnostic", PULL))
            wire.feed(did_change(2, {"text": "x"}))
            assert (await wire.answer(1))["error"]["code"] == -32801

    asyncio.run(run())


@pytest.mark.parametrize(("edited", "code"), [(False, -32802), (True, -32801)])
def test_reading_that_was_stopped_tells_an_edit_from_other_work(edited, code, monkeypatch):
    async def run():
        async with helped(FakeFiller(), PULLS, doubtLens=True) as (_, wire):

            async def stopped(self, snapshot):
                if edited:
                    wire.feed(did_change(2, {"text": "x"}))
                    while self.desk.is_now(snapshot):
                        await asyncio.sleep(0.001)
                raise Superseded

            monkeypatch.setattr(lens.Lens, "_hints", stopped)
            wire.feed(did_open(TEXT), request(1, "textDocument/diagnostic", PULL))
            assert (await wire.answer(1))["error"]["code"] == code

    asyncio.run(run())
