"""Asking for code actions, and what choosing one gives."""

import asyncio

from lsp_fake import FakeFiller, applied, ask, helped, span
from lsp_kit import URI, did_open

from diffcode.lsp.filler import Task

TEXT = '''import math


def area(r):
    """Area of a circle."""
    ...


def volume(r, h):
    return area(r) * ???


def total(shapes):
    result = 0
    for shape in shapes:
        result += area(shape)
    return result
'''


def action_params(text: str, start: int, end: int, encoding: str = "utf-16", **context) -> dict:
    return {
        "textDocument": {"uri": URI},
        "range": span(text, start, end, encoding),
        "context": {"diagnostics": [], **context},
    }


async def offers(wire, id_, text: str, start: int, end: int, encoding: str = "utf-16", **context) -> list[dict]:
    return await ask(wire, id_, "textDocument/codeAction", action_params(text, start, end, encoding, **context))


def edits_of(edit: dict, version: int = 1) -> list[dict]:
    """The one versioned TextDocumentEdit's."""
    (document,) = edit["documentChanges"]
    assert document["textDocument"] == {"uri": URI, "version": version}
    assert {e["annotationId"] for e in document["edits"]} <= set(edit["changeAnnotations"])
    return document["edits"]


def after(
    text: str, start: int, end: int, title: str, filler: FakeFiller, encoding: str = "utf-16", *,
    language: str = "python", **context,
) -> str:  # fmt: skip
    """The text when the action whose title begins so was chosen and applied."""

    async def run():
        async with helped(filler, encoding=encoding) as (_, wire):
            opened = did_open(text)
            opened["params"]["textDocument"]["languageId"] = language
            wire.feed(opened)
            found = await offers(wire, 1, text, start, end, encoding, **context)
            chosen = next(action for action in found if action["title"].startswith(title))
            assert "edit" not in chosen
            assert filler.tasks == [], "nothing is made before it is chosen"
            edit = (await ask(wire, 2, "codeAction/resolve", chosen))["edit"]
            return applied(text, edits_of(edit), encoding)

    return asyncio.run(run())


def bodies(task: Task) -> list[str]:
    """An answer for every hole of TEXT, by what stands round it."""
    found = {"circle": "return math.pi * r**2", "* ": "h"}
    heads = [task.text[: hole.start] for hole in task.holes]
    return [next(new for key, new in found.items() if key in head[-34:]) for head in heads]


FILLED = TEXT.replace("    ...", "    return math.pi * r**2").replace("???", "h")
