"""Suggestions in the list of completions, for editors that know no other place."""

import asyncio

import pytest
from lsp_asks import CURSOR, TEXT
from lsp_fake import ALL, FakeFiller, applied, ask, helped, place
from lsp_kit import URI, did_open


def listed(text: str, cursor: int, new: str, capabilities: dict | None = None, **settings):
    async def run():
        async with helped(FakeFiller(new), capabilities or {}, **settings) as (_, wire):
            known = (await wire.answer("init"))["result"]["capabilities"]
            wire.feed(did_open(text))
            params = {"textDocument": {"uri": URI}, "position": place(text, cursor), "context": {"triggerKind": 1}}
            return known, await ask(wire, 1, "textDocument/completion", params)

    return asyncio.run(run())


def test_editors_without_inline_completion_get_an_item_in_the_list():
    text = TEXT.replace("return ", "return math.p")
    cursor = text.index("math.p") + 6
    known, result = listed(text, cursor, "i * r ** 2")
    assert "completionProvider" in known
    assert "inlineCompletionProvider" not in known
    assert result["isIncomplete"] is True
    (item,) = result["items"]
    assert item["filterText"].startswith("p"), "what stands in the range must be a prefix, or editors drop it"
    assert item["label"] == "pi * r ** 2"
    assert applied(text, [item["textEdit"]]) == text.replace("math.p", "math.pi * r ** 2")
    assert "insertTextMode" not in item


def test_several_lines_in_the_list_keep_their_indentation():
    modes = {"insertTextModeSupport": {"valueSet": [1, 2]}}
    text = "def f(x):"
    _, result = listed(text, 9, "\n    return x", {"textDocument": {"completion": {"completionItem": modes}}})
    (item,) = result["items"]
    assert (item["insertTextMode"], item["label"]) == (1, "return x")
    assert applied(text, [item["textEdit"]]) == "def f(x):\n    return x"


@pytest.mark.parametrize(
    ("capabilities", "setting", "provided"),
    [(ALL, "auto", False), (ALL, "on", True), ({}, "off", False), ({}, "auto", True)],
)
def test_the_list_is_a_fallback(capabilities, setting, provided):
    known, result = listed(TEXT, CURSOR, "r * r", capabilities, completion=setting)
    assert ("completionProvider" in known) == provided
    assert bool(result) == provided
