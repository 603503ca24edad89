"""Suggestions in the protocol's words: `textDocument/inlineCompletion`, and for other editors an item in the list."""

import re
from collections.abc import Mapping
from typing import Any

from diffcode.canvas import normalise
from diffcode.lsp.ahead import Ahead
from diffcode.lsp.client import Client
from diffcode.lsp.desk import Desk, options_of
from diffcode.lsp.document import Document, Snapshot
from diffcode.lsp.endpoint import RequestHandler
from diffcode.lsp.feature import Feature
from diffcode.lsp.gates import Trigger
from diffcode.lsp.messages import Params
from diffcode.lsp.params import find, position, range_, string, uri
from diffcode.lsp.settings import Settings
from diffcode.lsp.suggester import Ask, Offer, Selected, Suggester
from diffcode.lsp.tidy import Style

WORD = re.compile(r"\w*$")
PAUSED = 0.3  # seconds without a key: a list of completions that is asked for then was asked for by hand
TEXT, AS_IS = 1, 1  # CompletionItemKind, InsertTextMode
LABEL = 60  # characters


class Suggest(Feature):
    """Answers from the connection's Suggester, which the desk's other features may share."""

    def __init__(self, desk: Desk, ahead: Ahead) -> None:
        self.desk = desk
        self.suggester = Suggester(desk, ahead)
        self._inline = False  # whether the editor has inline completion
        self._zero_based: bool | None = None  # whether its trigger kinds begin with 0; None: not known yet

    def capabilities(self, client: Client) -> dict[str, Any]:
        self._inline = client.supports("textDocument.inlineCompletion")
        self._zero_based = None
        given: dict[str, Any] = {"inlineCompletionProvider": True} if self._inline else {}
        setting = self.server.settings.completion
        if setting == "on" or (setting == "auto" and not self._inline):
            given["completionProvider"] = {"triggerCharacters": [".", "(", "[", "="]}
        return given

    def requests(self) -> Mapping[str, RequestHandler]:
        return {"textDocument/inlineCompletion": self._inline_completion, "textDocument/completion": self._completion}

    def changed(self, document: Document) -> None:
        taken = None if document.lost else self.suggester.memory.accepted(document.uri, str(document.text))
        if taken is not None and self._ends_there(document, len(taken.place.head) + len(taken.text)):
            self.desk.counts.accepted += 1
            self.server.endpoint.spawn(self.suggester.taken(taken, document.snapshot()))

    def _ends_there(self, document: Document, end: int) -> bool:
        """Whether the last edit reached the suggestion's end: undoing another edit gives the same text, and takes
        nothing."""
        trail = self.desk.trails.get(document.uri)
        last = trail.recent[-1] if trail is not None and trail.recent else None
        return last is not None and last.start <= end <= last.start + len(last.inserted)

    def closed(self, document: Document) -> None:
        self.suggester.memory.forget(document.uri)

    def settings_changed(self, old: Settings, new: Settings) -> None:
        self.suggester.memory.forget()

    # ---- inline

    async def _inline_completion(self, params: Params) -> dict[str, Any]:
        where = position(params)
        trigger = self._trigger(find(params, "context.triggerKind"))
        snapshot = self.desk.look(uri(params))
        version = find(params, "textDocument.version")  # of Copilot's dialect
        stale = snapshot is not None and type(version) is int and version != snapshot.version
        if snapshot is None or stale or not self.server.settings.inline_completion:
            return {"items": []}
        cursor = snapshot.text.offset(where)
        picked = find(params, "context.selectedCompletionInfo")
        selected = _selected(picked, snapshot, cursor) if isinstance(picked, dict) else None
        if picked is not None and selected is None:
            return {"items": []}
        ask = Ask(snapshot, cursor, trigger, selected, _style(params))
        offer = await self.suggester.suggest(ask)
        return {"items": [] if offer is None else [_item(offer)]}

    def _trigger(self, kind: Any) -> Trigger:
        """Invoked and Automatic were 0 and 1 until languageserver-types 3.17.5, since then they are 1 and 2."""
        if kind in (0, 2):
            self._zero_based = kind == 0
        if kind == 1:
            return "automatic" if self._counts_from_zero() else "invoked"
        return "invoked" if kind == 0 else "automatic"

    def _counts_from_zero(self) -> bool:
        """What was seen so far says it; before that, VS Code's client 9 does, which lacks what its client 10 can."""
        if self._zero_based is not None:
            return self._zero_based
        client = self.server.client
        newer = client.supports("textDocument.codeAction.tagSupport") or client.supports(
            "workspace.textDocumentContent"
        )
        return client.name.startswith("Visual Studio Code") and not newer

    # ---- in the list

    async def _completion(self, params: Params) -> dict[str, Any] | None:
        where, setting = position(params), self.server.settings.completion
        snapshot = self.desk.look(uri(params))
        if snapshot is None or setting == "off" or (setting == "auto" and self._inline):
            return None
        cursor = snapshot.text.offset(where)
        by_hand = find(params, "context.triggerKind") == 1 and self.desk.pace.since_key > PAUSED
        offer = await self.suggester.suggest(Ask(snapshot, cursor, "invoked" if by_hand else "automatic"))
        item = None if offer is None else _list_item(offer, self._keeps_indentation())
        return {"isIncomplete": True, "items": [] if item is None else [item]}

    def _keeps_indentation(self) -> bool:
        return self.server.client.lists("textDocument.completion.completionItem.insertTextModeSupport.valueSet", AS_IS)


def _selected(picked: dict[str, Any], snapshot: Snapshot, cursor: int) -> Selected | None:
    """The picked item, if it stands left of the cursor on its line."""
    where, text = range_(picked), string(picked, "text")
    start, end = snapshot.text.span(where)
    on_line = where.start.line == snapshot.text.position(cursor).line
    return Selected(start, text) if on_line and start <= cursor == end and "\n" not in normalise(text) else None


def _style(params: Params) -> Style | None:
    options = options_of(params)
    return None if options is None else Style(not options[1], options[0])


def _item(offer: Offer) -> dict[str, Any]:
    """With a range, always: without one Neovim 0.12.0 fails."""
    return {"insertText": offer.text, "range": offer.snapshot.text.range(offer.start, offer.end).json()}


def _list_item(offer: Offer, as_is: bool) -> dict[str, Any] | None:
    """An item that replaces the word before the cursor as well, so that editors compare it with what is typed."""
    snapshot = offer.snapshot
    line = snapshot.text.line_start(snapshot.text.position(offer.start).line)
    word = WORD.search(snapshot.text.slice(line, offer.start))
    typed = word[0] if word else ""
    new = typed + offer.text
    first = normalise(new).split("\n", 1)[0].strip()
    label = first or next((text.strip() for text in normalise(new).split("\n") if text.strip()), "")
    item = {
        "label": label[:LABEL],
        "kind": TEXT,
        "detail": "diffcode",
        "documentation": {"kind": "plaintext", "value": new},
        "sortText": "\uffff",  # behind what is known to exist
        "filterText": first or typed or label,
        "insertTextFormat": 1,
        "textEdit": {"range": snapshot.text.range(offer.start - len(typed), offer.end).json(), "newText": new},
    }
    return item | ({"insertTextMode": AS_IS} if as_is else {}) if label else None
