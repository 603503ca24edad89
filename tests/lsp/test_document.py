"""Versions, lost step, and what was typed since."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcode.lsp.document import HISTORY, LONG_EDIT, Change, Document, Edit, StaleVersion, typed
from diffcode.lsp.text import BadPosition, Position, Range


def insert(line: int, character: int, text: str) -> Change:
    return Change(Range(Position(line, character), Position(line, character)), text)


@pytest.fixture
def document() -> Document:
    return Document("file:///a.py", "python", 3, "ab\ncd", "utf-16")


@pytest.mark.parametrize("version", [3, 2, 0, -1])
def test_stale_versions_are_refused_and_the_text_no_longer_believed(document, version):
    with pytest.raises(StaleVersion, match=f"version {version} follows 3"):
        document.change(version, [insert(0, 0, "x")])
    assert (str(document.text), document.version) == ("ab\ncd", 3)
    assert document.lost
    document.change(9, [insert(0, 0, "x")])
    assert document.lost
    document.change(10, [Change(None, "new")])
    assert (document.lost, str(document.text), document.version) == (None, "new", 10)


def test_all_changes_apply_or_none(document):
    with pytest.raises(BadPosition):
        document.change(4, [insert(0, 0, "x"), insert(7, 0, "y")])
    assert (str(document.text), document.version) == ("ab\ncd", 3)
    assert "line 7" in document.lost


def test_a_snapshot_stays_as_it_was(document):
    before = document.snapshot()
    document.change(4, [insert(0, 0, "x")])
    assert (str(before), before.version) == ("ab\ncd", 3)
    assert (str(document.snapshot()), document.snapshot().version) == ("xab\ncd", 4)


def test_since_tells_the_edits_in_order(document):
    document.change(5, [insert(0, 1, "x"), insert(0, 2, "y")])
    document.change(6, [Change(Range(Position(1, 0), Position(1, 1)), "")])
    first, second, third = Edit(1, 1, "x"), Edit(2, 2, "y"), Edit(5, 6, "")
    assert document.since(3) == (first, second, third)
    assert document.since(5) == (third,)
    assert document.since(6) == ()
    assert document.since(4) is None  # never was
    assert document.since(2) is None


def test_the_history_is_bounded(document):
    for version in range(4, 4 + HISTORY + 5):
        document.change(version, [insert(0, 0, "x")])
    assert document.since(3) is None
    assert len(document.since(8)) == HISTORY
    document.change(10_000, [insert(0, 0, "x" * (LONG_EDIT + 1))])
    assert document.since(4 + HISTORY + 4) is None


@given(st.lists(st.tuples(st.booleans(), st.text("ab\n😀", max_size=3)), max_size=12), st.text("xy\n", max_size=5))
def test_typing_and_taking_back_at_a_place_is_told(keys, before):
    document = Document("file:///a.py", "python", 1, before + "|" + before, "utf-16")
    offset, there = len(before), ""
    for version, (back, key) in enumerate(keys, 2):
        end = offset + len(there)
        if back and there:
            range_ = document.text.range(end - 1, end)
            there, key = there[:-1], ""
        else:
            range_, there = document.text.range(end, end), there + key
        document.change(version, [Change(range_, key)])
    assert typed(document.since(1), offset) == there


@pytest.mark.parametrize(
    "edits",
    [
        [Edit(4, 4, "x")],
        [Edit(6, 6, "x")],
        [Edit(5, 5, "x"), Edit(4, 5, "")],
        [Edit(5, 5, "x"), Edit(7, 7, "y")],
        [Edit(5, 6, "x")],
        [Edit(0, 9, "all")],
    ],
)
def test_an_edit_elsewhere_is_no_typing(edits):
    assert typed(edits, 5) is None


def test_a_bracket_that_the_editor_closes_is_typed_too():
    assert typed([Edit(5, 5, "f()"), Edit(7, 7, "x")], 5) == "f(x)"
    assert typed([], 5) == ""
