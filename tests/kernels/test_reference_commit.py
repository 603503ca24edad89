"""`commit` on tensors decides what `diffcode.policies` decides, and cuts where the denoising loop cuts."""

import pytest
import torch
from commits import BOUNDS, ENDS, EXACT, TOKENS, forwarded
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcode.config import DEFAULT_THRESHOLDS, DenoiseOptions
from diffcode.kernels.reference_commit import EDIT_COMMITS, MASKED, Committed, Forwarded, commit
from diffcode.policies import EDIT_COMMITS as POLICY_EDIT_COMMITS
from diffcode.policies import POLICIES, Decision, Guess, View

END = TOKENS - 1


def view(seen: Forwarded, fill: int) -> View:
    """One fill of a batch as the policies see it."""
    drafts = int(seen.drafts_B[fill])

    def guess(of, *at: int) -> Guess:
        more = (of.margin[at], of.entropy[at]) if hasattr(of, "margin") else ()
        return Guess(int(of.token[at]), *(float(t) for t in (of.probability[at], *more)))

    spans: list[tuple[Guess, ...]] = [()] * (drafts + 1)
    for a, anchor in enumerate(seen.anchor_BA[fill].tolist()):
        if 0 <= anchor <= drafts:
            spans[anchor] = tuple(guess(seen.span_BAS, fill, a, s) for s in range(seen.span_BAS.token.shape[2]))
    shown = seen.window_BW.token[fill].tolist()
    return View(
        drafts=tuple(guess(seen.draft_BN, fill, i) for i in range(drafts)),
        base=tuple(guess(seen.base_BM, fill, i) for i in range(drafts + 1)),
        window=tuple(None if t == MASKED else guess(seen.window_BW, fill, w) for w, t in enumerate(shown)),
        spans=tuple(spans),
        follow=lambda _: None,
    )


def expected(decision: Decision, seen: View, left: int) -> tuple[int, int, int, list[int], int, bool]:
    """The numbers that the loop would arrive at, with its own cuts."""
    alive, window = True, []
    for place in decision.window:
        window.append(place.token if place and alive else MASKED)
        alive = alive and not (place and place.token == END)
    places = [*(g.token for g in (*decision.commit, *decision.drafts)), *window]
    taken, finished = 0, False
    for token in (*(d.token for d in seen.drafts[: decision.kept]), *(g.token for g in decision.commit)):
        taken += 1
        if token == END or taken == left:
            finished = True
            break
    return decision.kept, len(decision.commit), len(decision.drafts), places, taken, finished


def found(out: Committed, fill: int) -> tuple[int, int, int, list[int], int, bool]:
    counts = (int(t[fill]) for t in (out.kept_B, out.commit_B, out.drafts_B))
    return (*counts, out.place_BP[fill].tolist(), int(out.taken_B[fill]), bool(out.finished_B[fill]))


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 6), st.integers(1, 6), st.integers(1, 3), st.data())
def test_it_decides_what_the_policy_decides(policy: str, seed: int, most: int, window: int, anchors: int, data) -> None:
    spans, left = data.draw(st.integers(0, window - 1)), data.draw(st.integers(1, 12))
    fills, anchors = 6, min(anchors, most + 1)
    seen = forwarded(fills, most, window, anchors, spans, seed)
    bound = data.draw(st.sampled_from((BOUNDS[policy], EXACT[policy])))
    bound_B = torch.full((fills,), bound, dtype=torch.float64)
    out = commit(policy, seen, bound_B, torch.full((fills,), left), ENDS)
    options = DenoiseOptions(policy, bound, max_drafts=most, ngrams=0)
    for fill in range(fills):
        one = view(seen, fill)
        *counts, places, taken, finished = expected(POLICIES[policy](one, options), one, left)
        *mine, my_places, my_taken, my_finished = found(out, fill)
        places += [MASKED] * (most + window - len(places))
        assert (mine, my_places, my_taken, my_finished) == (counts, places, taken, finished)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(list(POLICIES)))
def test_probabilities_are_those_of_the_tokens(seed: int, policy: str) -> None:
    seen = forwarded(5, 3, 4, 1, 3, seed)
    bound_B = torch.full((5,), BOUNDS[policy], dtype=torch.float64)
    out = commit(policy, seen, bound_B, torch.full((5,), 99), ENDS)
    options = DenoiseOptions(policy, max_drafts=3, ngrams=0)
    assert (out.probability_BP[out.place_BP == MASKED] == 0).all()
    for fill in range(5):
        decision = POLICIES[policy](view(seen, fill), options)
        sure = [g.probability for g in (*decision.commit, *decision.drafts)]
        assert out.probability_BP[fill, : len(sure)].tolist() == sure


def test_bounds_are_the_policies() -> None:
    assert BOUNDS == DEFAULT_THRESHOLDS
    assert EDIT_COMMITS == POLICY_EDIT_COMMITS
