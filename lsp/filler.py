"""What the server wants of a model, and the real one behind it. Importing this loads no torch."""

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from diffcode.config import DenoiseOptions
from diffcode.holes import Hole
from diffcode.interrupt import Stop
from diffcode.lsp.repair import Doubt
from diffcode.lsp.settings import Settings

if TYPE_CHECKING:
    from diffcode.denoise import Frame
    from diffcode.infill import Infiller

Report: TypeAlias = Callable[[str, float | None], None]  # what is being done, and which share of it is done
OnStep: TypeAlias = Callable[["Frame"], None]


@dataclass(frozen=True, slots=True)
class Task:
    """Holes to be filled together."""

    text: str
    holes: tuple[Hole, ...]
    options: DenoiseOptions = field(default_factory=DenoiseOptions)
    stop: str | None = None  # ends a fill before it
    drafts: tuple[str, ...] | None = None  # what may well stand in each hole
    language: str | None = None  # of the text; its grammar judges the fills where the options allow other tries
    patience: float | None = None  # seconds that reading a new context may take; None: as long as it takes


@dataclass(frozen=True, slots=True)
class Written:
    """What was put into one hole."""

    text: str
    confidence: tuple[float, ...] = ()
    finished: str = "eos"  # as of SpanFill; "budget": it was not
    narrow: bool = False  # the model has seen less than its window holds, for want of time


@dataclass(frozen=True, slots=True)
class Expected:
    """A token of the text, how likely it is at most, and what the model expected there."""

    doubt: Doubt
    instead: str

    def moved(self, by: int) -> "Expected":
        """The same, that many characters further on."""
        d = self.doubt
        return Expected(Doubt(d.start + by, d.end + by, d.probability), self.instead)


class Filler(Protocol):
    """A loaded model. Only the model's thread calls it."""

    def fill(self, task: Task, stop: Stop, on_step: OnStep | None = None) -> tuple[Written, ...]:
        """One for each hole, in order. Raises Cancelled within a denoising step once `stop` is set."""

    def read(self, task: Task, stop: Stop, least: bool) -> None:
        """What the window shows round the task's first hole, for what is asked there next: all of it, or as much as is
        read in any case. Raises Cancelled."""

    def doubts(self, text: str, start: int, end: int, stop: Stop) -> tuple[Expected, ...]:
        """For every token of characters [start, end). Raises Cancelled."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Which model: what changes it means loading anew."""

    model: str | None = None
    adapter: str | None = None
    infill: str | None = None
    device: str | None = None
    context: int | None = None  # tokens; None: as many as is usual

    @classmethod
    def of(cls, settings: Settings) -> "ModelSpec":
        return cls(settings.model, settings.adapter, settings.infill, settings.device, settings.context_tokens)


class ModelFiller:
    """An Infiller as a Filler."""

    def __init__(self, infiller: "Infiller"):
        from diffcode.reader import Reader

        self.infiller, self.reader = infiller, Reader(infiller)

    def fill(self, task: Task, stop: Stop, on_step: OnStep | None = None) -> tuple[Written, ...]:
        places = [(hole.start, hole.end) for hole in task.holes]
        infiller, unread = self.infiller, 0
        if task.patience is not None:
            infiller, unread = self.reader.outlook(task.text, task.holes[0], task.patience)
        fill = infiller.fill_with(
            task.text,
            places,
            task.options,
            stop=task.stop,
            drafts=task.drafts,
            language=task.language,
            on_step=on_step,
            cancelled=stop,
        )
        self.reader.took(unread, fill.spans[0].context_seconds)
        narrow = infiller.window.budget < self.infiller.window.budget
        return tuple(Written(span.text, span.confidence, span.finished, narrow) for span in fill.spans)

    def read(self, task: Task, stop: Stop, least: bool) -> None:
        self.reader.read(task.text, task.holes[0], stop, least)

    def doubts(self, text: str, start: int, end: int, stop: Stop) -> tuple[Expected, ...]:
        found = self.infiller.doubts(text, start, end, cancelled=stop)
        return tuple(Expected(Doubt(d.start, d.end, d.bound), d.instead) for d in found)


def load(spec: ModelSpec, report: Report) -> Filler:
    """The real model; the first call costs the import of torch. Raises ModelUnavailable, BadOption."""
    report("starting", None)
    gc.unfreeze()
    from diffcode import hub
    from diffcode.config import WindowOptions
    from diffcode.infill import Infiller

    def told(progress: hub.Progress) -> None:
        report(progress.stage, progress.done / progress.total if progress.total else None)

    window = None if spec.context is None else WindowOptions(spec.context)
    where: Any = {"adapter": spec.adapter, "device": spec.device, "infill": spec.infill, "window": window}
    filler = ModelFiller(Infiller.from_pretrained(spec.model, report=told, **where))
    gc.freeze()  # else going through vocabulary and libraries takes 0.1 s of some answer
    return filler
