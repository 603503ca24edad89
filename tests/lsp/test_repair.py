"""What to mask round an error, from the smallest place to the statement; the least likely tokens."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_texts import texts

from diffcode.holes import check_holes
from diffcode.lsp.repair import Doubt, candidates, least_likely
from diffcode.syntax import LANGUAGES, Code

MARK = "¦"


def found(language: str | None, marked: str) -> list[tuple[str, str]]:
    start, end = marked.index(MARK), marked.rindex(MARK)
    text = marked.replace(MARK, "")
    code = Code(text, language) if language else None
    return [(c.kind, text[c.hole.start : c.hole.end]) for c in candidates(text, start, max(start, end - 1), code)]


@pytest.mark.parametrize(
    ("language", "marked", "expected"),
    [
        ("python", "x = 1\ny = ¦foo¦(x)\n", [("range", "foo"), ("line", "y = foo(x)")]),
        ("python", "def f():\n    y = g(¦\n    return y\n", None),
        ("python", "a = 1\nx = 1 +* ¦2\n", [("error", "x = 1 +* 2")]),
        ("c", "int f() { return 1¦ }\n",
         [("missing", ""), ("statement", "return 1"), ("line", "int f() { return 1 }")]),
        (None, "let y ¦be¦ 1\n", [("range", "be"), ("line", "let y be 1")]),
        ("python", "for x in y:\n    z(x\n)¦", [("line", ")")]),
        ("python", "x = f(\n    ¦a¦,\n    b,\n)\n",
         [("range", "a"), ("line", "a,"), ("statement", "x = f(\n    a,\n    b,\n)")]),
    ],
)  # fmt: skip
def test_candidates_grow(language: str | None, marked: str, expected: list[tuple[str, str]] | None):
    got = found(language, marked)
    sizes = [len(text) for _, text in got]
    assert sizes == sorted(sizes)
    assert len(set(got)) == len(got) >= 1
    if expected is not None:
        assert [c for c in got if c in expected] == expected, got
    else:
        assert [kind for kind, _ in got[:2]] == ["missing", "error"]


@pytest.mark.parametrize(
    ("language", "marked", "ends"),
    [
        ("python", "def f(a)¦\n    return a\n\n\nf(1)\n", ["def f(a)"]),
        ("python", "if a\n    b()\n    c()¦\n", ["if a", "if a\n    b()\n    c()"]),
        ("go", "package a\n\nfunc f() {\n\tx := []int{1, 2¦\n\tg(x)\n}\n", ["\tx := []int{1, 2"]),
        ("python", "x = ¦foo¦(y)\n", []),
    ],
)
def test_what_may_be_missing_comes_first(language: str, marked: str, ends: list[str]):
    """At the end of the error's first line, and of the line that is asked about."""
    start, end = marked.index(MARK), marked.rindex(MARK)
    text = marked.replace(MARK, "")
    holes = [c.hole for c in candidates(text, start, max(start, end - 1), Code(text, language)) if c.kind == "missing"]
    assert {text[: h.end].removeprefix("package a\n\nfunc f() {\n") for h in holes if h.start == h.end} >= set(ends)
    assert bool(holes) == bool(ends)


def test_an_error_over_half_the_file_is_cut_to_its_lines():
    text = "x = (1,\n" + "y = 2 y = 3\n" * 200
    at = len(text) // 2
    got = candidates(text, at, at, Code(text, "python"))
    assert got
    assert all(c.hole.end - c.hole.start <= 600 for c in got)


@given(texts, st.sampled_from([*LANGUAGES, None]), st.data())
@settings(max_examples=60)
def test_any_range_gives_good_holes(text: str, language: str | None, data: st.DataObject):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    for candidate in candidates(text, start, end, Code(text, language) if language else None):
        check_holes(text, [(candidate.hole.start, candidate.hole.end)])


TEXT = "total = price * amonut + tax\nreturn total\n"


def picked(chances: dict[str, float], at: str = "amonut", most: int = 6) -> list[str]:
    spans = [
        (TEXT.index(piece), piece)
        for piece in ("total", " =", " price", " *", " am", "onut", " +", " tax", "\n", "return")
    ]
    doubts = [Doubt(start, start + len(piece), chances.get(piece.strip(), 0.9)) for start, piece in spans]
    start = TEXT.index(at)
    holes = least_likely(TEXT, doubts, start, start + len(at), most, Code(TEXT, "python"))
    return [TEXT[hole.start : hole.end] for hole in holes]


def test_the_least_likely_tokens_are_picked_as_whole_words():
    assert picked({"onut": 0.001}) == ["amonut"], "a model's tokens are pieces of words"
    assert picked({"*": 0.05, "price": 0.01, "tax": 0.02}) == ["price *", "tax"]
    assert picked({"*": 0.05, "price": 0.01, "tax": 0.02}, most=1) == ["price"]
    assert picked({"": 0.0001, "tax": 0.02}) == ["tax"], "no hole of white space alone"


def test_without_a_doubt_the_least_likely_is_picked():
    assert picked({"tax": 0.3}) == ["tax"]
    assert picked({}) == ["amonut"], "of equals the nearest"
    assert least_likely(TEXT, [], 0, 3) == ()


def test_far_tokens_are_left():
    text = "x = 1\n" + "\n" * 500 + "y = 2\n"
    doubts = [Doubt(0, 1, 0.5), Doubt(len(text) - 6, len(text) - 5, 0.001)]
    assert [(h.start, h.end) for h in least_likely(text, doubts, 0, 1)] == [(0, 1)]
    assert least_likely(text, doubts, 250, 251) == ()


@given(texts, st.lists(st.tuples(st.integers(0, 60), st.integers(0, 6), st.floats(0, 1)), max_size=12))
def test_any_doubts_give_good_holes(text: str, raw: list[tuple[int, int, float]]):
    doubts = [Doubt(min(a, len(text)), min(a + n, len(text)), p) for a, n, p in raw]
    if holes := least_likely(text, doubts, 0, len(text)):
        check_holes(text, [(hole.start, hole.end) for hole in holes])
