"""What the features of one connection share: the model, the parsed documents, what was typed lately, the status."""

import logging
import re
from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any, ParamSpec, TypeVar
from urllib.parse import unquote, urlsplit

from diffcode.config import DenoiseOptions
from diffcode.errors import DiffcodeError
from diffcode.lsp.document import Document, Snapshot
from diffcode.lsp.endpoint import NotificationHandler
from diffcode.lsp.feature import CommandHandler, Feature
from diffcode.lsp.filler import ModelSpec
from diffcode.lsp.messages import Code as ErrorCode
from diffcode.lsp.messages import Params, RequestError
from diffcode.lsp.pace import Pace
from diffcode.lsp.params import find
from diffcode.lsp.progress import Progress
from diffcode.lsp.server import Server
from diffcode.lsp.session import Rank, Session, Superseded, Work
from diffcode.lsp.settings import Settings
from diffcode.lsp.status import State
from diffcode.lsp.trail import Trail
from diffcode.syntax import LANGUAGES, Code, language_of

log = logging.getLogger(__name__)

T = TypeVar("T")
P = ParamSpec("P")

# What editors call a language that diffcode.syntax names otherwise.
LANGUAGE_IDS = {"javascriptreact": "javascript", "typescriptreact": "tsx", "c++": "cpp"}
SEVERAL = 8  # edits; more are parsed anew at once
LONGEST_PARSED = 400_000  # characters: 0.15 s, in which Python does nothing else; longer texts count as unknown


@dataclass(slots=True)
class Counts:
    """What happened on this connection, for `diffcode.status`."""

    asked: int = 0
    remembered: int = 0  # answered without the model
    shown: int = 0
    accepted: int = 0
    prefetched: int = 0
    read: int = 0  # places where the cursor rested


class Desk(Feature):
    """Comes first among the features of a connection."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.pace = Pace()
        self.counts = Counts()
        self.silence: str | None = None  # why the last one who asked for a suggestion got none
        self.trails: dict[str, Trail] = {}
        self._parsed: dict[str, tuple[int, Code]] = {}
        self._progress: Progress | None = None
        self._model: tuple[State, str | None] = ("normal", None)
        self._inactive: str | None = None  # why nothing is offered in the document asked about last

    def start(self, server: Server) -> None:
        super().start(server)
        self.session.watchers.append(_FromThread(self))

    def commands(self) -> Mapping[str, CommandHandler]:
        return {"diffcode.reload": self._reload, "diffcode.status": self._status, "diffcode.accepted": self._accepted}

    def notifications(self) -> Mapping[str, NotificationHandler]:
        # copilot.el sends the command that goes with an edit so; what the others tell of shown and taken edits needs
        # no handler
        return {"workspace/executeCommand": lambda _params: None}

    # ---- documents

    def opened(self, document: Document) -> None:
        self.session.make_way()
        self.trails[document.uri] = Trail(document)
        self._parsed.pop(document.uri, None)
        self.server.endpoint.spawn(self._parse(document))

    async def _parse(self, document: Document) -> None:
        """Now, when nobody waits: a file of 200 KB takes 20 ms, which the first question in it took longer."""
        snapshot = document.snapshot()
        if self.server.documents.get(document.uri) is document and refusal(self.server.settings, snapshot) is None:
            self.code(snapshot)

    def changed(self, document: Document) -> None:
        trail = self.trails.get(document.uri)
        if trail is not None:
            self.session.make_way()
            self.pace.key()
            trail.follow(document)

    def closed(self, document: Document) -> None:
        self.trails.pop(document.uri, None)
        self._parsed.pop(document.uri, None)

    def language(self, snapshot: Snapshot) -> str | None:
        """The document's language, if there is a grammar for it."""
        named = LANGUAGE_IDS.get(snapshot.language.lower(), snapshot.language.lower())
        return named if named in LANGUAGES else language_of(path_of(snapshot.uri))

    def code(self, snapshot: Snapshot) -> Code | None:
        """The parsed text, if there is a grammar; of an edited one only what changed is parsed again."""
        language = self.language(snapshot)
        if language is None or len(snapshot.text) > LONGEST_PARSED:
            return None
        version, code = self._parsed.get(snapshot.uri, (None, None))
        if code is None or version != snapshot.version or code.language != language:
            code = self._reparsed(snapshot, version, code) or Code(_readable(str(snapshot)), language)
            self._parsed[snapshot.uri] = (snapshot.version, code)
        return code

    def _reparsed(self, snapshot: Snapshot, version: int | None, code: Code | None) -> Code | None:
        document = self.server.documents.get(snapshot.uri)
        if document is None or version is None or code is None or document.version != snapshot.version:
            return None
        edits = document.since(version)
        if edits is None or len(edits) > SEVERAL:
            return None
        for edit in edits:
            code = code.edited(edit.start, edit.end, _readable(edit.text))
        return code if code.text == _readable(str(snapshot)) else None

    def look(self, uri: str) -> Snapshot | None:
        """The document as it is now, if something may be offered in it; tells the status line why not."""
        snapshot = self.server.documents.snapshot(uri)
        if snapshot is None:
            return None
        self._inactive = refusal(self.server.settings, snapshot)
        self._show_status()
        return None if self._inactive else snapshot

    def wanted(self, uri: str) -> Snapshot:
        """`look` for what the user asked for by hand. Raises RequestError with the reason."""
        snapshot = self.look(uri)
        if snapshot is None:
            reason = self._inactive or "the document is not open here: save it or open it again"
            raise RequestError(ErrorCode.REQUEST_FAILED, f"nothing can be done: {reason}")
        return snapshot

    def is_now(self, snapshot: Snapshot) -> bool:
        document = self.server.documents.get(snapshot.uri)
        return document is not None and document.version == snapshot.version and not document.lost

    def check_now(self, snapshot: Snapshot) -> None:
        """Raises ContentModified if the document has changed since."""
        if not self.is_now(snapshot):
            raise RequestError(ErrorCode.CONTENT_MODIFIED, "the document has changed meanwhile: nothing was done")

    # ---- the model

    async def work(self, work: "Work[T]", rank: Rank, key: Hashable | None = None) -> T:
        """`Session.run` for this connection and its settings. What is nobody's fault but ours shows in the status."""
        mine, spec = None if key is None else (id(self), key), ModelSpec.of(self.server.settings)
        try:
            done = await self.session.run(work, spec=spec, rank=rank, key=mine, owner=self)
        except (Superseded, DiffcodeError):
            raise
        except Exception as error:
            self.model_is("error", f"the model has failed ({type(error).__name__}): see the log, then diffcode.reload")
            raise
        if self._model[0] == "error":
            self.model_is("normal")
        return done

    def options(self, max_tokens: int | None = None, **more: Any) -> DenoiseOptions:
        """The settings of the denoising loop."""
        s = self.server.settings
        given = {"temperature": s.temperature, "seed": s.seed} | more
        return DenoiseOptions(s.policy, s.threshold, max_tokens or s.max_tokens, **given)

    def settings_changed(self, old: Settings, new: Settings) -> None:
        if ModelSpec.of(old) != ModelSpec.of(new):
            self._model = ("normal", None)  # the next fill says how the other model does
        self._inactive = None if new.enabled else "switched off in the settings"
        self._show_status()

    async def stop(self) -> None:
        self.session.watchers[:] = [w for w in self.session.watchers if getattr(w, "desk", None) is not self]
        self.session.leave(self)

    # ---- commands

    async def _reload(self, _arguments: list[Any]) -> dict[str, Any]:
        self.session.forget()
        with suppress(DiffcodeError, Superseded):  # the status says why
            # Not as a COMMAND, which counts as "busy" until after its answer is there: the status is that answer.
            await self.work(lambda _filler, _stop: None, Rank.ASKED, "reload")
        return await self._status([])

    async def _status(self, _arguments: list[Any]) -> dict[str, Any]:
        state, reason = self._state()
        counts = {name: getattr(self.counts, name) for name in Counts.__slots__}
        timing = {"keyGapMs": round(1000 * self.pace.gap), "suggestionMs": round(1000 * self.pace.work)}
        last = {"worked": 1000 * self.pace.worked, "waited": 1000 * self.pace.waited, "made": self.pace.made}
        found = {"state": state, "reason": reason, "silence": self.silence, "loaded": self.session.loaded}
        return {**found, **counts, **timing, "lastMs": last}

    async def _accepted(self, _arguments: list[Any]) -> None:
        """What goes with an edit of the Copilot dialect; acceptance itself shows in the text."""

    # ---- status

    def _state(self) -> tuple[State, str | None]:
        if self._inactive is not None:
            return "inactive", self._inactive
        return self._model

    def _show_status(self) -> None:
        self.server.status.set(*self._state())

    def model_is(self, state: State, reason: str | None = None) -> None:
        """The model's own state from now on."""
        self._model = (state, reason)
        self._show_status()
        if state != "busy" and self._progress is not None:
            self._progress.end(reason)
            self._progress = None

    def rests(self) -> None:
        """Nothing runs any more."""
        if self._model[0] == "busy" and self.session.loaded:
            self.model_is("normal")

    def loading(self, what: str, share: float | None) -> None:
        """Loading goes on."""
        if self._progress is None:
            self._progress = self.server.progress.start("diffcode: loading the model")
        self.model_is("busy", "the model is being loaded")
        self._progress.report(what, None if share is None else 100 * share)


class _FromThread:
    """The session's word, passed on into the event loop."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def loading(self, what: str, share: float | None) -> None:
        self.desk.server.from_thread(self.desk.loading, what, share)

    def loaded(self) -> None:
        self.desk.server.from_thread(self.desk.model_is, "normal")

    def failed(self, reason: str) -> None:
        self.desk.server.from_thread(self.desk.model_is, "inactive", reason)

    def working(self, rank: Rank | None) -> None:
        if rank is Rank.COMMAND:
            self.desk.server.from_thread(self.desk.model_is, "busy", "filling")
        elif rank is None:
            self.desk.server.from_thread(self.desk.rests)


def _readable(text: str) -> str:
    """Without the line ends of old, which no grammar knows; every offset stays what it is."""
    return re.sub(r"\r(?!\n)", "\n", text) if "\r" in text else text


def path_of(uri: str) -> str:
    return unquote(urlsplit(uri).path)


def refusal(settings: Settings, snapshot: Snapshot) -> str | None:
    """Why nothing is offered in a document, if so: a few words for the status line."""
    path = path_of(snapshot.uri)
    if not settings.enabled:
        return "switched off in the settings"
    if snapshot.language in settings.disabled_languages:
        return f"{snapshot.language} is one of diffcode.disabledLanguages"
    if any(fnmatch(path, pattern) or fnmatch(path.rpartition("/")[2], pattern) for pattern in settings.exclude):
        return "the file is excluded by diffcode.exclude"
    if len(snapshot.text) > settings.max_file_size:
        return f"the file has {len(snapshot.text)} characters, more than diffcode.maxFileSize"
    return None


def options_of(params: Params) -> tuple[int, bool] | None:
    """(tab size, whether spaces are inserted), where a client sends its formatting options along."""
    size, spaces = find(params, "formattingOptions.tabSize"), find(params, "formattingOptions.insertSpaces")
    return (size, spaces) if type(size) is int and 0 < size <= 16 and isinstance(spaces, bool) else None
