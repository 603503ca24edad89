"""Pieces of code in every language, in bytes, and never an exception."""

import random
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd_texts import texts

from diffcode.syntax import (
    BY_EXTENSION,
    EXTENSIONS,
    LANGUAGES,
    Code,
    Piece,
    faults,
    language_of,
    parse,
    pieces,
    walk,
)

# For each language a text and what must be found in it, by kind; § marks what is not ASCII.
SAMPLES: dict[str, tuple[str, dict[str, list[str]]]] = {
    "python": (
        '# é😀\ndef area(r, pi=3):\n    """π."""\n    if r > 0:\n        return pi * r ** 2\n    return max(0, r)\n',
        {
            "arguments": ["(r, pi=3)", "(0, r)"],
            "block": ["return pi * r ** 2"],
            "statement": ["return pi * r ** 2", "return max(0, r)", "if r > 0:\n        return pi * r ** 2"],
            "expression": ["pi * r ** 2", "r ** 2", "r > 0", "max(0, r)"],
        },
    ),
    "javascript": (
        "// é😀\nfunction area(r) {\n  const f = (x) => x + 1\n  if (r) { return f(r) }\n}\n",
        {
            "arguments": ["(r)", "(x)"],
            "block": ["{ return f(r) }"],
            "statement": ["const f = (x) => x + 1", "return f(r)", "if (r) { return f(r) }"],
            "expression": ["(x) => x + 1", "x + 1", "f(r)"],
        },
    ),
    "typescript": (
        "// é😀\nclass A<T> {\n  f(x: number): string { return `${x}` }\n}\n",
        {
            "arguments": ["(x: number)"],
            "block": ["{\n  f(x: number): string { return `${x}` }\n}", "{ return `${x}` }"],
            "statement": ["return `${x}`"],
            "expression": ["x: number"],
        },
    ),
    "tsx": (
        "// é😀\nconst a = (n: number) => <b title={t(n)}>hello</b>\n",
        {
            "arguments": ["(n: number)", "(n)"],
            "statement": ["const a = (n: number) => <b title={t(n)}>hello</b>"],
            "expression": ["<b title={t(n)}>hello</b>", "t(n)"],
        },
    ),
    "go": (
        "// é😀\npackage a\n\nfunc area(r int) int {\n\tif r > 0 {\n\t\treturn r * f(r, 1)\n\t}\n\treturn 0\n}\n",
        {
            "arguments": ["(r int)", "(r, 1)"],
            "block": ["{\n\t\treturn r * f(r, 1)\n\t}"],
            "statement": ["return r * f(r, 1)", "return 0"],
            "expression": ["r * f(r, 1)", "f(r, 1)", "r > 0"],
        },
    ),
    "rust": (
        "// é😀\nstruct S { a: u8 }\nfn area(r: u8) -> u8 {\n    let x = r + 1;\n    g(x, r)\n}\n",
        {
            "arguments": ["(r: u8)", "(x, r)"],
            "block": ["{\n    let x = r + 1;\n    g(x, r)\n}"],
            "statement": ["struct S { a: u8 }", "let x = r + 1;"],
            "expression": ["r + 1", "g(x, r)"],
        },
    ),
    "java": (
        "// é😀\nclass A {\n  int f(int x) { return g(x, 1) + x; }\n}\n",
        {
            "arguments": ["(int x)", "(x, 1)"],
            "block": ["{ return g(x, 1) + x; }"],
            "statement": ["return g(x, 1) + x;"],
            "expression": ["g(x, 1) + x", "g(x, 1)"],
        },
    ),
    "c": (
        "/* é😀 */\nint area(int r) {\n  if (r > 0) { return f(r, 1); }\n  return r ? 1 : 2;\n}\n",
        {
            "arguments": ["(int r)", "(r, 1)"],
            "block": ["{ return f(r, 1); }"],
            "statement": ["return f(r, 1);", "return r ? 1 : 2;"],
            "expression": ["f(r, 1)", "r > 0", "r ? 1 : 2"],
        },
    ),
    "cpp": (
        "// é😀\nnamespace n {\ntemplate <class T> T area(T r) { return r * f<T>(r, 1); }\n}\n",
        {
            "arguments": ["(T r)", "(r, 1)"],
            "block": ["{ return r * f<T>(r, 1); }"],
            "statement": ["return r * f<T>(r, 1);"],
            "expression": ["r * f<T>(r, 1)", "f<T>(r, 1)"],
        },
    ),
}


def found(text: str, language: str) -> list[Piece]:
    return pieces(parse(text, language))


def spelt(text: str, piece: Piece) -> str:
    return text.encode()[piece.start : piece.end].decode()


def test_every_language_has_a_sample() -> None:
    assert set(SAMPLES) == set(LANGUAGES) == set(EXTENSIONS)


@pytest.mark.parametrize("language", LANGUAGES)
def test_pieces_of_a_sample(language: str) -> None:
    """Offsets are bytes: behind é and an astral character they differ from characters and from UTF-16."""
    text, expected = SAMPLES[language]
    by_kind: dict[str, list[str]] = {}
    for piece in found(text, language):
        by_kind.setdefault(piece.kind, []).append(spelt(text, piece))
    assert set(by_kind) <= {"expression", "statement", "arguments", "block"}
    for kind, wanted in expected.items():
        assert [w for w in wanted if w not in by_kind.get(kind, [])] == [], by_kind


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_piece_is_the_whole_file_or_a_comment(language: str) -> None:
    text, _ = SAMPLES[language]
    for piece in found(text, language):
        assert (piece.start, piece.end) != (0, len(text.encode()))
        assert not spelt(text, piece).startswith(("#", "//", "/*"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_broken_code_is_read_and_what_is_broken_is_no_piece(language: str) -> None:
    text, _ = SAMPLES[language]
    rng = random.Random(language)
    for _ in range(40):
        at, cut = rng.randrange(len(text)), rng.randrange(12)
        broken = text[:at] + rng.choice(["", "(", "}", "'", "\0", "\ud800", "é"]) + text[at + cut :]
        check(broken, language)
    whole = len(found(text, language))
    assert 0 < len(found(text + text.replace("}", "").replace(")", ""), language)) < 3 * whole


def check(text: str, language: str) -> None:
    """Pieces lie in the text, nest, and none has an error in it."""
    tree = parse(text, language)
    size = len(text.encode(errors="surrogatepass"))
    here = pieces(tree)
    for piece in here:
        assert 0 <= piece.start <= piece.end <= size
    for i, outer in enumerate(here):
        for inner in here[i + 1 :]:
            apart = inner.start >= outer.end or inner.end <= outer.start
            assert apart or (outer.start <= inner.start and inner.end <= outer.end)
            if inner.start > outer.end:
                break
    errors = [(n.start_byte, n.end_byte) for n in walk(tree.root_node) if n.is_error or n.is_missing]
    for start, end in errors:  # one of just a piece's size may lie round it
        round_it = [p for p in here if p.start <= start < end <= p.end and (p.start, p.end) != (start, end)]
        assert round_it == []
    assert all(a.start <= b.start for a, b in pairwise(here)), "outermost first, then from left to right"


@given(texts, st.sampled_from(LANGUAGES))
def test_any_text_parses_and_its_pieces_nest(text: str, language: str) -> None:
    check(text, language)


@given(st.sampled_from(LANGUAGES), st.data())
def test_any_cut_of_real_code_parses(language: str, data: st.DataObject) -> None:
    text, _ = SAMPLES[language]
    start = data.draw(st.integers(0, len(text)))
    check(text[start : data.draw(st.integers(start, len(text)))], language)


def test_deep_nesting_is_no_recursion() -> None:
    depth = 1500
    assert len(found("f(" * depth + "0" + ")" * depth, "python")) >= depth


def test_an_empty_text_has_no_piece() -> None:
    for language in LANGUAGES:
        assert found("", language) == []


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("a.py", "python"), ("a/b.PYI", "python"), ("a.mjs", "javascript"), ("a.jsx", "javascript"),
        ("a.ts", "typescript"), ("a.d.ts", "typescript"), ("a.tsx", "tsx"), ("a.go", "go"), ("a.rs", "rust"),
        ("A.java", "java"), ("a.c", "c"),
        ("a.hpp", "cpp"), ("a.h", "cpp"), ("a.txt", None), ("py", None), (".py", None), ("a.", None),
    ],
)  # fmt: skip
def test_the_language_is_told_by_the_name(name: str, language: str | None) -> None:
    assert language_of(name) == language_of(Path(name)) == language


def test_no_ending_is_claimed_twice() -> None:
    assert len(BY_EXTENSION) == sum(map(len, EXTENSIONS.values()))


def test_an_unknown_language_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        parse("", "cobol")


@given(texts, st.data())
def test_characters_and_bytes_of_any_text(text: str, data: st.DataObject) -> None:
    code = Code(text, "python")
    at = data.draw(st.integers(0, len(text)))
    assert code.byte_of(at) == len(text[:at].encode())
    assert code.offset_of(code.byte_of(at)) == at
    for leaf in code.leaves():
        start, end = code.span(leaf)
        assert text[start:end] == code.spelt(leaf) != ""


@given(st.sampled_from(LANGUAGES), texts, st.data())
def test_edited_code_is_the_code_of_the_edited_text(language: str, new: str, data: st.DataObject) -> None:
    """Where nothing is broken the trees are equal; how errors are recovered from may depend on the old tree."""
    code = Code(SAMPLES[language][0], language)
    start = data.draw(st.integers(0, len(code.text)))
    end = data.draw(st.integers(start, min(len(code.text), start + 20)))
    before = str(code.root)
    edited = code.edited(start, end, new)
    fresh = Code(code.text[:start] + new + code.text[end:], language)
    assert edited.text == fresh.text
    assert str(code.root) == before, "the old code is as it was"
    assert (edited.root.start_byte, edited.root.end_byte) == (fresh.root.start_byte, fresh.root.end_byte)
    if not fresh.root.has_error:
        assert str(edited.root) == str(fresh.root)


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_edit_there_and_back_gives_the_same_tree(language: str) -> None:
    code = Code(SAMPLES[language][0], language)
    rng = random.Random(language)
    for _ in range(10):
        at = rng.randrange(len(code.text))
        there = code.edited(at, at, "é(")
        assert str(there.edited(at, at + 2, "").root) == str(code.root)


def test_leaves_are_the_tokens_within_a_range() -> None:
    code = Code("é = f(1)  # x\ng = 2\n", "python")
    assert [code.spelt(leaf) for leaf in code.leaves(4, 15)] == ["f", "(", "1", ")", "# x", "g"]
    assert [code.spelt(leaf) for leaf in code.leaves(0, 5)] == ["é", "=", "f"]
    assert [code.spelt(leaf) for leaf in code.leaves(7, 13)] == [")", "# x"], "nothing that is cut"


def test_round_a_place_innermost_first() -> None:
    code = Code("é = f(1, 2)\n", "python")
    kinds = [node.type for node in code.round(9, 10)]
    assert kinds == ["integer", "argument_list", "call", "assignment", "expression_statement", "module"]


def test_nodes_that_touch_a_range() -> None:
    code = Code("é = 1\nf(é, 22)\ng = 3\n", "python")
    spelt = [code.spelt(node) for node in code.touching(11, 13)]
    assert spelt[1:] == ["f(é, 22)", "f(é, 22)", "(é, 22)", "22"]
    assert [code.spelt(node) for node in code.touching(0, 0)][1:] == ["é = 1", "é = 1", "é"]
    assert len(list(code.touching(0, len(code.text)))) == len(list(walk(code.root)))


def test_faults_are_found_without_what_lies_in_them() -> None:
    assert faults(Code("x = 1\n", "python").root) == []
    code = Code("x = 1\nf(\ny = 2\n", "python")
    assert [code.span(node)[0] for node in faults(code.root)] == [6]
    missing = faults(Code("int f() { return 1 }\n", "c").root)
    assert [(node.is_missing, node.type) for node in missing] == [(True, ";")]
