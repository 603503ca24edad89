"""A suggestion at the cursor: from memory where the user types along, else from the model; gates before and behind."""

import asyncio
import itertools
import time
from contextlib import suppress
from dataclasses import dataclass, replace

from diffcode.canvas import line_end_of, normalise
from diffcode.config import RETRIES
from diffcode.errors import DiffcodeError
from diffcode.holes import Hole
from diffcode.interrupt import Stop
from diffcode.lsp.ahead import Ahead
from diffcode.lsp.desk import Desk
from diffcode.lsp.document import Snapshot, typed
from diffcode.lsp.filler import Filler, Task, Written
from diffcode.lsp.gates import GateOptions, RecentEdit, Trigger, Verdict, worth_asking, worth_showing
from diffcode.lsp.memory import Memory, Place, Suggestion
from diffcode.lsp.session import Rank, Superseded
from diffcode.lsp.spot import CLOSING, Spot, indentation, opens_body
from diffcode.lsp.tidy import Style, style_of
from diffcode.syntax import Code

TYPICAL = Style(False, 4)
# Seconds that a suggestion may spend on reading more than it must: with as much again for the fill itself, what people
# wait for without a thought.
PATIENCE = 0.2


@dataclass(frozen=True, slots=True)
class Selected:
    """The item that is picked in the editor's list: it would replace characters [start, cursor)."""

    start: int
    text: str


@dataclass(frozen=True, slots=True)
class Ask:
    """A cursor that a suggestion is wanted at."""

    snapshot: Snapshot
    cursor: int
    trigger: Trigger = "automatic"
    selected: Selected | None = None
    style: Style | None = None  # the editor's word on indentation


@dataclass(frozen=True, slots=True)
class Offer:
    """Characters [start, end) of the snapshot, on one line, may give way to `text`."""

    snapshot: Snapshot
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class _Scene:
    """The text that a suggestion is for: what the editor shows, the picked item put in."""

    text: str
    cursor: int
    place: Place
    code: Code | None
    trigger: Trigger
    options: GateOptions

    @property
    def language(self) -> str | None:
        return self.code.language if self.code else None


class Suggester:
    """Suggestions for one connection; the newest ask about a document is the one that counts."""

    def __init__(self, desk: Desk, ahead: Ahead) -> None:
        self.desk, self.ahead = desk, ahead
        self.memory = Memory()
        self._numbers = itertools.count()
        self._newest: dict[str, int] = {}

    async def suggest(self, ask: Ask) -> Offer | None:
        """What to show, if anything. Silence is an answer: errors of the model are told by the status line."""
        uri = ask.snapshot.uri
        mine = self._newest[uri] = next(self._numbers)
        self.desk.counts.asked += 1
        self.desk.silence = None
        scene = self._scene(ask)
        known, recent = self.memory.find(scene.place), self._recent(uri)
        if known is not None and known.text and recent and recent[-1].inserted:
            return self._known(ask, scene, known)  # typing along: also within a string, which the gates would leave
        verdict = self._worth_asking(scene, uri)
        if not verdict.ok:
            self.desk.silence = verdict.reason
            return None
        if known is not None and (known.text or ask.trigger == "automatic"):
            return self._known(ask, scene, known)
        if ask.trigger == "automatic":
            await asyncio.sleep(self._delay())
            if self._newest[uri] != mine or not self.desk.is_now(ask.snapshot):
                return None
        try:
            verdict = await self._made(scene, ask.snapshot, self._many(verdict, scene))
        except (Superseded, DiffcodeError) as error:
            self.desk.silence = str(error)
            return None
        self.desk.silence = verdict.reason or None
        return self._still(ask, scene, verdict.text) if verdict.ok and self._newest[uri] == mine else None

    async def taken(self, suggestion: Suggestion, snapshot: Snapshot) -> None:
        """A suggestion was accepted: look for the next one, where the model had to stop or on a new line."""
        cursor, new = len(suggestion.place.head) + len(suggestion.text), ""
        if suggestion.ended:
            self.memory.keep(Suggestion(Place(snapshot.uri, str(snapshot)[:cursor], suggestion.place.tail), ""))
            new = _new_line(str(snapshot), cursor)
        if not self.desk.server.settings.prefetch or not self.desk.session.idle or (suggestion.ended and not new):
            return
        text = snapshot.text.replace(cursor, cursor, new)
        scene = self._scene(Ask(replace(snapshot, text=text), cursor + len(new)), whole=False)
        verdict = self._worth_asking(scene, snapshot.uri)
        if verdict.ok:
            with suppress(Superseded, DiffcodeError):
                await self._made(scene, snapshot, self._many(verdict, scene), Rank.IDLE)
                self.desk.counts.prefetched += 1

    # ---- what it is about

    def _scene(self, ask: Ask, whole: bool = True) -> _Scene:
        text, cursor = str(ask.snapshot), ask.cursor
        code = self.desk.code(ask.snapshot) if whole else None
        if ask.selected is not None:
            start, new = ask.selected.start, ask.selected.text
            text, code = text[:start] + new + text[cursor:], code and code.edited(start, cursor, new)
            cursor = start + len(new)
        language = self.desk.language(ask.snapshot)
        if not whole and language is not None and len(text) < 100_000:
            code = Code(text, language)
        s = self.desk.server.settings
        options = GateOptions(s.max_file_size, least_confidence=s.least_confidence, style=ask.style)
        place = Place(ask.snapshot.uri, text[:cursor], text[cursor:])
        return _Scene(text, cursor, place, code, ask.trigger, options)

    def _recent(self, uri: str) -> tuple[RecentEdit, ...]:
        trail = self.desk.trails.get(uri)
        return trail.recent if trail is not None else ()

    def _worth_asking(self, scene: _Scene, uri: str) -> Verdict:
        where, how = (scene.text, scene.cursor), (scene.trigger, scene.language)
        return worth_asking(*where, *how, self._recent(uri), scene.options, uri=uri, code=scene.code)

    def _many(self, verdict: Verdict, scene: _Scene) -> bool:
        """Whether several lines are wanted."""
        setting = self.desk.server.settings.multi_line
        clear = not Spot(scene.text, scene.cursor).rest.strip(CLOSING)
        return clear and (setting == "always" or (setting == "auto" and verdict.multi_line))

    def _delay(self) -> float:
        fixed = self.desk.server.settings.debounce
        self.desk.pace.waited = self.desk.pace.delay(None if fixed is None else fixed / 1000)
        return self.desk.pace.waited

    # ---- from memory

    def _known(self, ask: Ask, scene: _Scene, known: Suggestion) -> Offer | None:
        rest = known.rest(scene.place) or ""
        if rest and known.place.tail != scene.place.tail:
            verdict = self._worth_showing(scene, rest, ())  # the editor has closed a bracket: what it closed is cut
            rest = verdict.text if verdict.ok else ""
        self.desk.counts.remembered += 1
        self.desk.silence = None if rest else known.why or None
        return self._offer(ask, rest) if rest else None

    # ---- from the model

    async def _made(self, scene: _Scene, snapshot: Snapshot, many: bool, rank: Rank | None = None) -> Verdict:
        """What the gates say of what the model writes; remembered. Raises Superseded, DiffcodeError."""
        invoked = scene.trigger == "invoked"  # who asked by hand would rather wait than see nothing
        rank = rank or (Rank.ASKED if invoked else Rank.AUTOMATIC)
        task = Task(
            scene.text,
            (Hole(scene.cursor, scene.cursor),),
            self.desk.options(retries=RETRIES if invoked else 0),
            None if many else "\n",
            (self.memory.draft(scene.place),),
            scene.language,
            None if rank is Rank.IDLE else PATIENCE,
        )
        partial: list[str] = [""]

        def work(filler: Filler, stop: Stop) -> tuple[Verdict, Written, float]:
            began = time.perf_counter()
            (written,) = filler.fill(task, stop, lambda frame: partial.__setitem__(0, frame.text))
            verdict = self._worth_showing(scene, _finished(written, many), written.confidence)
            return verdict, written, time.perf_counter() - began

        try:
            verdict, written, seconds = await self.desk.work(work, rank, "suggest")  # whichever document it is about
        except (Superseded, asyncio.CancelledError):
            self._leave_off(scene, partial[0])
            raise
        self.desk.pace.took(seconds)
        if verdict.ok or scene.trigger == "automatic":
            ended = written.finished != "budget"
            self.memory.keep(Suggestion(scene.place, verdict.text, ended=ended, why=verdict.reason))
        if written.narrow:
            self.ahead.finish(snapshot, task)
        return verdict

    def _worth_showing(self, scene: _Scene, new: str, confidence: tuple[float, ...]) -> Verdict:
        where, how = (scene.text, Hole(scene.cursor, scene.cursor), new), (scene.trigger, scene.language)
        recent = self._recent(scene.place.uri)
        return worth_showing(*where, *how, recent, scene.options, confidence=confidence, code=scene.code)

    def _leave_off(self, scene: _Scene, text: str) -> None:
        """Keep what was there when it was stopped: the next fill may begin with it."""
        if text:
            text = text.replace("\n", line_end_of(scene.text))
            self.memory.keep(Suggestion(scene.place, text, whole=False))

    def _still(self, ask: Ask, scene: _Scene, text: str) -> Offer | None:
        """The offer for the document as it is now: void, unless what was typed meanwhile agrees with it."""
        if self.desk.is_now(ask.snapshot):
            return self._shown(ask, text)
        document = self.desk.server.documents.get(ask.snapshot.uri)
        edits = document.since(ask.snapshot.version) if document is not None and not document.lost else None
        there = typed(edits, ask.cursor) if edits is not None and ask.selected is None else None
        if document is None or there is None or not text.startswith(there) or there == text:
            return None
        return self._shown(
            replace(ask, snapshot=document.snapshot(), cursor=ask.cursor + len(there)), text[len(there) :]
        )

    def _shown(self, ask: Ask, text: str) -> Offer:
        self.desk.counts.shown += 1
        return self._offer(ask, text)

    def _offer(self, ask: Ask, text: str) -> Offer:
        """Several lines within a line take what the editor put behind the cursor (`}`) to their end."""
        start, end = ask.cursor, ask.cursor
        spot = Spot(str(ask.snapshot), ask.cursor)
        rest = spot.rest.rstrip()
        several = "\n" in normalise(text)
        if several and rest and not rest.strip(CLOSING) and ask.selected is None:
            end, text = end + len(rest), text + _own_line(text, spot.head) + rest
        elif several and rest:
            text = normalise(text).split("\n", 1)[0]
        if ask.selected is not None:
            start, text = ask.selected.start, ask.selected.text + text
        return Offer(ask.snapshot, start, end, text)


def _finished(written: Written, many: bool) -> str:
    """What the model wrote; of lines that it did not end, those that it did."""
    if written.finished != "budget" or not many or "\n" not in written.text:
        return written.text
    return written.text[: written.text.rindex("\n")]


def _own_line(text: str, head: str) -> str:
    """What comes between a block and the bracket that ends it, where the block has not said so itself."""
    first, *_, last = normalise(text).split("\n")
    return "" if first.strip() or not last.strip() else line_end_of(text) + indentation(head)


def _new_line(text: str, cursor: int) -> str:
    """What an editor puts in when Enter is pressed at the end of a line; "" within a line."""
    spot = Spot(text, cursor)
    if spot.rest.strip():
        return ""
    style = style_of(text) or TYPICAL
    deeper = opens_body(spot.head, None) or opens_body(spot.head, "c")
    return line_end_of(text) + indentation(spot.head) + style.unit * deeper
