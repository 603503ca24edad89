"""Contexts that come again: what is kept of them, and that typing makes them come again."""

import random
from itertools import pairwise
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from diffcode.canvas import JUMPS, make_block
from diffcode.config import WindowOptions
from diffcode.contexts import DEAR, Contexts, common
from diffcode.holes import Hole
from diffcode.tokens import Tokens


@given(st.integers(0, 400), st.integers(0, 120), st.integers(0, 99))
@settings(max_examples=30)
def test_typing_leaves_the_canvas_what_it_was(tokens: Tokens, above: int, below: int, seed: int):
    """But for what is typed, and a jump of the window now and then."""
    window, rng = WindowOptions(256), random.Random(seed)
    before, behind = "a = b\n" * above, "\n" + "c = d\n" * below
    contexts = []
    for _ in range(60):
        before += rng.choice("abc d=()\n")
        contexts.append(make_block(before + behind, [Hole(len(before), len(before))], [""], 0, tokens, window).context)
    pairs = list(pairwise(contexts))
    stays = [common(old, new) >= len(old) - 8 for old, new in pairs]
    assert stays.count(False) <= 2 + 60 // (256 // JUMPS)


def test_contexts_are_bounded_and_the_longest_one_is_taken() -> None:
    contexts = Contexts(most_bytes=250)
    kept = [SimpleNamespace(bytes=100) for _ in range(3)]
    for i, session in enumerate(kept):
        contexts.give([*range(20), *[i] * 20], session)  # type: ignore[arg-type]
    assert contexts.take([*range(20), *[0] * 30]) == (kept[1], 20), "the first one had to go; any other is as good"
    assert contexts.take([*range(20), *[2] * 30]) == (kept[2], 40)
    assert contexts.take([*range(20), *[2] * 30]) is None
    contexts.give(range(30), kept[0])  # type: ignore[arg-type]
    assert contexts.take(range(15)) is None, "too little in common"
    assert contexts.take(range(30)) == (kept[0], 29), "the last token is always read: its row says what comes next"
    contexts.give(range(30), SimpleNamespace(bytes=251))  # type: ignore[arg-type]
    assert contexts.take(range(30)) is None, "too large to keep"


def test_what_would_lose_much_is_copied() -> None:
    contexts = Contexts()
    wide = SimpleNamespace(bytes=1, fork=lambda length: ("copy", length))
    contexts.give(range(100), wide)  # type: ignore[arg-type]
    assert contexts.take([*range(100 - DEAR), *[0] * 50]) == (("copy", 100 - DEAR), 100 - DEAR)
    assert contexts.known(range(101)) == 100, "the other one stays as it was"
    assert contexts.take([*range(101 - DEAR), *[0] * 50]) == (wide, 101 - DEAR), "so little is read again as fast"


@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)))
def test_common(one: list[int], other: list[int]) -> None:
    length = common(one, other)
    assert one[:length] == other[:length]
    assert length == min(len(one), len(other)) or one[length] != other[length]
