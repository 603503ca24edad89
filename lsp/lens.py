"""The doubt lens: tokens that the model holds to be unlikely, as hints. Off by default; works when nothing else does.

What the model says of a token rests on all that stands before it and on what stands behind its region. Regions that
have not changed, nor anything near them, are not read again.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from diffcode.errors import DiffcodeError
from diffcode.holes import Hole
from diffcode.interrupt import Stop
from diffcode.lsp.client import Client
from diffcode.lsp.desk import Desk
from diffcode.lsp.document import Document, Snapshot
from diffcode.lsp.endpoint import NoAnswer, RequestHandler
from diffcode.lsp.feature import Feature
from diffcode.lsp.filler import Expected, Filler
from diffcode.lsp.messages import Code as ErrorCode
from diffcode.lsp.messages import Params, RequestError
from diffcode.lsp.params import find, uri
from diffcode.lsp.session import Rank, Superseded
from diffcode.lsp.settings import Settings

METHOD = "textDocument/diagnostic"
REST_SECONDS = 0.8  # without a key, before anything is read
REGION = 20  # lines that are read at once
REACH = 120  # lines on each side of the last edit that are looked at
NEAR = 2000  # characters round a region that its doubts are taken to rest on
KEPT = 200  # regions
HINT = 4  # DiagnosticSeverity


class Lens(Feature):
    """Answers who asks (pull), and tells the others (push)."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._pulled = False  # the editor asks
        self._known: OrderedDict[tuple[str, str, str], tuple[Expected, ...]] = OrderedDict()
        self._pushing: dict[str, asyncio.Task[None]] = {}

    def capabilities(self, client: Client) -> dict[str, Any]:
        self._pulled = self.server.settings.doubt_lens and client.supports(METHOD.replace("/", "."))
        options = {"identifier": "diffcode", "interFileDependencies": False, "workspaceDiagnostics": False}
        return {"diagnosticProvider": options} if self._pulled else {}

    def requests(self) -> Mapping[str, RequestHandler]:
        return {METHOD: self._pull}

    def opened(self, document: Document) -> None:
        self._push(document)

    def changed(self, document: Document) -> None:
        self._push(document)

    def closed(self, document: Document) -> None:
        if (task := self._pushing.pop(document.uri, None)) is not None:
            task.cancel()
            self._tell(document.uri, None, [])

    def settings_changed(self, old: Settings, new: Settings) -> None:
        if (old.doubt_lens, old.doubt_below) == (new.doubt_lens, new.doubt_below):
            return
        if self._pulled and self.server.client.supports("workspace.diagnostics.refreshSupport"):
            self.server.endpoint.spawn(self._refresh())
        for document in self.server.documents:
            self._push(document)
            if not new.doubt_lens and not self._pulled:
                self._tell(document.uri, document.version, [])

    # ---- pull

    async def _pull(self, params: Params) -> dict[str, Any]:
        snapshot = self.desk.look(uri(params))
        if snapshot is None or not self.server.settings.doubt_lens:
            return {"kind": "full", "items": []}
        mark = f"{snapshot.version}"
        if find(params, "previousResultId") == mark:
            return {"kind": "unchanged", "resultId": mark}
        try:
            items = await self._hints(snapshot)
        except Superseded:
            if self.desk.is_now(snapshot):
                raise RequestError(ErrorCode.SERVER_CANCELLED, "something else came first") from None
        if not self.desk.is_now(snapshot):
            raise RequestError(ErrorCode.CONTENT_MODIFIED, "the document has changed meanwhile")
        return {"kind": "full", "resultId": mark, "items": items}

    async def _refresh(self) -> None:
        with suppress(RequestError, NoAnswer):
            await self.server.endpoint.ask("workspace/diagnostic/refresh", None)

    # ---- push

    def _push(self, document: Document) -> None:
        if (task := self._pushing.pop(document.uri, None)) is not None:
            task.cancel()
        if self.server.settings.doubt_lens and not self._pulled and not document.lost:
            self._pushing[document.uri] = self.server.endpoint.spawn(self._pushed(document.uri))

    async def _pushed(self, uri: str) -> None:
        snapshot = self.desk.look(uri)
        if snapshot is None:
            return
        try:
            items = await self._hints(snapshot)
        except (Superseded, DiffcodeError):
            return  # the next change tries again
        if self.desk.is_now(snapshot):
            self._tell(uri, snapshot.version, items)

    def _tell(self, uri: str, version: int | None, items: list[dict[str, Any]]) -> None:
        more = {} if version is None else {"version": version}
        self.server.endpoint.notify("textDocument/publishDiagnostics", {"uri": uri, **more, "diagnostics": items})

    # ---- both

    async def _hints(self, snapshot: Snapshot) -> list[dict[str, Any]]:
        """Raises Superseded, and what makes the model unavailable."""
        while (rest := REST_SECONDS - self.desk.pace.since_key) > 0:
            await asyncio.sleep(rest)
        text, found = str(snapshot), list[dict[str, Any]]()
        for region in self._regions(snapshot):
            for expected in await self._read(snapshot.uri, text, region):
                if hint := self._hint(snapshot, text, expected, region.start):
                    found.append(hint)
        return found

    def _regions(self, snapshot: Snapshot) -> Iterator[Hole]:
        """Whole lines round the last edit; they begin at multiples, so that one edit moves few of them."""
        trail = self.desk.trails.get(snapshot.uri)
        middle = snapshot.text.position(trail.cursor).line if trail is not None else 0
        first = max(0, middle - REACH) // REGION * REGION
        for line in range(first, min(snapshot.text.lines, middle + REACH), REGION):
            last = min(line + REGION, snapshot.text.lines) - 1
            start, end = snapshot.text.line_start(line), snapshot.text.line_end(last)
            if snapshot.text.slice(start, end).strip():
                yield Hole(start, end)

    async def _read(self, uri: str, text: str, region: Hole) -> tuple[Expected, ...]:
        """Places count from the region's start."""
        start, end = region.start, region.end
        key = (text[max(0, start - NEAR) : start], text[start:end], text[end : end + NEAR])
        if key not in self._known:

            def work(filler: Filler, stop: Stop) -> tuple[Expected, ...]:
                return filler.doubts(text, start, end, stop)

            found = await self.desk.work(work, Rank.IDLE, ("doubt", uri))
            self._known[key] = tuple(one.moved(-start) for one in found)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]

    def _hint(self, snapshot: Snapshot, text: str, expected: Expected, shift: int) -> dict[str, Any] | None:
        doubt = expected.moved(shift).doubt
        if doubt.probability >= self.server.settings.doubt_below or not text[doubt.start : doubt.end].strip():
            return None
        instead = expected.instead.strip()
        what = f"the model expects `{instead}` here" if instead else "the model expects something else here"
        return {
            "range": snapshot.text.range(doubt.start, doubt.end).json(),
            "severity": HINT,
            "source": "diffcode",
            "code": "doubt",
            "message": f"Unlikely (at most {doubt.probability:.1%}): {what}",
        }
