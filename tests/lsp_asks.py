"""Asking for a suggestion, and what accepting it gives."""

import asyncio

from lsp_fake import FakeFiller, applied, ask, helped, place, span
from lsp_kit import URI, did_change, did_open

TEXT = "import math\n\n\ndef area(r):\n    return \n\n\nprint(area(2))\n"
CURSOR = TEXT.index("return ") + len("return ")


def inline(text: str, cursor: int, kind: int = 2, encoding: str = "utf-16", **context) -> dict:
    position = place(text, cursor, encoding)
    return {"textDocument": {"uri": URI}, "position": position, "context": {"triggerKind": kind, **context}}


async def items(wire, id_, text: str, cursor: int, *given, **context) -> list[dict]:
    result = await ask(wire, id_, "textDocument/inlineCompletion", inline(text, cursor, *given, **context))
    return result["items"]


def typing(version: int, text: str, at: int, new: str, encoding: str = "utf-16") -> dict:
    return did_change(version, {"range": span(text, at, at, encoding), "text": new})


def shows(text: str, cursor: int, filler: FakeFiller | str, kind: int = 2, language: str = "python", **more):
    """The one item that is offered, None for silence; what accepting it gives."""
    filler = FakeFiller(filler) if isinstance(filler, str) else filler
    uri = more.pop("uri", URI)

    async def run():
        encoding = more.pop("encoding", "utf-16")
        async with helped(filler, more.pop("capabilities", None), encoding, **more.pop("settings", {})) as (_, wire):
            opened = did_open(text, uri=uri)
            opened["params"]["textDocument"]["languageId"] = language
            wire.feed(opened)
            params = inline(text, cursor, kind, encoding, **more) | {"textDocument": {"uri": uri}}
            found = (await ask(wire, 1, "textDocument/inlineCompletion", params))["items"]
            assert len(found) <= 1
            if not found:
                return None
            (item,) = found
            ends = [item["range"][side] for side in ("start", "end")]
            assert ends[0]["line"] == ends[1]["line"]
            return item["insertText"], applied(text, [item], encoding)

    return asyncio.run(run())
