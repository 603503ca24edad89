"""What to commit after a forward: small pure functions over what the model just said.

The vocabulary of DESIGN 2.2. *Drafts* are tentative tokens that the forward checked: `base[i]` is what the base puts
behind `i` of them, so `base[0]` judges the first draft and `base[-1]` follows the last. *Window* places stand behind
the drafts; the span row at window place w guesses place w + 1, the base guesses window place 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from diffcode.config import DenoiseOptions

EDIT_COMMITS = 0.9  # `edit` commits in parallel from here on: less than `threshold` dares, for it looks again

# That the base agrees with a draft that has no probability of its own. A token that stood here before the last change
# of the text nearly always stays.
CHANCES = {"ngram": 0.5, "given": 0.95}

Origin = Literal["base", "span", "ngram", "given"]


@dataclass(frozen=True, slots=True)
class Guess:
    """One token at one place and how sure its row was of it."""

    token: int
    probability: float
    margin: float = 0.0
    entropy: float = 0.0
    origin: Origin = "base"

    @property
    def chance(self) -> float:
        """That the base will agree with this draft."""
        return CHANCES.get(self.origin, self.probability)

    @property
    def wavering(self) -> float:
        """How likely the next likeliest token was beside this one, 0 to 1. A token never checked has no second."""
        return 0.0 if self.origin in CHANCES else max(0.0, 1 - self.margin / max(self.probability, 1e-9))


@dataclass(frozen=True, slots=True)
class View:
    """What a policy sees after one forward."""

    drafts: tuple[Guess, ...]
    base: tuple[Guess, ...]  # len(drafts) + 1
    window: tuple[Guess | None, ...]  # places behind the drafts; None is masked
    spans: tuple[tuple[Guess, ...], ...]  # [k]: guesses of the span rows standing behind k drafts; () where none stood
    follow: Callable[[Sequence[int]], int | None]  # n-gram continuation of the committed run plus these tokens

    def kept(self, count: int) -> tuple[Guess, ...]:
        """The first `count` drafts, as the base guessed them where it guessed the same."""
        pairs = zip(self.drafts[:count], self.base, strict=False)
        return tuple(base if base.token == draft.token else draft for draft, base in pairs)


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy makes of it. `commit` has at least one place, so every step moves on."""

    kept: int  # drafts that are now committed
    commit: tuple[Guess, ...]  # places committed behind them
    drafts: tuple[Guess, ...] = ()  # to be checked by the next forward
    window: tuple[Guess | None, ...] = field(default=())  # known places behind the drafts; more masks are added


Policy = Callable[[View, DenoiseOptions], Decision]


def leftmost(view: View, options: DenoiseOptions) -> Decision:
    """One place a step, by the base: left-to-right decoding, the baseline of every comparison."""
    return Decision(kept=0, commit=(view.base[0],))


def verified(view: View, options: DenoiseOptions) -> Decision:
    """Keep the drafts that the base agrees with and its own next token; the result is left-to-right's, token for token.

    New drafts come from the span rows that stood behind the kept run, and from n-gram matches where those are unsure.
    (Verification as in blockwise parallel decoding, Stern et al. 2018, with one network as both models.)
    """
    kept = 0
    while kept < len(view.drafts) and view.drafts[kept].token == view.base[kept].token:
        kept += 1
    following = view.base[kept]
    committed = [*(d.token for d in view.drafts[:kept]), following.token]
    guesses = view.spans[kept] if kept < len(view.spans) else ()
    drafts: list[Guess] = []
    while len(drafts) < options.max_drafts:
        span = guesses[len(drafts)] if len(drafts) < len(guesses) else None
        if span is not None and span.probability >= options.bound:
            drafts.append(span)
            continue
        token = view.follow([*committed, *(d.token for d in drafts)]) if options.ngrams else None
        if token is None:
            break
        drafts.append(Guess(token, 0.0, origin="ngram"))
    return Decision(kept, (following,), tuple(drafts))


def threshold(view: View, options: DenoiseOptions) -> Decision:
    """Commit every place whose token is likelier than the bound (Fast-dLLM's rule), and always the left-most."""
    return _fill_in(view, lambda guesses: [g.probability > options.bound for g in guesses])


def margin(view: View, options: DenoiseOptions) -> Decision:
    """Commit where the likeliest token leads the second by more than the bound (Kim et al. 2025, top-K margin)."""
    return _fill_in(view, lambda guesses: [g.margin > options.bound for g in guesses])


def entropy_bound(view: View, options: DenoiseOptions) -> Decision:
    """Commit the places of least entropy while the sum without the largest stays under the bound.

    EB-Sampler (Ben-Hamu et al. 2025, eq. 5): the bound limits what parallel places may know of each other.
    """

    def sure(guesses: Sequence[Guess]) -> list[bool]:
        picked, total = [False] * len(guesses), 0.0
        for i in sorted(range(len(guesses)), key=lambda i: guesses[i].entropy):
            if total > options.bound:
                break
            picked[i] = guesses[i].entropy <= options.bound
            total += guesses[i].entropy
        return picked

    return _fill_in(view, sure)


def edit(view: View, options: DenoiseOptions) -> Decision:
    """`threshold`, but what it committed in parallel stays open to the base's check when it joins the context.

    A token is replaced when the base, knowing the exact left side by then, holds another one likelier than the bound
    (token-to-token editing, LLaDA2.1). The places behind a replaced token stay as they are and are checked in turn.
    """
    bound = options.bound
    for i, draft in enumerate(view.drafts):
        if view.base[i].token != draft.token and view.base[i].probability > bound:
            rest = (*view.drafts[i + 1 :], *view.window)
            known = _known_run(rest)
            return Decision(i, (view.base[i],), rest[:known], rest[known:])  # type: ignore[arg-type]
    found = _fill_in(view, lambda guesses: [g.probability > EDIT_COMMITS for g in guesses])
    return Decision(found.kept, found.commit[:1], found.commit[1:], found.window)


def _fill_in(view: View, sure: Callable[[Sequence[Guess]], list[bool]]) -> Decision:
    """Commit the left-most place and every masked place that is `sure`; split the known run from the islands."""
    window = view.window
    places: list[Guess | None] = [(window[0] if window else None) or view.base[-1]]
    guesses = view.spans[-1] if view.spans else ()
    open_guesses = [g for w, g in enumerate(guesses, 1) if w >= len(window) or window[w] is None]
    verdict = iter(sure(open_guesses))
    for w in range(1, max(len(window), len(guesses) + 1)):
        known = window[w] if w < len(window) else None
        if known is None and w <= len(guesses) and next(verdict):
            known = guesses[w - 1]
        places.append(known)
    run = _known_run(places)
    return Decision(len(view.drafts), tuple(places[:run]), (), tuple(places[run:]))  # type: ignore[arg-type]


def _known_run(places: Sequence[Guess | None]) -> int:
    """Length of the run of known places at the left."""
    return next((i for i, place in enumerate(places) if place is None), len(places))


POLICIES: dict[str, Policy] = {
    "verified": verified,
    "threshold": threshold,
    "margin": margin,
    "entropy_bound": entropy_bound,
    "edit": edit,
    "leftmost": leftmost,
}
