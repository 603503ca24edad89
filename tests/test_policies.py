"""Policies as pure functions: given what a forward said, what is committed."""

import pytest

from diffcode.config import DenoiseOptions
from diffcode.policies import Guess, View, edit, entropy_bound, leftmost, margin, threshold, verified


def guess(token: int, p: float = 1.0, margin: float = 0.0, entropy: float = 0.0, origin: str = "span") -> Guess:
    return Guess(token, p, margin, entropy, origin)  # type: ignore[arg-type]


def view(base, drafts=(), window=(None,) * 4, spans=None, follow=lambda tail: None) -> View:
    spans = ((),) * len(base) if spans is None else spans
    return View(tuple(drafts), tuple(base), tuple(window), tuple(spans), follow)


def tokens(places) -> list[int | None]:
    return [p.token if p else None for p in places]


def test_leftmost_commits_the_base_token_alone():
    decision = leftmost(view([guess(7)], spans=[(guess(8),) * 4]), DenoiseOptions("leftmost"))
    assert tokens(decision.commit) == [7]
    assert decision.drafts == ()


def test_verified_keeps_the_run_that_the_base_agrees_with():
    drafts = [guess(1), guess(2), guess(3)]
    found = verified(view([guess(1), guess(9), guess(3), guess(4)], drafts), DenoiseOptions())
    assert found.kept == 1
    assert tokens(found.commit) == [9]


def test_verified_drafts_come_from_the_rows_behind_the_kept_run():
    spans = [(guess(50),), (guess(60), guess(61))]
    all_kept = verified(view([guess(1), guess(2)], [guess(1)], spans=spans), DenoiseOptions())
    assert tokens(all_kept.drafts) == [60, 61]
    refused = verified(view([guess(5), guess(2)], [guess(1)], spans=spans), DenoiseOptions())
    assert tokens(refused.drafts) == [50]


def test_verified_falls_back_on_ngrams_where_span_rows_are_unsure():
    asked = []

    def follow(tail):
        asked.append(list(tail))
        return 77 if len(asked) == 1 else None

    spans = [(guess(60, 0.9), guess(61, 0.1), guess(62, 0.9))]
    found = verified(view([guess(1)], spans=spans, follow=follow), DenoiseOptions(threshold=0.5))
    assert tokens(found.drafts) == [60, 77, 62]
    assert [d.origin for d in found.drafts] == ["span", "ngram", "span"]
    assert asked[0] == [1, 60], "the match continues the committed token and the drafts so far"


def test_threshold_commits_sure_places_anywhere():
    spans = [(guess(11, 0.2), guess(12, 0.95), guess(13, 0.3), guess(14, 0.99))]
    found = threshold(view([guess(10)], spans=spans), DenoiseOptions("threshold", 0.9))
    assert tokens(found.commit) == [10]
    assert tokens(found.window) == [None, 12, None, 14]


def test_a_run_that_closes_up_is_committed_whole():
    window = (None, guess(21), None, guess(23))
    spans = [(guess(90, 0.1), guess(22, 0.95), guess(91, 0.1), guess(92, 0.1))]
    found = threshold(view([guess(20)], window=window, spans=spans), DenoiseOptions("threshold", 0.9))
    assert tokens(found.commit) == [20, 21, 22, 23]
    assert tokens(found.window) in ([], [None])


def test_a_known_left_most_place_is_not_predicted_again():
    found = threshold(
        view([guess(5)], window=(guess(30), None), spans=[(guess(1, 0.1),) * 2]), DenoiseOptions("threshold")
    )
    assert tokens(found.commit)[0] == 30


def test_margin_and_threshold_differ_on_a_flat_winner():
    spans = [(guess(11, 0.95, margin=0.2),)]
    assert tokens(margin(view([guess(1)], spans=spans), DenoiseOptions("margin", 0.5)).commit) == [1]
    assert tokens(threshold(view([guess(1)], spans=spans), DenoiseOptions("threshold", 0.5)).commit) == [1, 11]


def test_entropy_bound_limits_the_sum_without_the_largest():
    spans = [tuple(guess(10 + i, entropy=e) for i, e in enumerate([0.06, 0.06, 0.06, 0.5]))]
    found = entropy_bound(view([guess(1)], spans=spans), DenoiseOptions("entropy_bound", 0.1))
    assert tokens(found.commit) == [1, 10, 11], "0.06 + 0.06 is over 0.1, so a third is not taken"


def test_edit_replaces_what_the_base_does_not_believe():
    drafts = [guess(1), guess(2), guess(3)]
    sure = view([guess(1), guess(9, 0.8), guess(3), guess(4)], drafts)
    found = edit(sure, DenoiseOptions("edit", 0.5))
    assert (found.kept, tokens(found.commit), tokens(found.drafts)) == (1, [9], [3])
    unsure = view([guess(1), guess(9, 0.3), guess(3), guess(4)], drafts, window=())
    found = edit(unsure, DenoiseOptions("edit", 0.5))
    assert (found.kept, tokens(found.commit)) == (3, [4])


@pytest.mark.parametrize("policy", [threshold, margin, entropy_bound, edit])
def test_without_span_rows_one_place_is_committed(policy):
    found = policy(view([guess(3)], window=()), DenoiseOptions("threshold"))
    assert tokens(found.commit) == [3]


def test_settings_from_one_word():
    options = DenoiseOptions.parse("verified:threshold=0.5:ngrams=0", max_tokens=9)
    assert options == DenoiseOptions("verified", threshold=0.5, ngrams=0, max_tokens=9)
    assert DenoiseOptions.parse("leftmost") == DenoiseOptions("leftmost")


def test_ngrams_can_be_left_out():
    found = verified(view([guess(1)], follow=lambda tail: 5), DenoiseOptions(ngrams=0))
    assert found.drafts == ()
