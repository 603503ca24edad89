"""Which places a span shows, and which it is scored on, against a slow model of its own."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcode.training.masks import MASKED, Span, draw_spans, make_span
from diffcode.training.options import DenoisingOptions

END = 999


@st.composite
def texts(draw: st.DrawFn) -> tuple[tuple[int, ...], int, int]:
    """(ids, where text begins, where the middle begins); every id is its own place, the last one is the end."""
    first = draw(st.integers(1, 8))
    middle = first + draw(st.integers(0, 40))
    length = middle + draw(st.integers(1, 30))
    return (*range(length - 1), END), first, middle


settings_of_spans = st.builds(
    DenoisingOptions,
    window=st.integers(1, 9),
    starts=st.integers(1, 40),
    near_middle=st.floats(0, 1),
    all_masked=st.sampled_from([0.0, 0.6, 1.0]),
    island_rate=st.floats(0, 1),
    noise=st.just(0.0),
)


def drawn(text: tuple[tuple[int, ...], int, int], options: DenoisingOptions, seed: int) -> list[Span]:
    return draw_spans(text[0], text[1], text[2], END, options, random.Random(seed))


def model_of(ids: tuple[int, ...], span: Span, options: DenoisingOptions) -> tuple[list[int], list[float]]:
    """(targets, weights) of a span without noise, read off what it shows, one row at a time."""
    targets, weights = [], []
    for w in range(options.window):
        place = span.start + w + 1  # what the row speaks of
        shown_there = w + 1 < options.window and span.shown[w + 1] != MASKED
        truth = ids[place] if place < len(ids) else END
        targets.append(-1 if shown_there else truth)
        if place >= len(ids):
            weights.append(options.dead_weight)
            continue
        hidden_before = 0  # places up to the row's own that stand hidden one after the other
        while hidden_before <= w and span.shown[w - hidden_before] == MASKED:
            hidden_before += 1
        weights.append(options.decay ** max(hidden_before - 1, 0))
    return targets, weights


@given(texts(), settings_of_spans, st.integers(0, 999))
def test_targets_and_weights_are_those_of_the_slow_model(
    text: tuple[tuple[int, ...], int, int], options: DenoisingOptions, seed: int
) -> None:
    ids = text[0]
    for span in drawn(text, options, seed):
        targets, weights = model_of(ids, span, options)
        assert list(span.targets) == targets
        assert list(span.weights) == pytest.approx(weights)
        truth = [ids[p] if p < len(ids) else END for p in range(span.start, span.start + options.window)]
        assert list(span.previous) == truth
        assert all(s in (MASKED, t) for s, t in zip(span.shown, truth, strict=True))


@given(texts(), settings_of_spans, st.integers(0, 999))
def test_spans_lie_in_the_text_and_hide_their_first_place(
    text: tuple[tuple[int, ...], int, int], options: DenoisingOptions, seed: int
) -> None:
    ids, first, _ = text
    spans = drawn(text, options, seed)
    starts = [span.start for span in spans]
    assert len(starts) == min(options.starts, len(ids) - 1 - first)
    assert all(first <= s < len(ids) - 1 for s in starts), "behind the end there is nothing to say"
    for span in spans:
        assert span.shown[0] == MASKED
        assert {len(span.shown), len(span.previous), len(span.targets), len(span.weights)} == {options.window}
        assert all(s == MASKED for w, s in enumerate(span.shown) if span.start + w >= len(ids)), (
            "no dead place is shown"
        )
    assert spans == drawn(text, options, seed)


@given(texts(), settings_of_spans, st.integers(0, 999))
def test_masks_come_in_complementary_pairs(
    text: tuple[tuple[int, ...], int, int], options: DenoisingOptions, seed: int
) -> None:
    """Of the two spans behind a start each scores what the other one shows, as far as the text goes."""
    options = replace(options, all_masked=0.0)
    spans = drawn(text, options, seed)
    for one, other in zip(spans[::2], spans[1::2], strict=False):
        assert one.start == other.start
        for w in range(1, min(options.window, len(text[0]) - one.start)):
            assert (one.shown[w] == MASKED) != (other.shown[w] == MASKED)
            assert (one.targets[w - 1] >= 0) != (other.targets[w - 1] >= 0)


def test_shares_are_those_asked_for() -> None:
    ids, rng = (*range(300), END), random.Random(3)
    options = DenoisingOptions(window=5, starts=40, near_middle=0.5, all_masked=0.6, island_rate=0.5)
    spans = [s for _ in range(200) for s in draw_spans(ids, 3, 200, END, options, rng)]
    inside = sum(s.start >= 199 for s in spans) / len(spans)
    # half of the starts are drawn from the middle, the others from all places, a third of them in it
    assert 0.55 < inside < 0.70
    masks_only = sum(set(s.shown) == {MASKED} for s in spans) / len(spans)
    assert 0.40 < masks_only < 0.62  # 0.6 of the starts, but the others have two spans each
    first_shown = [s for s in spans if s.shown[1:] != (MASKED,) * 4]
    assert {w for s in first_shown for w in range(5) if s.shown[w] != MASKED} == {1, 2, 3, 4}


def test_wrong_tokens_are_shown_at_their_share_and_their_places_are_scored() -> None:
    ids, rng = (*range(1000), END), random.Random(4)
    options = DenoisingOptions(window=8, noise=0.25)
    wrong = shown = 0
    for start in range(0, 900, 3):
        span = make_span(ids, start, END, frozenset({1, 2, 4, 7}), options, rng)
        for w in (1, 2, 4, 7):
            shown += 1
            is_wrong = span.shown[w] != ids[start + w]
            wrong += is_wrong
            assert span.targets[w - 1] == (ids[start + w] if is_wrong else -1), "a doubtful token is to be mended"
            assert span.previous[w] == span.shown[w]
        assert (span.targets[2], span.targets[4:6]) == (ids[start + 3], (ids[start + 5], ids[start + 6]))
        assert span.targets[7] == ids[start + 8]
    assert 0.20 < wrong / shown < 0.30


def test_a_span_by_hand() -> None:
    options = DenoisingOptions(window=6, noise=0.0, decay=0.5, dead_weight=0.1)
    span = make_span((10, 11, 12, 13, 14, END), 1, END, frozenset({2, 5}), options, random.Random(0))
    assert span.start == 1
    assert span.shown == (MASKED, MASKED, 13, MASKED, MASKED, MASKED)  # place 5 is behind the end
    assert span.previous == (11, 12, 13, 14, END, END)
    assert span.targets == (12, -1, 14, END, END, END)
    assert span.weights == (1.0, 0.5, 1.0, 1.0, 0.1, 0.1)


def test_a_text_with_no_place_has_no_span() -> None:
    assert draw_spans((1, 2, 3, END), 3, 3, END, DenoisingOptions(), random.Random(0)) == []
