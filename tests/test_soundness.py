"""Which fills make a syntax error, and which errors were there before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcode.errors import BadOption
from diffcode.evals.cuts import KINDS, library_cuts
from diffcode.holes import Hole, check_holes, find_marker
from diffcode.soundness import parses, sound
from diffcode.syntax import LANGUAGES

FAR = "def broken(:\n    pass\n\n\n"


def judged(text: str, *fills: str, language: str = "python") -> bool:
    """Whether the fills of the text's `???` are accepted."""
    accept = sound(text, find_marker(text, "???"), language)
    for fill in fills:
        text = text.replace("???", fill, 1)
    return accept(text)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_cut_out_of_the_library_is_accepted(kind: str) -> None:
    for line in library_cuts(kind, 40, seed=5):
        end = "\n" if kind == "line" else ""
        filled = f"{line.text[: line.at]}{line.solution}{end}{line.text[line.at :]}"
        assert sound(line.text, [Hole(line.at, line.at)], "python")(filled)


@pytest.mark.parametrize(
    ("language", "text", "good", "bad"),
    [
        ("python", "def f(x):\n    return ???\n", "x + 1", "x +"),
        ("javascript", "function f(x) {\n  return ???;\n}\n", "[x]", "[x"),
        ("typescript", "function f(x: ???): number {\n  return x;\n}\n", "number", "number)"),
        ("go", "package p\n\nfunc f(x int) int {\n\treturn ???\n}\n", "x * 2", "x * "),
        ("rust", "fn f(x: i32) -> i32 {\n    ???\n}\n", "x + 1", "x + }"),
        ("java", "class A { int f(int x) { return ???; } }\n", "x", "(x"),
        ("c", "int f(int x) { return ???; }\n", "x", "x)"),
        ("cpp", "int f(int x) { return ???; }\n", "g<int>(x)", "x)"),
    ],
)
def test_a_fill_that_breaks_its_line_is_refused(language: str, text: str, good: str, bad: str) -> None:
    assert judged(text, good, language=language)
    assert not judged(text, bad, language=language)
    assert judged(f"\ufeff{text}".replace("\n", "\r\n"), good, language=language)


@pytest.mark.parametrize("where", ["above", "below"])
def test_an_error_elsewhere_is_not_the_fills(where: str) -> None:
    text = "def f(x):\n    return ???\n\n\n"
    text = FAR + text if where == "above" else text + FAR
    assert judged(text, "x + 1")
    assert not judged(text, "x + (")


def test_a_hole_within_a_word_a_string_or_a_bracket() -> None:
    assert judged("import collec??? as c\n", "tions")
    assert judged('a = "one ???two"\nb = 1\n', 'more", "')
    assert not judged('a = "one ???two"\nb = 1\n', 'more" ')
    assert judged("f(a, ???\ng()\n", "b)")
    assert not judged("f(a, ???\ng()\n", "b")


def test_what_only_python_itself_refuses() -> None:
    assert not judged("try:\n    f()\n???\n", "g()")
    assert judged("try:\n    f()\n???\n", "finally:\n    g()")
    assert judged("    def method(self):\n        return ???\n", "1"), "a piece of a class, as a selection is"


@pytest.mark.parametrize(
    ("code", "valid"),
    [
        ("a = 1\n", True),
        ("    def f():\n        pass\n", True),
        ("'\\d'", True),
        ("a = (\n", False),
        ("def f(:\n", False),
        ("a = '\0'\n", False),
        ("(" * 300, False),
    ],
)
def test_python_is_asked_without_a_word_to_the_user(code: str, valid: bool, recwarn: pytest.WarningsRecorder) -> None:
    assert parses(code) == valid
    assert not recwarn


def test_several_holes_are_judged_together() -> None:
    text = "f(???)\ng(???)\n"
    assert judged(text, "1", "2")
    assert not judged(text, "1", "(2")
    assert not judged(text, "1)", "2")


def test_an_unknown_language_is_told() -> None:
    with pytest.raises(BadOption, match="no grammar for 'cobol'"):
        sound("x", [Hole(0, 1)], "cobol")


@given(text=st.text(max_size=60), fill=st.text(max_size=20), language=st.sampled_from(LANGUAGES), data=st.data())
def test_any_text_is_judged(text: str, fill: str, language: str, data: st.DataObject) -> None:
    text = text.replace("\r\n", "\n")
    start, end = sorted(data.draw(st.integers(0, len(text))) for _ in range(2))
    accept = sound(text, check_holes(text, [(start, end)]), language)
    assert accept(text[:start] + fill + text[end:]) in (True, False)
