"""Drafts from earlier matches, against a search through all that was said."""

import itertools
import math
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from diffcode.drafts import LONGEST, SHORTEST, NGrams, likeliest_outcomes

few = st.integers(0, 3)  # so few tokens that runs repeat
chunks = st.lists(st.lists(few, max_size=12), max_size=5)


def by_search(said: Sequence[int], tentative: Sequence[int]) -> int | None:
    """The longest run first, its latest place first; the run and what follows it must both have been said."""
    here = [*said, *tentative]
    for size in range(LONGEST, SHORTEST - 1, -1):
        if len(here) < size:
            continue
        for end in range(len(said) - 1, size - 1, -1):
            if list(said[end - size : end]) == here[len(here) - size :]:
                return said[end]
    return None


@given(parts=chunks, tentative=st.lists(few, max_size=6))
@example(parts=[[1, 2, 9, 1, 2]], tentative=[])
@example(parts=[[1, 1, 1]], tentative=[])
@settings(max_examples=600)
def test_a_draft_is_what_followed_the_longest_latest_match(parts: list[list[int]], tentative: list[int]):
    index, said = NGrams(), []
    for part in parts:
        index.extend(part)
        said += part
    assert index.follow(tentative) == by_search(said, tentative)
    assert index.follow(tuple(tentative)) == by_search(said, tentative)


@given(parts=chunks, tentatives=st.lists(st.lists(few, max_size=5), max_size=4))
def test_asking_and_the_size_of_the_steps_change_nothing(parts: list[list[int]], tentatives: list[list[int]]):
    said = [token for part in parts for token in part]
    stepwise, at_once = NGrams(), NGrams(said)
    for part in parts:
        stepwise.extend(tuple(part))
        stepwise.follow((1, 2, 3))
    assert [stepwise.follow(t) for t in tentatives] == [at_once.follow(t) for t in tentatives]


@pytest.mark.parametrize(
    ("said", "tentative", "draft"),
    [
        ([], [], None),
        ([1], [1, 2], None),
        ([1, 2], [], None),  # nothing follows it yet
        ([1, 2], [1, 2], None),
        ([1, 2, 3], [1, 2], 3),
        ([1, 2, 3], [2], None),  # the run over the seam is 3, 2; one token alone is no match
        ([1, 2, 3, 1], [2], 3),  # a run may cross the seam
        ([1, 2, 3, 1, 2], [], 3),
        ([1, 2, 3, 1, 2, 4], [1, 2], 4),  # the latest place
        ([0, 1, 2, 3, 9, 1, 2, 4], [0, 1, 2], 3),  # a longer match before a later one
        ([5, 0, 1, 2, 3, 6, 0, 1, 2, 4], [5, 0, 1, 2], 3),
        ([7, 5, 0, 1, 2, 3, 8, 5, 0, 1, 2, 4], [7, 5, 0, 1, 2], 4),  # five tokens back is too far to matter
        ([1, 1, 1], [], 1),  # places may overlap
    ],
)
def test_concrete_matches(said: list[int], tentative: list[int], draft: int | None):
    assert NGrams(said).follow(tentative) == draft


def test_the_tentative_tokens_are_not_remembered():
    index = NGrams([1, 2, 3])
    assert index.follow([1, 2, 5, 6]) is None
    assert index.follow([5]) is None
    index.extend([1])
    assert index.follow([2]) == 3


@given(chances=st.lists(st.floats(0, 1), max_size=5), count=st.integers(1, 7))
def test_the_likeliest_numbers_of_right_drafts(chances: list[float], count: int):
    """Against the sum over every pattern of right and wrong drafts."""
    shares = [0.0] * (len(chances) + 1)
    for pattern in itertools.product([True, False], repeat=len(chances)):
        share = math.prod(c if right else 1 - c for c, right in zip(chances, pattern, strict=True))
        shares[[*pattern, False].index(False)] += share
    found = likeliest_outcomes(chances, count)
    assert len(found) == min(count, len(shares)) == len(set(found))
    assert list(found) == sorted(found)
    left = [share for kept, share in enumerate(shares) if kept not in found]
    assert max(left, default=0) <= min(shares[kept] for kept in found) + 1e-9
