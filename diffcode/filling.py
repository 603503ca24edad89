"""One call of `fill`: rounds over the holes, other tries, and the best of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from diffcode.canvas import Block, line_end_of, make_block, normalise
from diffcode.config import DenoiseOptions, WindowOptions
from diffcode.contexts import Contexts
from diffcode.denoise import Barred, Denoised, Drafts, Frame, Place, Problem, denoise
from diffcode.engine import Model
from diffcode.holes import Hole, apply_edits
from diffcode.kernels.plan import SpanRows
from diffcode.policies import Guess
from diffcode.reading import reads_on
from diffcode.soundness import Accept
from diffcode.stops import StopRule

WAVERS = 0.01  # a place where the next likeliest token is less likely than this, beside the one taken, is not tried


@dataclass(frozen=True, slots=True)
class SpanFill:
    """What was put into one hole."""

    start: int  # the hole: character offsets into the original text
    end: int
    text: str  # what stands there now, with the document's line ends
    tokens: tuple[int, ...]  # ids in order; the last one is the one that ended the fill and may be cut from `text`
    confidence: tuple[float, ...]  # the model's probability of each, 0 to 1
    steps: int
    forwards: int  # of all that was written; other fills are read beside that
    seconds: float
    context_seconds: float  # reading the context, part of `seconds`
    finished: str  # "eos", "stop", "line", "block", "suffix" or "budget"
    drafts: Drafts
    retries: int = 0  # times it was begun anew, for the syntax's sake
    others: int = 0  # fills that were written beside it, to take the best


@dataclass(frozen=True, slots=True)
class Fill:
    """A filled text."""

    text: str
    spans: tuple[SpanFill, ...]  # in order of place
    forwards: int  # over all holes and rounds
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be filled and how."""

    text: str
    holes: tuple[Hole, ...]
    options: DenoiseOptions
    stops: tuple[str, ...] = ()
    drafts: Sequence[str] | None = None  # for each hole
    accept: Accept | None = None  # whether the whole is in order
    on_step: Callable[[Frame], None] | None = None
    cancelled: Callable[[], bool] | None = None


class Filling:
    """One call of `fill`."""

    def __init__(self, model: Model, window: WindowOptions, contexts: Contexts, rows: SpanRows, request: Request):
        self.model, self.window, self.contexts, self.span_rows = model, window, contexts, rows
        self.request, self.text, self.holes, self.options = request, request.text, request.holes, request.options
        self.line_end = line_end_of(request.text)
        count = len(request.holes)
        self.fills = [""] * count
        self.blocks: list[Block | None] = [None] * count
        self.chosen: list[Denoised | None] = [None] * count
        self.found: list[list[Denoised]] = [[] for _ in range(count)]  # all that was written, for the counts
        self.retries, self.others = [0] * count, [0] * count

    def run(self) -> Fill:
        """Raises Cancelled."""
        began = time.perf_counter()
        for round_ in range(2 if len(self.holes) > 1 else 1):
            for index in range(len(self.holes)):
                self._fill_hole(index, round_)
        self._mend()
        for index in range(len(self.holes)):
            self._weigh(index)
        spans = tuple(self._span(i) for i in range(len(self.holes)))
        return Fill(
            text=apply_edits(self.text, self.holes, self.fills),
            spans=spans,
            forwards=sum(s.forwards for s in spans),
            tokens=sum(len(s.tokens) for s in spans),
            seconds=time.perf_counter() - began,
        )

    def _fill_hole(self, index: int, round_: int) -> None:
        block = self._block(index)
        if block == self.blocks[index]:
            return  # nothing that this hole can see has changed since it was filled
        self.blocks[index] = block
        self._choose(index, self._denoise(block, index, round_, self._draft(index, block)))

    def _block(self, index: int) -> Block:
        return make_block(self.text, self.holes, self.fills, index, self.model.tokens, self.window)

    def _choose(self, index: int, done: Denoised) -> None:
        self.chosen[index] = done
        self.fills[index] = done.text.replace("\n", self.line_end)

    def _last(self, index: int) -> Denoised:
        done = self.chosen[index]
        assert done is not None, "every hole is filled by the first round"
        return done

    def _mend(self) -> None:
        """Until the whole is in order: another token where the model wavered, and what follows from it; one place a
        try, the most doubtful first."""
        firsts = [self._last(index) for index in range(len(self.holes))]
        # What was cut short is no syntax error of the model's.
        if any(first.finished == "budget" for first in firsts) or self._passes():
            return
        places = [(-w, i, at) for i, first in enumerate(firsts) for at, w in enumerate(first.wavering) if w > 0]
        for _, index, at in sorted(places)[: self.options.retries]:
            other = self._another(index, self._block(index), firsts[index], at)
            self._choose(index, other)
            self.retries[index] += 1
            if other.finished != "budget" and self._passes():
                return
            self._choose(index, firsts[index])
            self._show(index)

    def _weigh(self, index: int) -> None:
        """Of several fills of a hole the one behind which the text reads on best; none that breaks what is in order."""
        first = self._last(index)
        places = sorted((-w, at) for at, w in enumerate(first.wavering) if w >= WAVERS)[: self.options.best_of - 1]
        if not places or first.finished == "budget" or (block := self._block(index)).open_ended:
            return
        best, most, seen = first, (self._passes(), self._reads_on(block, first)), {first.text}
        for _, at in places:
            other = self._another(index, block, first, at)
            self.others[index] += 1
            self._choose(index, other)
            passes = self._passes()
            emptied = not other.text.strip() and first.text.strip()  # which reads well where lines are left out
            if other.finished == "budget" or other.text in seen or passes < most[0] or emptied:
                continue
            seen.add(other.text)
            if (reads := (passes, self._reads_on(block, other))) > most:
                best, most = other, reads
        self._choose(index, best)
        self._show(index)

    def _show(self, index: int) -> None:
        """A last picture of what is taken, where another try was shown since."""
        done = self._last(index)
        shown = [self.model.tokens.bytes_of(token).decode("utf8", errors="replace") for token in done.tokens]
        places = tuple(Place(text, p, "committed") for text, p in zip(shown, done.confidence, strict=True))
        self._tell(Frame(index, 2, done.steps, places, done.text))

    def _tell(self, frame: Frame) -> None:
        if self.request.on_step is not None:
            self.request.on_step(frame)

    def _another(self, index: int, block: Block, first: Denoised, at: int) -> Denoised:
        """The hole's fill up to place `at`, then any other token and what follows from that."""
        kept = tuple(Guess(t, p, origin="given") for t, p in zip(first.tokens[:at], first.confidence, strict=False))
        return self._denoise(block, index, 2, kept, Barred(at, first.tokens[at]))

    def _reads_on(self, block: Block, done: Denoised) -> float:
        end = self.request.stops[0] if done.finished == "stop" else ""  # which the caller puts back
        return reads_on(self.model, block, done.text + end, self.contexts, self.request.cancelled)

    def _passes(self) -> bool:
        """Whether the whole is accepted as it is, or with the stop string behind what ended there: a caller who wants a
        line puts its end back himself."""
        accept = self.request.accept
        if accept is None:
            return True
        ended = [done is not None and done.finished == "stop" for done in self.chosen]
        ends = ["", *(stop.replace("\n", self.line_end) for stop in self.request.stops if any(ended))]
        versions = ([fill + end * cut for fill, cut in zip(self.fills, ended, strict=True)] for end in ends)
        return any(accept(apply_edits(self.text, self.holes, fills)) for fills in versions)

    def _draft(self, index: int, block: Block) -> tuple[Guess, ...]:
        """The hole's tokens of the round before, to start from; the last one only ended the fill."""
        last = self.chosen[index]
        if last is None:
            return self._given(index, block)
        return tuple(Guess(t, p, origin="given") for t, p in zip(last.tokens, last.confidence, strict=True))

    def _given(self, index: int, block: Block) -> tuple[Guess, ...]:
        """The caller's draft, behind the re-opened end of the prefix that the hole's tokens must spell first."""
        draft = normalise(self.request.drafts[index]) if self.request.drafts else ""
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
        stop = StopRule(block.suffix, self.request.stops, head=block.head, **block.reach._asdict())
        noise = model.noise(options.seed * 8191 + index) if options.temperature > 0 else None
        flag = getattr(self.request.cancelled, "flag", None)
        # Where nothing follows, nothing says that the hole ends here rather than later: there the model ends too early.
        end_bias = 0.0 if block.open_ended else options.end_bias
        session = model.session(noise, options.temperature, self.contexts, flag, end_bias, block.open_ended)
        problem = Problem(block.context, block.heal, stop, draft, barred)
        loop = denoise(session, problem, options, model.tokens, self.span_rows, self.request.cancelled)
        try:
            while True:
                run = next(loop)
                self._tell(Frame(index, round_, run.steps, run.places(), run.cut.text if run.cut else run.text))
        except StopIteration as end:
            done: Denoised = end.value
            self.found[index].append(done)
            return done
        finally:
            session.close()

    def _span(self, index: int) -> SpanFill:
        hole, last, all_ = self.holes[index], self._last(index), self.found[index]
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
            others=self.others[index],
        )
