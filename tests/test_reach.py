"""How far a fill reaches: a part of its line, whole lines, its block."""

import pytest

from diffcode.canvas import Reach, reach_of
from diffcode.holes import Hole


def reach(text: str) -> Reach:
    """Of the hole that is written `<?` to `?>`."""
    before, _, rest = text.partition("<?")
    inside, _, behind = rest.partition("?>")
    return reach_of(before + inside + behind, Hole(len(before), len(before) + len(inside)))


INSIDE = (
    *("x = <?A?> + 1\n", "a\n  <?A?>  b\n", "a\n<?A?>b\n", "a\u2028<?A?>b\n"),  # in a line
    *("x = <?A?>\ny\n", "x = <?A?>", "x = <?A?>  \t\r\n"),  # at a line's end
)
ALONE = ("a\n    <?A?>\nb\n", "<?A?>", "\r<?A?>\r\ry", "<?A?>  \t\nb\n", "\ufeff<?A?>\nb")  # all of a line
INSERTED = ("<??>a\n", "a\n<??>b\n", "a\r\n<??>b\r\n", "a\r<??>b\r", "a\n<??>    b\n", "\n\n<??>b")
LONGER = (
    *("x = <??>\ny\n", "def f():\n    <??>\ny\n", "def f():\n    <??>   \r\ny\n", "def f():\r    <??>\ry"),
    *("a\n<??>", "<??>", "a\n<??>\nb\n", "<??>\nb", "a\n<??>   \nb\n"),  # on a line without text
    *("x = <??> + 1\n", "a\n  <??>  b\n", "a\u2028<??>b\n"),  # insertions in a line
    *("a\n<?b\nc?>\nd\n", "a\n<?b\rc?>\rd\r", "f(<?a,\n  b?>  \n  c)\n", "<?\n?>\nb"),  # several lines
)


@pytest.mark.parametrize("text", INSIDE)
def test_a_hole_within_a_line_stays_one(text: str):
    assert reach(text)[:2] == (False, True)


@pytest.mark.parametrize("text", ALONE)
def test_a_hole_that_has_a_line_for_itself_may_become_a_block(text: str):
    assert reach(text) == Reach(False, False, True)


def test_where_nothing_follows_a_fill_is_one_block():
    for text in (*INSERTED, *LONGER, *INSIDE):
        assert reach(text).one_block == (not text[text.index("?>") + 2 :].strip())


@pytest.mark.parametrize("text", INSERTED)
def test_an_insertion_before_a_line_is_whole_lines(text: str):
    assert reach(text)[:2] == (True, False)


@pytest.mark.parametrize("text", LONGER)
def test_other_fills_may_have_several_lines(text: str):
    assert reach(text)[:2] == (False, False)


@pytest.mark.parametrize("text", ["<?a = 1\nb = 2\n?>c = 3\n", "a = 1\n<?b = 2\nf(x)\n?>c = 3\n", "<?f(a,\n  b?>)\n"])
def test_a_hole_of_several_lines_may_become_several_lines(text: str):
    assert not reach(text).one_line


def test_a_hole_that_held_whole_lines_is_whole_lines():
    assert reach("a = 1\n<?b = 2\n?>c = 3\n").whole_lines
    assert reach("<?b = 2\r\n?>c = 3\r\n").whole_lines
    assert not reach("a = 1\n<??>c = 3\n").whole_lines
    assert not reach("a = 1\n<?b = 2?>\nc = 3\n").whole_lines


def test_an_insertion_behind_a_byte_order_mark_inserts_a_line():
    assert reach("\ufeff<??>import os\n").inserts_line
