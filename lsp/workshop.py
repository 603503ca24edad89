"""Wishes made true: a plan, the model with progress and a live preview, one edit. For actions, commands, ripples."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from diffcode.interrupt import Stop
from diffcode.lsp.carry import Change, NothingFound, Subject, carry_out, needs_model, preview
from diffcode.lsp.desk import Desk
from diffcode.lsp.edits import annotates, workspace_edit
from diffcode.lsp.filler import Filler
from diffcode.lsp.following import Following
from diffcode.lsp.gates import GateOptions
from diffcode.lsp.messages import Code as ErrorCode
from diffcode.lsp.messages import RequestError
from diffcode.lsp.plans import Plan
from diffcode.lsp.progress import Progress, command_token
from diffcode.lsp.session import Rank, Superseded
from diffcode.lsp.spot import Spot
from diffcode.lsp.wishes import Wish, plan_of

if TYPE_CHECKING:
    from diffcode.denoise import Frame


class Workshop:
    """One connection's."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.following = Following(desk)

    async def plan(self, wish: Wish) -> Plan | None:
        """How a wish is to be made true, as far as that can be said without the model."""
        found = await self.following.ripples(wish.snapshot) if wish.kind == "ripple" else ()
        unsure = annotates(self.desk.server.client)
        return plan_of(wish, self.desk.server.settings, self.desk.code(wish.snapshot), found, unsure=unsure)

    async def edit(self, wish: Wish) -> tuple[str, dict[str, Any]]:
        """(title, WorkspaceEdit) for the snapshot, which must still be the document. Raises RequestError, and what
        makes the model unavailable."""
        self.desk.check_now(wish.snapshot)
        plan = await self.plan(wish)
        if plan is None:
            raise RequestError(ErrorCode.REQUEST_FAILED, f"{wish.kind}: there is nothing to do here")
        progress = self.desk.server.progress.start(f"diffcode: {plan.title}", command_token.get(), cancellable=True)
        try:
            changes = await self._changes(wish, plan, Rank.COMMAND, progress)
        except Superseded:
            raise RequestError(ErrorCode.REQUEST_FAILED, f"{plan.title} was stopped") from None
        finally:
            progress.end()
        self.desk.check_now(wish.snapshot)
        return plan.title, workspace_edit(self.desk.server.client, wish.snapshot, changes, plan.title)

    async def unasked(self, wish: Wish, plan: Plan) -> tuple[Change, ...]:
        """The changes, without a word to the user; none where the document or something newer got in the way."""
        try:
            changes = await self._changes(wish, plan, Rank.AUTOMATIC, None)
        except (Superseded, NothingFound):
            return ()
        return changes if self.desk.is_now(wish.snapshot) else ()

    async def _changes(self, wish: Wish, plan: Plan, rank: Rank, progress: Progress | None) -> tuple[Change, ...]:
        s, code = self.desk.server.settings, self.desk.code(wish.snapshot)
        gates = GateOptions(s.max_file_size, least_confidence=s.least_confidence)
        subject = Subject(str(wish.snapshot), code, self.desk.options(plan.max_tokens), gates)
        if not needs_model(plan):
            return carry_out(plan, subject, None, Stop())
        on_step = self._on_step(plan, progress)
        if progress is not None:
            _cancel_with(progress)

        def work(filler: Filler, stop: Stop) -> tuple[Change, ...]:
            better = self._doubted(wish, subject, filler, stop) if plan.kind == "repair" else None
            return carry_out(better or plan, subject, filler, stop, on_step)

        key = None if rank is Rank.COMMAND else (plan.kind, wish.snapshot.uri)
        return await self.desk.work(work, rank, key)

    def _doubted(self, wish: Wish, subject: Subject, filler: Filler, stop: Stop) -> Plan | None:
        """The plan of a repair, once the model has said which tokens it holds to be unlikely."""
        first, last = Spot(subject.text, wish.start).line[0], Spot(subject.text, wish.end).line[1]
        found = filler.doubts(subject.text, first, last, stop)
        settings = self.desk.server.settings
        return plan_of(wish, settings, subject.code, doubts=[expected.doubt for expected in found])

    def _on_step(self, plan: Plan, progress: Progress | None) -> "Callable[[Frame], None] | None":
        if progress is None:
            return None
        holes = sum(place.text is None for place in plan.attempts[0].places)
        live = self.desk.server.settings.live_preview

        def on_step(frame: "Frame") -> None:
            words = f"hole {frame.hole + 1} of {holes}" if holes > 1 else ""
            if live and (seen := preview(frame.text)):
                words = f"{words}: {seen}" if words else seen
            self.desk.server.from_thread(progress.report, words or None)

        return on_step


def _cancel_with(progress: Progress) -> None:
    """The user's wish to stop, at the progress message, ends the request."""
    task = asyncio.current_task()

    def cancel() -> None:
        if task is not None:
            task.cancel()

    progress.on_cancel = cancel
