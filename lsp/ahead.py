"""Reading what the model will be asked about, while nobody waits: a context that is new takes longer than a fill."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from diffcode.errors import DiffcodeError
from diffcode.holes import Hole
from diffcode.lsp.desk import Desk
from diffcode.lsp.document import Document, Snapshot
from diffcode.lsp.endpoint import NotificationHandler
from diffcode.lsp.feature import Feature
from diffcode.lsp.filler import Task
from diffcode.lsp.messages import Params
from diffcode.lsp.params import position, uri
from diffcode.lsp.session import Rank, Superseded

REST = 0.2  # seconds; a cursor that moves on sooner is on its way somewhere
# Seconds since the last key: who typed so lately will type again, and has a use for suggestions that have seen more.
# For who only reads, a second of both cores wherever the cursor rests is too much.
EDITING = 60.0


class _Where(NamedTuple):
    """Within a line a suggestion needs nearly the same."""

    uri: str
    version: int
    line: int


class Ahead(Feature):
    """One reading at a time, of the newest place that anybody looked at."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._reading: tuple[_Where, asyncio.Task[None]] | None = None

    def notifications(self) -> Mapping[str, NotificationHandler]:
        return {"diffcode/cursor": self._told}

    def _told(self, params: Params) -> None:
        """A client of ours says where the cursor is."""
        where, snapshot = position(params), self.desk.look(uri(params))
        if snapshot is not None:
            self.cursor_at(snapshot, snapshot.text.offset(where))

    def closed(self, document: Document) -> None:
        """Read it no further: the next one has a use for the processor."""
        if self._reading is not None and self._reading[0].uri == document.uri:
            self._reading[1].cancel()

    def finish(self, snapshot: Snapshot, task: Task) -> None:
        """All that the window shows, which there was no time for when a suggestion was asked for."""
        self._read(snapshot, task, least=False)

    def cursor_at(self, snapshot: Snapshot, cursor: int) -> None:
        """What a suggestion there needs at least: the first one in a file then comes as soon as the later ones. Clients
        of ours tell where the cursor is, others by asking for code actions there."""
        task = Task(str(snapshot), (Hole(cursor, cursor),))
        known = self._reading is not None and self._reading[0] == _where(snapshot, task)
        if not known and self.desk.session.loaded and self.server.settings.inline_completion:
            self._read(snapshot, task, least=True)

    def _read(self, snapshot: Snapshot, task: Task, least: bool) -> None:
        if not self.server.settings.prefetch or self.server.documents.get(snapshot.uri) is None:
            return
        if self._reading is not None:
            self._reading[1].cancel()
        self._reading = _where(snapshot, task), self.server.endpoint.spawn(self._work(snapshot, task, least))

    async def _work(self, snapshot: Snapshot, task: Task, least: bool) -> None:
        with suppress(Superseded, DiffcodeError):
            if least:
                await asyncio.sleep(REST)
                if not self.desk.is_now(snapshot):
                    return
                await self.desk.work(lambda filler, stop: filler.read(task, stop, True), Rank.IDLE)
                self.desk.counts.read += 1
            if not least or self.desk.pace.since_key < EDITING:
                await self.desk.work(lambda filler, stop: filler.read(task, stop, False), Rank.IDLE)


def _where(snapshot: Snapshot, task: Task) -> _Where:
    return _Where(snapshot.uri, snapshot.version, task.text.count("\n", 0, task.holes[0].start))
