"""A share of the tokens, whole tokens, and the same for the same seed."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_texts import texts

from diffcode.holes import Hole, apply_edits, check_holes
from diffcode.lsp.lexemes import lexemes
from diffcode.lsp.vary import rewrite, vary
from diffcode.syntax import LANGUAGES, Code

TEXT = """def area(r, pi=3.14):
    # πr²
    if r > 0.5 and name != "é😀 x":
        return pi * r ** 2
    return max(0, r)
"""
CODE = Code(TEXT, "python")


def spelt(holes) -> list[str]:
    return [TEXT[hole.start : hole.end] for hole in holes]


def test_lexemes_of_code_and_of_text():
    assert spelt(lexemes(TEXT, 0, 23, CODE)) == ["def", "area", "(", "r", ",", "pi", "=", "3.14", ")", ":"]
    assert spelt(lexemes(TEXT, 0, 23)) == ["def", "area", "(", "r", ",", "pi", "=", "3", ".", "14", ")", ":"]
    assert spelt(lexemes(TEXT, 6, 12, CODE)) == ["(", "r", ","], "nothing that is cut"
    broken = "x = a ??? b + 'a\\n b'\n"
    assert [broken[t.start : t.end] for t in lexemes(broken, 0, len(broken), Code(broken, "python"))][:4] != []


@given(st.floats(0, 1), st.integers(0, 2**32), st.data())
@settings(max_examples=60)
def test_the_share_is_kept(strength: float, seed: int, data: st.DataObject):
    start = data.draw(st.integers(0, len(TEXT)))
    end = data.draw(st.integers(start, len(TEXT)))
    holes = vary(TEXT, start, end, strength, random.Random(seed), CODE)
    assert holes == vary(TEXT, start, end, strength, random.Random(seed), CODE)
    if not TEXT[start:end].strip():
        assert holes == ()
        return
    check_holes(TEXT, [(hole.start, hole.end) for hole in holes])
    tokens = [t for t in lexemes(TEXT, 0, len(TEXT), CODE) if not TEXT[t.start :].startswith("#")]
    inside = [t for t in tokens if any(h.start <= t.start and t.end <= h.end for h in holes)]
    cut = [t for t in tokens for h in holes if t.start < h.start < t.end or t.start < h.end < t.end]
    whole = [t for t in tokens if start <= t.start and t.end <= end]
    if len(whole) > 2:
        assert not [t for t in cut if TEXT[t.start] not in "é"]
        assert abs(len(inside) - max(1, round(strength * len(whole)))) <= 2  # the words at the ends may be taken in
    assert all(TEXT[hole.start : hole.end].strip() == TEXT[hole.start : hole.end] != "" for hole in holes)


def test_exact_share_of_a_whole_selection():
    total = len(lexemes(TEXT, 0, len(TEXT), CODE)) - 1  # the comment stays
    for strength in (0.0, 0.1, 0.3, 0.5, 0.9, 1.0):
        for seed in range(5):
            holes = vary(TEXT, 0, len(TEXT), strength, random.Random(seed), CODE)
            masked = sum(len(lexemes(TEXT, h.start, h.end, CODE)) for h in holes)
            masked -= sum("# πr²" in TEXT[h.start : h.end] for h in holes)
            assert masked == max(1, round(strength * total))


def test_seeds_and_strengths_differ():
    assert len({vary(TEXT, 0, len(TEXT), 0.3, random.Random(seed), CODE) for seed in range(20)}) > 15
    runs = vary(TEXT, 0, len(TEXT), 0.3, random.Random(1), CODE)
    assert 2 <= len(runs) <= 6, "runs, not single tokens all over"
    every = [0] * len(TEXT)
    for seed in range(300):
        for hole in vary(TEXT, 0, len(TEXT), 0.2, random.Random(seed), CODE):
            for at in range(hole.start, hole.end):
                every[at] += 1
    assert all(every[t.start] for t in lexemes(TEXT, 0, len(TEXT), CODE) if TEXT[t.start] != "#"), "any may be masked"


def test_comments_are_varied_only_alone():
    at = TEXT.index("# πr²")
    assert spelt(vary(TEXT, at, at + 5, 0.1, random.Random(0), CODE)) == ["# πr²"]


@given(texts, st.floats(0, 1), st.sampled_from([*LANGUAGES, None]), st.data())
@settings(max_examples=60)
def test_any_selection_gives_good_holes(text: str, strength: float, language: str | None, data: st.DataObject):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    code = Code(text, language) if language else None
    holes = vary(text, start, end, strength, random.Random(0), code)
    assert bool(holes) == bool(text[start:end].strip())
    if holes:
        check_holes(text, [(hole.start, hole.end) for hole in holes])
    hole = rewrite(text, start, end, code)
    assert (hole is not None) == bool(text[start:end].strip())
    if hole:
        check_holes(text, [(hole.start, hole.end)])
        inner = text[start:end].strip()
        assert inner in text[hole.start : hole.end]


@pytest.mark.parametrize(
    ("selected", "hole"),
    [
        ("    if r > 0.5", "if r > 0.5"), ("    return max(0, r)\n", "return max(0, r)"),
        ("retu", "return"), ("rn pi * r ** 2\n    return m", "return pi * r ** 2\n    return max(0, r)"),
        ("> 0.5 and", "> 0.5 and"), ("é", '"é😀 x"'[1:-1]), ("pi=3", "pi=3.14"),
    ],
)  # fmt: skip
def test_rewrite_takes_whole_words_and_lines(selected: str, hole: str):
    start = TEXT.rindex(selected) if selected == "retu" else TEXT.index(selected)
    assert spelt([rewrite(TEXT, start, start + len(selected), CODE)]) == [hole]


def test_rewrite_keeps_the_indentation_outside():
    start = TEXT.index("    if r")
    hole = rewrite(TEXT, start, TEXT.index("    return max"), CODE)
    assert isinstance(hole, Hole)
    assert apply_edits(TEXT, [hole], ["pass"]).splitlines()[2] == "    pass"
