"""Code actions, and commands for editors that know nothing better: fill, rewrite, vary, repair, follow up."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from diffcode.lsp.ahead import Ahead
from diffcode.lsp.carry import needs_model
from diffcode.lsp.client import Client
from diffcode.lsp.desk import Desk
from diffcode.lsp.document import Document, Snapshot
from diffcode.lsp.endpoint import RequestHandler
from diffcode.lsp.feature import CommandHandler, Feature
from diffcode.lsp.messages import BadParams, Params, RequestError
from diffcode.lsp.messages import Code as ErrorCode
from diffcode.lsp.params import find, integer, objects, range_, uri
from diffcode.lsp.plans import KINDS, Kind
from diffcode.lsp.text import BadPosition
from diffcode.lsp.wishes import Wish, of_argument, of_data, uri_in
from diffcode.lsp.workshop import Workshop

STRENGTHS = (0.15, 0.3, 0.6)  # the middle one is the setting's where that is another
LLM_GENERATED = 1  # CodeActionTag
INVOKED = 1  # CodeActionTriggerKind: a menu was opened; else the editor asks because the cursor moved
COMMANDS: tuple[Kind, ...] = ("fill", "rewrite", "vary", "repair", "ripple")


class Actions(Feature):
    """Offers at once, without a model; what is chosen is made when the editor resolves it."""

    def __init__(self, desk: Desk, workshop: Workshop, ahead: Ahead) -> None:
        self.desk, self.workshop, self.ahead = desk, workshop, ahead
        self._lazy = self._literal = False
        self._seeds = 0

    def capabilities(self, client: Client) -> dict[str, Any]:
        self._literal = client.supports("textDocument.codeAction.codeActionLiteralSupport")
        resolves = client.lists("textDocument.codeAction.resolveSupport.properties", "edit")
        self._lazy = resolves and client.supports("textDocument.codeAction.dataSupport")
        kinds = list(dict.fromkeys(KINDS.values()))
        options = {"codeActionKinds": kinds, "resolveProvider": self._lazy}
        return {"codeActionProvider": options if self._literal else True}

    def requests(self) -> Mapping[str, RequestHandler]:
        return {"textDocument/codeAction": self._list, "codeAction/resolve": self._resolve}

    def commands(self) -> Mapping[str, CommandHandler]:
        return {f"diffcode.{kind}": self._command(kind) for kind in COMMANDS}

    def closed(self, document: Document) -> None:
        self.workshop.following.forget(document.uri)

    # ---- offers

    async def _list(self, params: Params) -> list[dict[str, Any]]:
        where = range_(params)
        snapshot = self.desk.look(uri(params))
        if snapshot is None:
            return []
        start, end = snapshot.text.span(where)
        if start == end and find(params, "context.triggerKind") != INVOKED:
            self.ahead.cursor_at(snapshot, start)
        if not self.server.settings.code_actions:
            return []
        reported = _overlapping(params, snapshot)
        only = find(params, "context.only")
        wanted = [kind for kind in KINDS if _within(KINDS[kind], only)]
        offers = []
        filled = False
        for wish in self._wishes(snapshot, start, end, reported):
            offer = await self._offer(wish, reported) if wish.kind in wanted else None
            if offer is not None and not (wish.kind == "repair" and filled):  # to the grammar `???` is an error
                filled |= wish.kind == "fill"
                offers.append(offer)
        if "ripple" in wanted and self.server.settings.next_edit:
            for number, _ in enumerate(await self.workshop.following.ripples(snapshot)):
                if offer := await self._offer(Wish("ripple", snapshot, ripple=number), []):
                    offers.append(offer)
        return offers

    def _wishes(self, snapshot: Snapshot, start: int, end: int, reported: list[dict[str, Any]]) -> Iterator[Wish]:
        yield Wish("fill", snapshot, start, end)
        yield Wish("fillAll", snapshot, start, end)
        spans = [snapshot.text.span(range_(diagnostic)) for diagnostic in reported] or [(start, end)]
        smallest = min(spans, key=lambda span: span[1] - span[0])
        yield Wish("repair", snapshot, *smallest, reported=bool(reported))
        if start < end:
            self._seeds += 1  # asked again, vary gives something else
            yield Wish("rewrite", snapshot, start, end)
            low, _, high = STRENGTHS
            for strength in sorted({low, self.server.settings.strength, high}):
                yield Wish("vary", snapshot, start, end, strength, self._seeds * 10)

    async def _offer(self, wish: Wish, reported: list[dict[str, Any]]) -> dict[str, Any] | None:
        plan = await self.workshop.plan(wish)
        if plan is None or (wish.kind == "fillAll" and len(plan.attempts[0].places) < 2):
            return None
        name = "fill" if wish.kind == "fillAll" else wish.kind
        arguments = wish.arguments()
        if wish.kind == "fillAll":
            del arguments[0]["range"]
        command = {"title": plan.title, "command": f"diffcode.{name}", "arguments": arguments}
        if not self._literal:
            return command
        offer: dict[str, Any] = {"title": plan.title, "kind": KINDS[wish.kind]}
        if wish.kind == "repair" and reported:
            offer["diagnostics"] = reported
        if self.server.client.lists("textDocument.codeAction.tagSupport.valueSet", LLM_GENERATED) and needs_model(plan):
            offer["tags"] = [LLM_GENERATED]
        return offer | ({"data": wish.data()} if self._lazy else {"command": command})

    async def _resolve(self, action: Params) -> dict[str, Any]:
        data = find(action, "data")
        if not isinstance(data, dict):
            raise BadParams("data is missing")
        snapshot = self._current(data)
        _, edit = await self.workshop.edit(of_data(data, snapshot))
        return action | {"edit": edit}

    def _current(self, data: Params) -> Snapshot:
        """The document, which must be at the version that is named, if one is."""
        snapshot = self.desk.wanted(uri_in(data))
        if data.get("version") is not None and integer(data, "version") != snapshot.version:
            raise RequestError(ErrorCode.CONTENT_MODIFIED, "the document has changed since: ask again")
        return snapshot

    # ---- commands

    def _command(self, kind: Kind) -> Callable[[list[Any]], Awaitable[Any]]:
        async def run(arguments: list[Any]) -> dict[str, Any]:
            argument = arguments[0] if arguments else None
            if isinstance(argument, str):  # a bare URI, as scripts like it
                argument = {"uri": argument}
            if not isinstance(argument, dict):
                raise BadParams(f"diffcode.{kind} takes one object: uri, and range or position")
            wish = of_argument(kind, argument, self._current(argument))
            title, edit = await self.workshop.edit(wish)
            answer = await self.server.endpoint.ask("workspace/applyEdit", {"label": title, "edit": edit})
            applied = find(answer, "applied") is True
            reason = find(answer, "failureReason")
            return {"applied": applied} | ({} if applied or reason is None else {"failureReason": reason})

        return run


def _overlapping(params: Params, snapshot: Snapshot) -> list[dict[str, Any]]:
    """The diagnostics that were sent along and whose places exist."""
    found = []
    for diagnostic in objects(params, "context.diagnostics") if find(params, "context.diagnostics") else []:
        try:
            snapshot.text.span(range_(diagnostic))
        except (BadPosition, BadParams):
            continue
        if find(diagnostic, "source") != "diffcode":
            found.append(diagnostic)
    return found


def _within(kind: str, only: Any) -> bool:
    """Whether a kind is among those asked for: refactor.rewrite is a refactor."""
    if not isinstance(only, list) or not only:
        return True
    return any(isinstance(wanted, str) and (wanted == "" or f"{kind}.".startswith(f"{wanted}.")) for wanted in only)
