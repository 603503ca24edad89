"""The denoising loop over a model of our own making, whose left-to-right answer is known.

Property: whatever the drafts are worth, `verified` gives left-to-right's tokens, and every policy ends.
"""

import random
import types
import typing
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcode.config import DenoiseOptions
from diffcode.denoise import Barred, Denoised, Problem, Run, denoise
from diffcode.errors import Cancelled
from diffcode.kernels.plan import NO_SPAN, SpanRows
from diffcode.policies import POLICIES, Guess
from diffcode.stops import StopRule

END = 256


class ByteTokens:
    """A vocabulary of the 256 bytes, a few pairs of them, and an end token."""

    pairs: typing.ClassVar = {257: b"ab", 258: b"bc", 259: b"  ", 260: b"aa"}

    text_ids: typing.ClassVar = [*range(256), *pairs]
    fim: typing.ClassVar = types.SimpleNamespace(end=END)

    def is_end(self, token: int) -> bool:
        return token == END

    def bytes_of(self, token: int) -> bytes:
        return self.pairs.get(token, b"" if token == END else bytes([token % 256]))

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return b"".join(map(self.bytes_of, ids))

    def compatible(self, start: bytes) -> list[int]:
        table = {i: self.bytes_of(i) for i in [*range(256), *self.pairs]}
        return [i for i, b in table.items() if b.startswith(start) or start.startswith(b)]


class FakeSession:
    """A model that continues its context by a hash of it, with span rows that are right with probability `skill`.

    It keeps the books of a real session: what is in the context, what the last forward added, what may be kept.
    """

    def __init__(self, seed: int, skill: float, alphabet: Sequence[int], least: float = 0.0):
        self.seed, self.skill, self.alphabet = seed, skill, alphabet
        self.least = least  # probability that a span row claims
        self.rng = random.Random(seed)
        self.context: list[int] = []
        self.sent: list[int] = []
        self.rows = 0

    def next_token(self, context: Sequence[int], allowed: Sequence[int] | None = None) -> int:
        choices = sorted(allowed) if allowed is not None else self.alphabet
        return random.Random(repr((self.seed, tuple(context[-3:]), len(context) % 7))).choice(choices)

    def step(self, fresh, drafts, window, anchors, first_place, allowed):
        assert fresh, "a forward without a fresh token has nothing to predict from"
        assert len(allowed) == len(drafts) + 1
        self.sent = [*fresh, *drafts]
        base = []
        for i in range(len(drafts) + 1):
            seen = [*self.context, *fresh, *drafts[:i]]
            token = self.next_token(seen, allowed[i])
            sure = random.Random(repr((self.seed, "sure", seen))).random()  # left-to-right must be as sure of it
            base.append(Guess(token, sure, self.rng.random(), self.rng.random()))
        spans = [()] * (len(drafts) + 1)
        for anchor in anchors:
            spans[anchor] = self.span_guesses([*self.context, *fresh, *drafts[:anchor]], window)
        self.rows += 1
        return tuple(base), tuple(spans)

    def span_guesses(self, seen: list[int], window: Sequence[int | None]) -> tuple[Guess, ...]:
        guesses = []
        for place in [*window]:
            seen = [*seen, place if place is not None else self.next_token(seen)]
            token = self.next_token(seen) if self.rng.random() < self.skill else self.rng.choice(self.alphabet)
            sure = self.rng.uniform(self.least, 1)
            guesses.append(Guess(token, sure, self.rng.random(), self.rng.random(), "span"))
        return tuple(guesses)

    def keep(self, rows: int) -> None:
        assert 0 <= rows <= len(self.sent)
        self.context += self.sent[:rows]
        self.sent = []


def finish(loop: typing.Generator[object, None, Denoised]) -> Denoised:
    while True:
        try:
            next(loop)
        except StopIteration as end:
            return end.value


def run(
    options: DenoiseOptions,
    seed: int,
    skill: float,
    heal: bytes = b"",
    draft=(),
    stop=None,
    least: float = 0.0,
    barred: Barred | None = None,
) -> Denoised:
    alphabet = [*range(97, 103), 10, 257, 258, END]
    session = FakeSession(seed, skill, alphabet, least)
    problem = Problem((1, 2, 3, 97, 98), heal, stop or StopRule(""), tuple(draft), barred)
    return finish(denoise(session, problem, options, ByteTokens()))  # type: ignore[arg-type]


skills = st.sampled_from([0.0, 0.5, 0.9, 1.0])
heals = st.sampled_from([b"", b"a", b"ab", b"abc", b"    ", b"aab"])


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10_000), skill=skills, heal=heals, at=st.integers(0, 30), warm=st.booleans())
def test_a_barred_token_stands_elsewhere_only(seed, skill, heal, at, warm):
    """And before its place everything is as it was, whether the tokens there are given or found again."""
    first = run(DenoiseOptions("verified", max_tokens=40), seed, skill, heal)
    at = min(at, len(first.tokens) - 1)
    kept = [Guess(t, 1.0, origin="given") for t in first.tokens[:at]] if warm else ()
    options = DenoiseOptions("verified", max_tokens=40)
    again = run(options, seed, skill, heal, kept, barred=Barred(at, first.tokens[at]))
    assert again.tokens[:at] == first.tokens[:at]
    only = ByteTokens().compatible(heal[len(ByteTokens().decode_bytes(first.tokens[:at])) :])
    assert again.tokens[at] != first.tokens[at] or only == [first.tokens[at]]


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    skill=skills,
    heal=heals,
    max_anchors=st.integers(1, 9),
    max_drafts=st.integers(0, 8),
    bound=st.sampled_from([0.0, 0.5, 1.1]),
    warm=st.lists(st.integers(97, 102), max_size=20),
)
def test_verified_gives_left_to_rights_tokens(seed, skill, heal, max_anchors, max_drafts, bound, warm):
    left = run(DenoiseOptions("leftmost", max_tokens=40), seed, skill, heal)
    options = DenoiseOptions("verified", threshold=bound, max_tokens=40, max_anchors=max_anchors, max_drafts=max_drafts)
    draft = [Guess(t, 1.0, origin="given") for t in warm]
    found = run(options, seed, skill, heal, draft)
    assert found.tokens == left.tokens
    assert (found.text, found.finished) == (left.text, left.finished)
    assert found.forwards <= left.forwards
    asked_again = left.forwards - len(left.tokens)
    assert asked_again in (0, 1), (
        "left-to-right decoding is one token a forward, and one more where it left the hole empty"
    )


@settings(max_examples=200, deadline=None)
@given(policy=st.sampled_from(sorted(POLICIES)), seed=st.integers(0, 10_000), skill=skills, heal=heals)
def test_every_policy_ends_and_heals(policy, seed, skill, heal):
    found = run(DenoiseOptions(policy, max_tokens=30), seed, skill, heal)
    assert len(found.tokens) <= 30
    assert len(found.tokens) == len(found.confidence)
    assert found.forwards == found.steps <= len(found.tokens) + 1
    spelt = ByteTokens().decode_bytes(found.tokens)
    assert spelt.startswith(heal) or heal.startswith(spelt), "the span begins with the re-opened end of the prefix"
    assert END not in found.tokens[:-1], "nothing stands behind the end"


@settings(max_examples=100, deadline=None)
@given(policy=st.sampled_from(sorted(POLICIES)), seed=st.integers(0, 10_000), warm=st.lists(st.integers(97, 102)))
def test_a_warm_start_is_only_a_draft(policy, seed, warm):
    draft = [Guess(t, 1.0, origin="given") for t in warm]
    found = run(DenoiseOptions(policy, max_tokens=30), seed, 1.0, draft=draft)
    assert 1 <= len(found.tokens) <= 30


def test_a_right_warm_start_is_confirmed_by_one_forward():
    cold = run(DenoiseOptions("leftmost", max_tokens=12), 5, 1.0)
    draft = [Guess(t, 1.0, origin="given") for t in cold.tokens]
    warm = run(DenoiseOptions("verified", max_tokens=12), 5, 1.0, draft=draft)
    assert warm.tokens == cold.tokens
    assert warm.forwards == 1


def tokens_a_forward(skill: float, least: float, **more: typing.Any) -> float:
    options = DenoiseOptions("verified", threshold=0, max_tokens=40, **more)
    found = [run(options, seed, skill, least=least) for seed in range(60)]
    return sum(len(f.tokens) for f in found) / sum(f.forwards for f in found)


def test_perfect_drafts_save_forwards():
    assert tokens_a_forward(1.0, 0.9) > 2.5, "four right drafts a forward must show"


def test_guesses_for_more_outcomes_save_forwards():
    found = [tokens_a_forward(0.7, 0.0, max_anchors=anchors) for anchors in (1, 2, 5)]
    assert found[0] * 1.05 < found[1] < found[2] / 1.05


def test_span_rows_stand_where_the_check_will_likely_end():
    """Drafts of 0.9 and 0.1: the first is right and the second is not."""
    guesses = [Guess(97, p, origin="span") for p in (0.9, 0.1, 0.9)]
    loop = Run(Problem((1,), b"", StopRule("")), DenoiseOptions("verified", max_anchors=1), ByteTokens(), SpanRows(4))
    loop.drafts = tuple(guesses)
    assert loop.anchors() == (1,)
    loop.drafts = tuple(Guess(97, 0.0, origin="given") for _ in range(8))
    assert loop.anchors() == (8,)
    loop = Run(Problem((1,), b"", StopRule("")), DenoiseOptions("edit", max_anchors=3), ByteTokens(), SpanRows(4))
    loop.drafts = tuple(guesses)
    assert loop.anchors() == (3,), "edit decides behind all of them"


def test_islands_are_committed_before_the_places_left_of_them():
    seen = []
    alphabet = [97, 98, 99]
    session = FakeSession(3, 1.0, alphabet)
    problem = Problem((1, 2, 3), b"", StopRule(""))
    loop = denoise(session, problem, DenoiseOptions("threshold", 0.6, max_tokens=40), ByteTokens())  # type: ignore[arg-type]
    for state in loop:
        seen.append([place.state for place in state.places()])
    assert any("mask" in s and "committed" in s[s.index("mask") :] for s in seen)


def test_cancelled_between_steps():
    asked = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) > 2

    session = FakeSession(1, 0.5, [97, 98])
    loop = denoise(
        session, Problem((1, 2), b"", StopRule("")), DenoiseOptions("leftmost"), ByteTokens(), SpanRows(4), cancelled
    )  # type: ignore[arg-type]
    with pytest.raises(Cancelled):
        list(loop)
    assert session.rows == 2


def test_budget_and_steps_end_a_fill():
    by_tokens = run(DenoiseOptions("leftmost", max_tokens=3), 2, 1.0, stop=StopRule(""))
    assert len(by_tokens.tokens) <= 3
    by_steps = run(DenoiseOptions("verified", max_tokens=40, max_steps=2), 11, 1.0)
    assert by_steps.steps <= 2


def test_stop_string_is_not_part_of_the_text():
    for seed in range(30):
        found = run(DenoiseOptions("verified", max_tokens=40), seed, 0.5, stop=StopRule("", stops=("\n",)))
        assert "\n" not in found.text
        if found.finished == "stop":
            assert ByteTokens().bytes_of(found.tokens[-1]) == b"\n"


class Unsure(FakeSession):
    """Ends at once with the given certainty; may it not, it writes one letter and ends."""

    def __init__(self, certainty: float):
        super().__init__(0, 1.0, [END])
        self.certainty = certainty

    def step(self, fresh, drafts, window, anchors, first_place, allowed):
        base, spans = super().step(fresh, drafts, window, anchors, first_place, allowed)
        token = END if allowed[0] is None else 120
        return (Guess(token, self.certainty), *base[1:]), spans


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize(
    ("certainty", "text", "tokens", "forwards"), [(0.6, "x", (120, END), 3), (0.99, "", (END,), 1)]
)
def test_a_hole_stays_empty_only_if_the_model_is_sure(policy, certainty, text, tokens, forwards):
    session = Unsure(certainty)
    loop = denoise(session, Problem((1, 2, 3), b"", StopRule("")), DenoiseOptions(policy), ByteTokens(), NO_SPAN)  # type: ignore[arg-type]
    found = finish(loop)
    assert (found.text, found.tokens, found.forwards, found.finished) == (text, tokens, forwards, "eos")
    assert session.context == [1, 2, 3, *tokens[:-1]], "every row is in the context once"


class Hasty(FakeSession):
    """Spells the re-opened end, then would rather end than write; its span rows say nothing but the end."""

    def step(self, fresh, drafts, window, anchors, first_place, allowed):
        self.sent = [*fresh, *drafts]
        base = []
        for i in range(len(drafts) + 1):
            behind = self.sent[len(fresh) - 1 + i]
            end = Guess(END, 0.99) if behind == 120 else Guess(END, 0.6) if allowed[i] is None else Guess(120, 0.3)
            base.append(end if behind in (97, 120) else Guess(97, 0.9))
        spans = tuple(
            tuple(Guess(END, 0.94, origin="span") for _ in window) if i in anchors else ()
            for i in range(len(drafts) + 1)
        )
        return tuple(base), spans


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_a_drafted_end_does_not_leave_the_hole_empty_either(policy):
    problem = Problem((1, 2, 3), b"a", StopRule(""))
    loop = denoise(Hasty(0, 1.0, [END]), problem, DenoiseOptions(policy), ByteTokens(), SpanRows(4))  # type: ignore[arg-type]
    found = finish(loop)
    assert (found.text, found.tokens) == ("x", (97, 120, END))
