"""A made-up model for the language server, and an editor's side that applies what the server sends."""

import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from lsp_kit import Wire, request, served
from lsp_model import Model

from diffcode.denoise import Frame
from diffcode.errors import CANCELLED, Cancelled
from diffcode.interrupt import Stop
from diffcode.lsp.abilities import abilities
from diffcode.lsp.filler import Expected, ModelSpec, OnStep, Task, Written
from diffcode.lsp.repair import Doubt
from diffcode.lsp.server import Server
from diffcode.lsp.session import Session

Answer = Callable[[Task], Sequence[str | Written]]


class FakeFiller:
    """Writes what `answer` says, in as many steps as there are texts in `frames`; `held` keeps it from ending."""

    def __init__(self, answer: Answer | str = "pass_on(1)", frames: Sequence[str] = (), least_likely: str = "") -> None:
        self.answer = (lambda task: [answer] * len(task.holes)) if isinstance(answer, str) else answer
        self.frames, self.least_likely = frames, least_likely
        self.held = threading.Event()
        self.held.set()
        self.begun = threading.Semaphore(0)
        self.tasks: list[Task] = []
        self.doubted: list[str] = []
        self.read_on: list[Task] = []
        self.read_least: list[Task] = []
        self.stopped = 0

    def fill(self, task: Task, stop: Stop, on_step: OnStep | None = None) -> tuple[Written, ...]:
        self.tasks.append(task)
        self.begun.release()
        for step, text in enumerate(self.frames):
            if on_step is not None:
                on_step(Frame(0, 0, step, (), text))
        while not self.held.is_set() or stop():
            if stop():
                self.stopped += 1
                raise Cancelled(CANCELLED)
            time.sleep(0.0005)
        found = self.answer(task)
        return tuple(one if isinstance(one, Written) else Written(one, (0.9,)) for one in found)

    def read(self, task: Task, stop: Stop, least: bool) -> None:
        (self.read_least if least else self.read_on).append(task)

    def doubts(self, text: str, start: int, end: int, stop: Stop) -> tuple[Expected, ...]:
        """The `least_likely` word is 1 in 1000, the others 9 in 10."""
        self.doubted.append(text[start:end])
        at = text.find(self.least_likely, start, end) if self.least_likely else -1
        return (Expected(Doubt(at, at + len(self.least_likely), 0.001), "better"),) if at >= 0 else ()


class Loads:
    """Gives a filler and counts; `failure` is raised instead while it is there."""

    def __init__(self, filler: FakeFiller | None = None) -> None:
        self.filler = filler or FakeFiller()
        self.failure: Exception | None = None
        self.specs: list[ModelSpec] = []

    def __call__(self, spec: ModelSpec, report: Callable[[str, float | None], None]) -> FakeFiller:
        self.specs.append(spec)
        report("reading", 0.5)
        if self.failure is not None:
            raise self.failure
        return self.filler


INLINE = {"textDocument": {"inlineCompletion": {}}}
ACTIONS = {
    "codeAction": {
        "codeActionLiteralSupport": {"codeActionKind": {"valueSet": [""]}},
        "resolveSupport": {"properties": ["edit"]},
        "dataSupport": True,
        "tagSupport": {"valueSet": [1]},
    }
}
EDITS = {"workspaceEdit": {"documentChanges": True, "changeAnnotationSupport": {}}, "applyEdit": True}
ALL = {
    "textDocument": {"inlineCompletion": {}, **ACTIONS},
    "workspace": EDITS,
    "experimental": {"diffcodeStatus": True},
}


@asynccontextmanager
async def helped(
    loads: Loads | FakeFiller, capabilities: dict[str, Any] | None = None, encoding: str = "utf-16", **settings: Any
) -> AsyncIterator[tuple[Server, Wire]]:
    """A server with every ability over a made-up model; nothing is put off unless `debounce` says so."""
    loads = loads if isinstance(loads, Loads) else Loads(loads)
    session = Session(loads)
    known = {"general": {"positionEncodings": [encoding]}, **(ALL if capabilities is None else capabilities)}
    params = {"capabilities": known, "initializationOptions": {"debounce": 0, **settings}}
    try:
        async with served(abilities(session), params) as (server, wire):
            yield server, wire
    finally:
        loads.filler.held.set()
        assert session.close(5)


def place(text: str, offset: int, encoding: str = "utf-16") -> dict[str, int]:
    """A position, counted by the independent model."""
    line, character = Model(text, encoding).position(offset)
    return {"line": line, "character": character}


def span(text: str, start: int, end: int, encoding: str = "utf-16") -> dict[str, Any]:
    return {"start": place(text, start, encoding), "end": place(text, end, encoding)}


def applied(text: str, edits: Sequence[dict[str, Any]], encoding: str = "utf-16") -> str:
    """The text with TextEdits done as an editor does them: all ranges against the original, none overlapping."""
    model = Model(text, encoding)
    spans = []
    for edit in edits:
        start, end = (model.offset(**edit["range"][side]) for side in ("start", "end"))
        new = edit["newText"] if "newText" in edit else edit.get("insertText", edit.get("text"))
        spans.append((start, end, new))
    assert spans == sorted(spans, key=lambda s: s[:2])
    for (_, end, _), (start, _, _) in itertools.pairwise(spans):
        assert end <= start
    for start, end, new in reversed(spans):
        text = text[:start] + new + text[end:]
    return text


async def ask(wire: Wire, id_: Any, method: str, params: dict[str, Any]) -> Any:
    """The result; an AssertionError with the error, if it is one."""
    wire.feed(request(id_, method, params))
    answer = await wire.answer(id_)
    assert "error" not in answer, answer
    return answer["result"]
