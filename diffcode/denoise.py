"""The denoising loop of one hole: forward, decide, move on, until the fill ends.

Written against `Session`, what a loaded model offers, so that tests run it over models of their own making.
"""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from diffcode.config import DEFAULT_SPAN_ROWS, DenoiseOptions
from diffcode.drafts import NGrams, likeliest_outcomes
from diffcode.errors import CANCELLED, Cancelled
from diffcode.kernels.plan import SpanRows
from diffcode.policies import POLICIES, Decision, Guess, View
from diffcode.stops import Cut, StopRule
from diffcode.tokens import Tokens

# Less sure than this the model may not leave a hole empty: nothing marks where a hole begins, so at its first place
# it cannot tell whether the line before it was the answer already.
SURELY_EMPTY = 0.95
DEFAULT_SPAN = SpanRows(DEFAULT_SPAN_ROWS)


class Session(Protocol):
    """A canvas in a model: its cached context, and one forward at a time."""

    def step(
        self,
        fresh: Sequence[int],
        drafts: Sequence[int],
        window: Sequence[int | None],
        anchors: Sequence[int],
        first_place: int,
        allowed: Sequence[list[int] | None],
    ) -> tuple[tuple[Guess, ...], tuple[tuple[Guess, ...], ...]]:
        """One forward of `fresh` (joins the context), `drafts` (may join) and span rows over `window`.

        Returns `View.base` and `View.spans`. A copy of the window stands behind every number of drafts in `anchors`.
        `first_place` numbers the place that `base[0]` is about (for seeded sampling); `allowed[i]` limits the tokens
        of `base[i]`.
        """

    def keep(self, rows: int) -> None:
        """Let the first `rows` of the last forward's fresh and draft tokens stay in the context."""

    def close(self) -> None:
        """The fill is over."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place as a viewer sees it: `state` is "committed", "draft" or "mask" (then `text` is empty)."""

    text: str
    confidence: float
    state: str


@dataclass(frozen=True, slots=True)
class Frame:
    """The picture after one denoising step."""

    hole: int  # index into the holes in order of place
    round: int  # 0: first pass; 1: refinement in the light of the other holes; 2: another try
    step: int
    places: tuple[Place, ...]
    text: str  # the committed text so far


@dataclass(frozen=True, slots=True)
class Drafts:
    """How many drafts were checked by the base, and how many it agreed with."""

    span_proposed: int = 0
    span_accepted: int = 0
    ngram_proposed: int = 0
    ngram_accepted: int = 0

    def __add__(self, other: "Drafts") -> "Drafts":
        return Drafts(
            self.span_proposed + other.span_proposed,
            self.span_accepted + other.span_accepted,
            self.ngram_proposed + other.ngram_proposed,
            self.ngram_accepted + other.ngram_accepted,
        )


@dataclass(frozen=True, slots=True)
class Denoised:
    """One hole, filled. `tokens` end with the one that ended the fill; `text` is what goes into the hole."""

    text: str
    tokens: tuple[int, ...]
    confidence: tuple[float, ...]
    wavering: tuple[float, ...]  # of each token: how likely the next likeliest was beside it, 0 to 1
    finished: str
    steps: int
    forwards: int
    seconds: float
    context_seconds: float  # the first forward, which reads the whole context
    drafts: Drafts


@dataclass(frozen=True, slots=True)
class Barred:
    """A token that may not stand at a place of the fill."""

    place: int
    token: int


@dataclass(frozen=True, slots=True)
class Problem:
    """What one run of the loop is given."""

    context: tuple[int, ...]
    heal: bytes
    stop: StopRule
    draft: tuple[Guess, ...] = ()  # a warm start: the hole's tokens from before
    barred: Barred | None = None  # by the base; span rows do not know of it, so `verified` is the policy to use


class Run:
    """The state of the loop: what is committed, what comes next, what was counted."""

    def __init__(self, problem: Problem, options: DenoiseOptions, tokens: Tokens, span: SpanRows):
        self.problem, self.options, self.tokens = problem, options, tokens
        self.policy = POLICIES[options.policy]
        self.span_rows = (options.span_rows or span.places) if span.places and options.policy != "leftmost" else 0
        self.max_anchors = options.max_anchors or (max(1, span.outcomes) if options.span_rows else span.outcomes)
        self.committed: list[Guess] = []
        self.data = b""
        self.text = ""
        self.cut: Cut | None = None
        self.fresh: tuple[int, ...] = problem.context
        self.drafts: tuple[Guess, ...] = () if options.policy == "leftmost" else problem.draft[: options.max_tokens]
        self.insisting = False  # the next forward must bring text
        self.rechecking = bool(self.drafts) and options.policy not in ("verified", "edit")
        self.window: tuple[Guess | None, ...] = ()
        # The old tokens stand in front, so that a warm start resumes where it agrees again after a change.
        self.ngrams = NGrams((*(g.token for g in problem.draft), *problem.context))
        self.steps = self.forwards = 0
        self.counts = Drafts()

    def healing(self, tokens: Sequence[int]) -> bytes:
        """What is left of the re-opened prefix end behind the committed run and these tokens."""
        return self.problem.heal[len(self.data) + len(self.tokens.decode_bytes(list(tokens))) :]

    def look(self, session: Session) -> View:
        """One forward."""
        drafts = [d.token for d in self.drafts]
        allowed = [self._allowed(drafts[:i]) for i in range(len(drafts) + 1)]
        anchors = self.anchors()
        rows = self.span_rows if anchors and not self.rechecking else 0
        window = (*self.window, *[None] * (rows - len(self.window)))
        base, spans = session.step(
            self.fresh,
            drafts,
            [place.token if place else None for place in window[:rows]],
            anchors if rows else (),
            len(self.committed),
            allowed,
        )
        self.forwards += 1
        return View(self.drafts, base, window, spans, self.ngrams.follow)

    def _allowed(self, drafts: Sequence[int]) -> list[int] | None:
        """Which tokens may stand behind these drafts; None: any."""
        rest, barred = self.healing(drafts), self.problem.barred
        ids = self.tokens.compatible(rest) if rest else None
        if self.insisting and not drafts and ids is None:
            ids = self.tokens.text_ids
        if barred is None or barred.place != len(self.committed) + len(drafts):
            return ids
        if ids is None:
            ids = [*self.tokens.text_ids, self.tokens.fim.end]
        return [token for token in ids if token != barred.token] or ids

    def anchors(self) -> tuple[int, ...]:
        """Behind how many drafts span rows stand: guesses are wanted where the check is likeliest to end."""
        if self.options.policy != "verified":
            return (len(self.drafts),)
        return likeliest_outcomes([draft.chance for draft in self.drafts], self.max_anchors)

    def move(self, session: Session, view: View) -> None:
        """Decide and take the committed places over, one by one, until something ends the fill."""
        decision = self._recheck(view) if self.rechecking else self.policy(view, self.options)
        self.rechecking = False
        if self.healing([d.token for d in (*view.drafts[: decision.kept], decision.commit[0])]):
            # The other guesses took the re-opened end for spelt already.
            decision = Decision(decision.kept, decision.commit[:1])
        self.steps += 1
        decision = self._not_too_empty(view, decision)
        self.insisting = not decision.commit  # the last row is asked once more, and may not end
        self._count(view, decision.kept)
        chain = (*self.fresh, *(d.token for d in view.drafts[: decision.kept]))
        session.keep(len(chain) - self.insisting)
        for guess in (*view.kept(decision.kept), *decision.commit):
            self._commit(guess)
            if self.cut:
                return
        self.fresh = chain[-1:] if self.insisting else tuple(g.token for g in decision.commit)
        self.drafts, self.window = decision.drafts, self._alive(decision.window)

    def _not_too_empty(self, view: View, decision: Decision) -> Decision:
        """Without an end that would leave the hole empty where the model is not sure of it; no commit: ask again."""
        kept = decision.kept
        guesses = (*view.kept(kept), *decision.commit)
        ends = (i for i, guess in enumerate(guesses) if self.tokens.is_end(guess.token))
        at = next(ends, None)
        if at is None or self.insisting or guesses[at].probability >= SURELY_EMPTY:
            return decision
        if len(self.data) + len(self.tokens.decode_bytes([g.token for g in guesses[:at]])) > len(self.problem.heal):
            return decision
        return Decision(at, ()) if at <= kept else Decision(kept, decision.commit[: at - kept])

    def _alive(self, window: tuple[Guess | None, ...]) -> tuple[Guess | None, ...]:
        """The window up to the first end of text; what stands behind that is dead."""
        ends = [i for i, place in enumerate(window) if place and self.tokens.is_end(place.token)]
        return window[: ends[0] + 1] if ends else window

    def _recheck(self, view: View) -> Decision:
        """Refinement for policies without a check: keep what the base still agrees with, re-mask the rest."""
        places = [d if d.token == b.token else None for d, b in zip(view.drafts, view.base, strict=False)]
        return Decision(0, (view.base[0],), (), tuple(places[1:]))

    def _commit(self, guess: Guess) -> None:
        self.committed.append(guess)
        self.ngrams.extend([guess.token])
        heal = len(self.problem.heal)
        if self.tokens.is_end(guess.token):
            self.cut = self.problem.stop.finish(self.text, "eos")
            return
        self.data += self.tokens.bytes_of(guess.token)
        self.text = self.data[heal:].decode("utf8", errors="ignore")
        self.cut = self.problem.stop.check(self.text)
        if self.cut is None and len(self.committed) >= self.options.max_tokens:
            self.cut = self.problem.stop.finish(self.text, "budget")

    def _count(self, view: View, kept: int) -> None:
        for i, draft in enumerate(view.drafts):
            span, ok = draft.origin == "span", i < kept
            if draft.origin in ("span", "ngram"):
                self.counts += Drafts(int(span), int(span and ok), int(not span), int(not span and ok))

    def places(self) -> tuple[Place, ...]:
        """The picture for a viewer."""
        shown = [Place(self._show(g), g.probability, "committed") for g in self.committed]
        if self.cut:
            return tuple(shown)
        shown += [Place(self._show(g), g.probability, "draft") for g in self.drafts]
        window = (*self.window, *[None] * self.span_rows)[: max(self.span_rows, len(self.window))]
        return (
            *shown,
            *(Place(self._show(g), g.probability, "committed") if g else Place("", 0, "mask") for g in window),
        )

    def _show(self, guess: Guess) -> str:
        return self.tokens.bytes_of(guess.token).decode("utf8", errors="replace")


def denoise(
    session: Session,
    problem: Problem,
    options: DenoiseOptions,
    tokens: Tokens,
    span: SpanRows = DEFAULT_SPAN,
    cancelled: Callable[[], bool] | None = None,
) -> Generator[Run, None, Denoised]:
    """Fill one hole. Yields the run after every step; between two steps it may be dropped, or `cancelled` stops it.

    `span`: the span rows where the options do not say. The first forward counts: it reads the context and decides the
    first token, so that left-to-right decoding is one token a forward.
    """
    run = Run(problem, options, tokens, span)
    began, context_seconds = time.perf_counter(), 0.0
    while run.cut is None:
        if cancelled is not None and cancelled():
            raise Cancelled(CANCELLED)
        run.move(session, run.look(session))
        if run.steps == 1:
            context_seconds = time.perf_counter() - began
        if run.cut is None and run.steps == options.max_steps:
            run.cut = problem.stop.finish(run.text, "budget")
        yield run
    return Denoised(
        text=run.cut.text,
        tokens=tuple(g.token for g in run.committed),
        confidence=tuple(g.probability for g in run.committed),
        wavering=tuple(g.wavering for g in run.committed),
        finished=run.cut.reason,
        steps=run.steps,
        forwards=run.forwards,
        seconds=time.perf_counter() - began,
        context_seconds=context_seconds,
        drafts=run.counts,
    )
