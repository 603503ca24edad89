"""The Python API: fill the holes of a text.

infiller = Infiller.from_pretrained()
fill = infiller.fill("def area(r):\\n    return ???\\n", marker="???")
print(fill.text)
"""

import copy
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from diffcode import hub
from diffcode.canvas import Block, line_end_of, make_block, normalise
from diffcode.config import RETRIES, DenoiseOptions, WindowOptions
from diffcode.contexts import Contexts
from diffcode.denoise import Barred, Denoised, Drafts, Frame, Problem, denoise
from diffcode.doubts import TokenDoubt, read_doubts
from diffcode.engine import Model
from diffcode.errors import BadOption
from diffcode.holes import Hole, apply_edits, check_holes, find_marker
from diffcode.planning import span_rows
from diffcode.policies import Guess
from diffcode.soundness import Accept, sound
from diffcode.stops import StopRule

MEMORY = 256 << 20  # bytes; a context of 1024 tokens takes 25 MB


@dataclass(frozen=True, slots=True)
class SpanFill:
    """What was put into one hole."""

    start: int  # the hole: character offsets into the original text
    end: int
    text: str  # what stands there now, with the document's line ends
    tokens: tuple[int, ...]  # ids in order; the last one is the one that ended the fill and may be cut from `text`
    confidence: tuple[float, ...]  # the model's probability of each, 0 to 1
    steps: int
    forwards: int
    seconds: float
    context_seconds: float  # reading the context, part of `seconds`
    finished: str  # "eos", "stop", "line", "block", "suffix" or "budget"
    drafts: Drafts
    retries: int = 0  # times it was begun anew, for the syntax's sake


@dataclass(frozen=True, slots=True)
class Fill:
    """A filled text."""

    text: str
    spans: tuple[SpanFill, ...]  # in order of place
    forwards: int  # over all holes and rounds
    tokens: int
    seconds: float


class Infiller:
    """A model that fills holes. Make one, keep it: loading takes a second, the weights about 0.6 GB in 8 bits."""

    def __init__(self, model: Model, window: WindowOptions | None = None, memory: int = MEMORY):
        self.model = model
        self.window = window or WindowOptions()
        self.contexts = Contexts(memory)
        self.span_rows = span_rows(model)

    @classmethod
    def from_pretrained(
        cls,
        model: str | None = None,
        *,
        adapter: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        window: WindowOptions | None = None,
        report: hub.Report | None = None,
        infill: str | None = None,
        memory: int = MEMORY,
    ) -> "Infiller":
        """Load the default model (pulling its weights if need be), a `.gguf` file, or a Hugging Face folder.

        `adapter`: a folder, "none", or None for the shipped one; `infill` likewise, the adapter that is merged into
        the weights so that they know where a hole ends. `device`: a torch device, None for CUDA where there
        is one. `dtype`: "int8" (the CPU engine, default on a CPU), "int5" or "int4" (that in fewer bits), "bfloat16" or
        "float32". `memory`: bytes for contexts that were read and may come again, as they do while somebody types.
        `report` is called with the progress of a download.
        Raises ModelUnavailable, BadOption.
        """
        return cls(Model.load(model, adapter, device, dtype, report, infill), window, memory)

    def seeing(self, window: WindowOptions) -> "Infiller":
        """The same model and memory, with another window."""
        other = copy.copy(self)
        other.window = window
        return other

    def fill(
        self,
        text: str,
        holes: Sequence[tuple[int, int]] | None = None,
        *,
        marker: str | None = None,
        policy: str = "verified",
        threshold: float | None = None,
        max_tokens: int = 256,
        max_steps: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        stop: str | Sequence[str] | None = None,
        drafts: Sequence[str] | None = None,
        language: str | None = None,
        retries: int = RETRIES,
        on_step: Callable[[Frame], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Fill:
        """Replace each hole of `text` by code that fits what stands on both sides of it.

        `holes` are character offsets (start, end) into `text`, start == end inserts; or every `marker` is a hole.
        Several holes see each other: after a first pass each is looked at again in the light of the others.
        `max_tokens` and `max_steps` count for one hole; `stop` ends a fill before any of these strings.
        `drafts`: for each hole, in order of place, what may well stand there, such as what is left of an earlier fill
        ("" for nothing); it is checked as any draft is, so that with `verified` it changes nothing but the time.
        `language`, one of `diffcode.syntax.LANGUAGES`: fills that make a syntax error are tried again, at most
        `retries` times, each time from the place where the model wavered most; the first that makes none is taken,
        and the first of all where each makes one.
        `on_step` gets a Frame after every denoising step, `cancelled` is asked before each; an `interrupt.Stop` also
        ends a step of the CPU engine that has begun.
        The same arguments give the same bytes. Raises NothingToFill, BadHoles, BadOption, Cancelled.
        """
        options = DenoiseOptions(policy, threshold, max_tokens, max_steps, temperature, seed, retries=retries)
        more: Any = {"stop": stop, "drafts": drafts, "language": language, "on_step": on_step, "cancelled": cancelled}
        return self.fill_with(text, holes, options, marker=marker, **more)

    def fill_with(
        self,
        text: str,
        holes: Sequence[tuple[int, int]] | None,
        options: DenoiseOptions,
        *,
        marker: str | None = None,
        stop: str | Sequence[str] | None = None,
        drafts: Sequence[str] | None = None,
        language: str | None = None,
        on_step: Callable[[Frame], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Fill:
        """`fill` with every setting of the denoising loop."""
        _check_text(text)
        if self.model.adapter is None and options.policy not in ("verified", "leftmost"):
            raise BadOption(f"policy {options.policy} needs a span adapter: load one, or take verified or leftmost")
        places = check_holes(text, [(h.start, h.end) for h in find_marker(text, marker)] if marker else holes or ())
        stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
        if any(not s for s in stops):
            raise BadOption("a stop string is empty: leave it out or write what should end the fill")
        if drafts is not None and len(drafts) != len(places):
            raise BadOption(f"there are {len(places)} holes and {len(drafts)} drafts: give one for each")
        accept = sound(text, places, language) if language is not None and options.retries else None
        return _Filling(self, text, places, options, stops, drafts, accept, on_step, cancelled).run()

    def doubts(
        self, text: str, start: int, end: int, cancelled: Callable[[], bool] | None = None
    ) -> tuple[TokenDoubt, ...]:
        """How likely each token of characters [start, end) is, given what stands before it and behind `end`.

        One reading of the context and of these characters. Raises BadHoles, BadOption, Cancelled.
        """
        _check_text(text)
        return read_doubts(self.model, text, start, end, self.window, self.contexts, cancelled)

    def fill_many(self, texts: Iterable[str], holes: Iterable[Any] | None = None, **options: Any) -> list[Fill]:
        """`fill` for each of several texts; `holes`, if given, has one list for each text."""
        if holes is None:
            return [self.fill(text, **options) for text in texts]
        return [self.fill(text, h, **options) for text, h in zip(texts, holes, strict=True)]


class _Filling:
    """One call of `fill`: rounds over the holes."""

    def __init__(
        self,
        infiller: Infiller,
        text: str,
        holes: tuple[Hole, ...],
        options: DenoiseOptions,
        stops: tuple[str, ...],
        drafts: Sequence[str] | None,
        accept: Accept | None,
        on_step: Callable[[Frame], None] | None,
        cancelled: Callable[[], bool] | None,
    ):
        self.model, self.window, self.contexts = infiller.model, infiller.window, infiller.contexts
        self.span_rows = infiller.span_rows
        self.text, self.holes, self.options, self.stops = text, holes, options, stops
        self.drafts, self.accept, self.on_step, self.cancelled = drafts, accept, on_step, cancelled
        self.line_end = line_end_of(text)
        self.fills = [""] * len(holes)
        self.blocks: list[Block | None] = [None] * len(holes)
        self.found: list[list[Denoised]] = [[] for _ in holes]
        self.retries = [0] * len(holes)

    def run(self) -> Fill:
        began = time.perf_counter()
        for round_ in range(2 if len(self.holes) > 1 else 1):
            for index in range(len(self.holes)):
                self._fill_hole(index, round_)
        if self.accept is not None:
            self._mend(self.accept)
        spans = tuple(self._span(i) for i in range(len(self.holes)))
        return Fill(
            text=self._filled(),
            spans=spans,
            forwards=sum(s.forwards for s in spans),
            tokens=sum(len(s.tokens) for s in spans),
            seconds=time.perf_counter() - began,
        )

    def _fill_hole(self, index: int, round_: int) -> None:
        block = make_block(self.text, self.holes, self.fills, index, self.model.tokens, self.window)
        if block == self.blocks[index]:
            return  # nothing that this hole can see has changed since it was filled
        self.blocks[index] = block
        self._take(index, self._denoise(block, index, round_, self._draft(index, block)))

    def _take(self, index: int, done: Denoised) -> None:
        self.found[index].append(done)
        self.fills[index] = done.text.replace("\n", self.line_end)

    def _filled(self) -> str:
        return apply_edits(self.text, self.holes, self.fills)

    def _mend(self, accept: Accept) -> None:
        """Another token where the model wavered, and what follows from it: one place a try, the most doubtful first."""
        firsts = [found[-1] for found in self.found]
        if any(first.finished == "budget" for first in firsts) or self._passes(accept):
            return  # what was cut short is no syntax error of the model's
        places = [(-w, i, at) for i, first in enumerate(firsts) for at, w in enumerate(first.wavering) if w > 0]
        for _, index, at in sorted(places)[: self.options.retries]:
            first = firsts[index]
            block = make_block(self.text, self.holes, self.fills, index, self.model.tokens, self.window)
            kept = tuple(Guess(t, p, origin="given") for t, p in zip(first.tokens[:at], first.confidence, strict=False))
            self._take(index, self._denoise(block, index, 2, kept, Barred(at, first.tokens[at])))
            self.retries[index] += 1
            if self._passes(accept):
                return
            self._take(index, first)
            self.found[index].remove(first)  # where it stood before: it counts once, and as the last

    def _passes(self, accept: Accept) -> bool:
        """Whether the whole is accepted as it is, or with the stop string behind what ended there: a caller who wants a
        line puts its end back himself."""
        ended = [found[-1].finished == "stop" for found in self.found]
        ends = ["", *(stop.replace("\n", self.line_end) for stop in self.stops if any(ended))]
        versions = ([fill + end * cut for fill, cut in zip(self.fills, ended, strict=True)] for end in ends)
        return any(accept(apply_edits(self.text, self.holes, fills)) for fills in versions)

    def _draft(self, index: int, block: Block) -> tuple[Guess, ...]:
        """The hole's tokens of the round before, to start from; the last one only ended the fill."""
        if not self.found[index]:
            return self._given(index, block)
        last = self.found[index][-1]
        return tuple(Guess(t, p, origin="given") for t, p in zip(last.tokens, last.confidence, strict=True))

    def _given(self, index: int, block: Block) -> tuple[Guess, ...]:
        """The caller's draft, behind the re-opened end of the prefix that the hole's tokens must spell first."""
        draft = normalise(self.drafts[index]) if self.drafts else ""
        try:
            tokens = self.model.tokens.encode(block.heal.decode("utf8") + draft) if draft else []
        except UnicodeDecodeError:  # a piece of a character was re-opened
            return ()
        return tuple(Guess(token, 0.0, origin="given") for token in tokens)

    def _denoise(
        self, block: Block, index: int, round_: int, draft: tuple[Guess, ...], barred: Barred | None = None
    ) -> Denoised:
        model, options = self.model, self.options
        if barred is not None and options.policy != "verified":
            options = replace(options, policy="verified", threshold=None)
        stop = StopRule(block.suffix, self.stops, head=block.head, **block.reach._asdict())
        noise = model.noise(options.seed * 8191 + index) if options.temperature > 0 else None
        flag = getattr(self.cancelled, "flag", None)
        # Where nothing follows, nothing says that the hole ends here rather than later: there the model ends too early.
        end_bias = 0.0 if block.open_ended else options.end_bias
        session = model.session(noise, options.temperature, self.contexts, flag, end_bias, block.open_ended)
        problem = Problem(block.context, block.heal, stop, draft, barred)
        loop = denoise(session, problem, options, model.tokens, self.span_rows, self.cancelled)
        try:
            while True:
                run = next(loop)
                if self.on_step is not None:
                    self.on_step(Frame(index, round_, run.steps, run.places(), run.cut.text if run.cut else run.text))
        except StopIteration as end:
            done: Denoised = end.value
            return done
        finally:
            session.close()

    def _span(self, index: int) -> SpanFill:
        hole, last, all_ = self.holes[index], self.found[index][-1], self.found[index]
        return SpanFill(
            start=hole.start,
            end=hole.end,
            text=self.fills[index],
            tokens=last.tokens,
            confidence=last.confidence,
            steps=sum(d.steps for d in all_),
            forwards=sum(d.forwards for d in all_),
            seconds=sum(d.seconds for d in all_),
            context_seconds=sum(d.context_seconds for d in all_),
            finished=last.finished,
            drafts=sum((d.drafts for d in all_), Drafts()),
            retries=self.retries[index],
        )


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadOption(
            f"the text has half a character (a lone surrogate) at offset {error.start}: repair it"
        ) from error
