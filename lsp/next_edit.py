"""Ripples as next edits: `textDocument/copilotInlineEdit`, which sidekick.nvim, copilot-lsp and copilot.el speak.

An answer's edits belong together. sidekick.nvim takes all of them at once; the other two show the first, and ask again
when it was taken: what is left of the ripple is found then. Edits are in order of their distance from the cursor.
No answer is an error, and none is null: copilot-lsp shows the one to the user and fails on the other.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from diffcode.errors import DiffcodeError
from diffcode.lsp.carry import Change, needs_model
from diffcode.lsp.desk import Desk
from diffcode.lsp.document import Snapshot
from diffcode.lsp.endpoint import RequestHandler
from diffcode.lsp.feature import Feature
from diffcode.lsp.messages import Params
from diffcode.lsp.params import find, position, uri
from diffcode.lsp.plans import follow_up
from diffcode.lsp.wishes import Wish
from diffcode.lsp.workshop import Workshop

ACCEPTED = {"title": "diffcode: next edit", "command": "diffcode.accepted", "arguments": []}


class NextEdit(Feature):
    """No capability announces it: who speaks the dialect asks."""

    def __init__(self, desk: Desk, workshop: Workshop) -> None:
        self.desk, self.workshop = desk, workshop

    def requests(self) -> Mapping[str, RequestHandler]:
        return {"textDocument/copilotInlineEdit": self._next}

    async def _next(self, params: Params) -> dict[str, Any]:
        where, version = position(params), find(params, "textDocument.version")
        snapshot = self.desk.look(uri(params))
        stale = snapshot is not None and type(version) is int and version != snapshot.version
        if snapshot is None or stale or not self.server.settings.next_edit:
            return {"edits": []}
        cursor = snapshot.text.offset(where)
        changes = sorted(await self._changes(snapshot), key=lambda change: abs(change.hole.start - cursor))
        return {"edits": [_edit(snapshot, change) for change in changes]}

    async def _changes(self, snapshot: Snapshot) -> tuple[Change, ...]:
        """Of the first ripple that comes to something: what is surely meant, and nothing else."""
        for number, ripple in enumerate(await self.workshop.following.ripples(snapshot)):
            plan = follow_up(ripple, unsure=False)
            if plan is None:
                continue
            if needs_model(plan):
                await asyncio.sleep(self.desk.pace.delay())
            if not self.desk.is_now(snapshot):
                return ()
            try:
                changes = await self.workshop.unasked(Wish("ripple", snapshot, ripple=number), plan)
            except DiffcodeError:  # there is no model: the status says so
                continue
            if changes:
                return changes
        return ()


def _edit(snapshot: Snapshot, change: Change) -> dict[str, Any]:
    return {
        "text": change.text,
        "range": snapshot.text.range(change.hole.start, change.hole.end).json(),
        "textDocument": {"uri": snapshot.uri, "version": snapshot.version},
        "command": ACCEPTED,
    }
