"""Silence where it is right, speech where it is not, and quickly."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lsp_noise import LOUD_ASKED, LOUD_SHOWN, QUIET_ASKED, QUIET_SHOWN, Asked, Shown
from odd_texts import texts

from diffcode.holes import Hole
from diffcode.lsp.gates import BEFORE_ASKING, BEFORE_SHOWING, GateOptions, RecentEdit, worth_asking, worth_showing
from diffcode.lsp.showing import deletions
from diffcode.lsp.tidy import Style, style_of, tidy
from diffcode.syntax import LANGUAGES, Code

MARK = "¦"


def name(case: Asked | Shown) -> str:
    return f"{case.gate}-{case.language}-{case.text[-40:]!r}"


def asked(case: Asked):
    cursor = case.text.index(MARK)
    edits = [RecentEdit(cursor, case.deleted, "")] if case.deleted else []
    text = case.text.replace(MARK, "")
    return worth_asking(text, cursor, case.trigger, case.language, edits, uri=case.uri)


def shown(case: Shown):
    start, end = case.text.index(MARK), case.text.rindex(MARK)
    hole = Hole(start, max(start, end - 1))
    text = case.text.replace(MARK, "")
    return worth_showing(
        text, hole, case.new, case.trigger, case.language, case.edits, confidence=case.confidence
    )  # fmt: skip


@pytest.mark.parametrize("case", QUIET_ASKED, ids=name)
def test_silence_before_asking(case: Asked):
    verdict = asked(case)
    assert (verdict.ok, verdict.gate) == (False, case.gate)
    assert verdict.reason


@pytest.mark.parametrize("case", QUIET_SHOWN, ids=name)
def test_silence_before_showing(case: Shown):
    verdict = shown(case)
    assert (verdict.ok, verdict.gate) == (False, case.gate)
    assert verdict.reason


@pytest.mark.parametrize("case", LOUD_ASKED, ids=name)
def test_asking_is_right(case: Asked):
    verdict = asked(case)
    assert verdict.ok, verdict
    if case.many is not None:
        assert verdict.multi_line == case.many


@pytest.mark.parametrize("case", LOUD_SHOWN, ids=name)
def test_showing_is_right(case: Shown):
    verdict = shown(case)
    assert verdict.ok, verdict
    assert verdict.text == (case.becomes or case.new)


def test_every_gate_has_its_complaint_and_a_case():
    gates = [gate for gate, _ in (*BEFORE_ASKING, *BEFORE_SHOWING)]
    assert all(gate.__doc__ for gate in gates)
    assert {case.gate for case in QUIET_ASKED} == {gate.__name__ for gate, _ in BEFORE_ASKING}
    assert {case.gate for case in QUIET_SHOWN} == {gate.__name__ for gate, _ in BEFORE_SHOWING}
    assert len(QUIET_ASKED) >= 60
    assert len(LOUD_ASKED) + len(LOUD_SHOWN) >= 30


def test_by_hand_opens_what_is_a_matter_of_taste():
    """With a request by hand each automatic gate's case passes that gate, and only that kind of gate."""
    always = {gate.__name__ for gate, always in (*BEFORE_ASKING, *BEFORE_SHOWING) if always}
    for case in QUIET_ASKED:
        assert (asked(replace(case, trigger="invoked")).gate == case.gate) == (case.gate in always)


def test_confidence_is_an_option():
    text, hole = "x = \n", Hole(4, 4)
    for least, ok in ((0.2, True), (0.5, False)):
        options = GateOptions(least_confidence=least)
        assert worth_showing(text, hole, "f(1)", options=options, confidence=(0.3, 0.4)).ok is ok


# ---- tidying


@pytest.mark.parametrize(
    ("text", "style"),
    [
        ("if a:\n    b\n", Style(False, 4)), ("if a:\n  b\n  if c:\n    d\n", Style(False, 2)),
        ("f {\n\tb\n\tc\n}\n", Style(True, 4)), ("a\nb\n", None), ("", None),
        ("if a:\r\n   b\r\n", Style(False, 3)),
    ],
)  # fmt: skip
def test_style_of_a_buffer(text: str, style: Style | None):
    assert style_of(text) == style


def test_the_editors_word_counts_where_the_buffer_has_none():
    two = Style(False, 2)
    assert style_of("a\n", two) == two
    assert style_of("if a:\n    b\n", two) == Style(False, 4)
    assert tidy("def f():\n", Hole(8, 8), "\n    x\n    y", Code("def f():\n", "python"), two) == "\n  x\n  y"
    assert tidy("def f():\n", Hole(8, 8), "\n    x", Code("def f():\n", "python"), Style(True, 4)) == "\n\tx"


def test_lined_up_arguments_stay_lined_up():
    text = "def g():\n    x = 1\n    y = \n"
    new = "f(a,\n          b,\n          c)"
    assert tidy(text, Hole(len(text) - 1, len(text) - 1), new, Code(text, "python")) == new


@given(texts, texts, st.sampled_from([*LANGUAGES, None]), st.data())
@settings(max_examples=60)
def test_any_text_has_a_verdict(text: str, new: str, language: str | None, data: st.DataObject):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 5)))
    verdict = worth_showing(text, Hole(start, end), new, "automatic", language)
    assert verdict.ok == (not verdict.reason)
    if verdict.ok:
        assert verdict.text.strip()
        code = Code(text, language) if language else None
        assert worth_showing(text, Hole(start, end), verdict.text, "automatic", language, code=code).ok in (True, False)
    assert worth_asking(text, start, "automatic", language).ok in (True, False)


LINES = st.lists(st.sampled_from(["x = 1", "if a:", "    y = 2", "\tz(3)", ""]), max_size=5).map("\n".join)


@given(LINES, LINES, st.sampled_from(["    ", "\t", "  "]))
def test_indentation_is_never_mixed(before: str, new: str, unit: str):
    """A buffer with one style gets no line of the other."""
    text = f"if a:\n{unit}b = 1\n{unit}c = 1\nif d:\n" + "".join(f"{line.lstrip()}\n" for line in before.split("\n"))
    found = tidy(text, Hole(len(text), len(text)), new, Code(text, "python"))
    leads = [line[: len(line) - len(line.lstrip())] for line in found.split("\n")]
    assert all(set(lead) <= ({"\t"} if unit == "\t" else {" "}) for lead in leads if len(lead) > 3)


# ---- what was deleted


@given(st.text("ab c", min_size=1, max_size=12), st.integers(0, 5), st.booleans())
def test_a_run_of_deletions_is_one(gone: str, at: int, backwards: bool):
    if backwards:
        edits = [RecentEdit(at + i, gone[i], "") for i in reversed(range(len(gone)))]
    else:
        edits = [RecentEdit(at, char, "") for char in gone]
    if gone.strip() and (gone == gone.strip()):
        assert deletions(edits) == [(at, gone)]


def test_a_deletion_moves_with_the_text():
    assert deletions([RecentEdit(10, "abc", ""), RecentEdit(0, "", "12345")]) == [(15, "abc")]
    assert deletions([RecentEdit(10, "abc", ""), RecentEdit(10, "", "12")]) == [(10, "abc")]
    assert deletions([RecentEdit(10, "abc", ""), RecentEdit(2, "xy", "")]) == [(8, "abc"), (2, "xy")]


# ---- speed


def test_a_pass_over_a_long_file_is_quick():
    """Under 10 ms each on 3,000 lines that are parsed already; the best of several, for the machine is shared."""
    text = (Path(__file__).parents[2] / "diffcode" / "filling.py").read_text(encoding="utf-8")
    text = (text * 13).replace("\r", "")
    assert text.count("\n") > 3000
    code = Code(text, "python")
    cursor = text.index("places = ", len(text) // 2) + len("places = ")
    line_end = text.index("\n", cursor)
    text = text[:cursor] + text[line_end:]
    code = Code(text, "python")

    def best(do) -> float:
        times = []
        for _ in range(5):
            began = time.perf_counter()
            do()
            times.append(time.perf_counter() - began)
        return min(times)

    assert best(lambda: worth_asking(text, cursor, "automatic", "python", code=code)) < 0.010
    hole = Hole(cursor, cursor)
    assert worth_showing(text, hole, "check(1)", "automatic", "python", code=code).ok
    assert best(lambda: worth_showing(text, hole, "check(1)", "automatic", "python", code=code)) < 0.010
