"""Pieces of library code to compare settings on."""

import pytest

from diffcode.evals.cuts import KINDS, library_cuts, library_lines
from diffcode.soundness import parses


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_fit_where_they_were_cut(kind: str) -> None:
    found = library_cuts(kind, 12, seed=3)
    assert len(found) == 12
    assert found == library_cuts(kind, 12, seed=3)
    assert found != library_cuts(kind, 12, seed=4)
    for piece in found:
        line_end = "\n" if kind == "line" else ""
        assert parses(piece.text[: piece.at] + piece.solution + line_end + piece.text[piece.at :])
        assert piece.solution
        if kind != "line":
            assert '"' in piece.text[: piece.at] or "'" in piece.text[: piece.at]  # the docstring is shown
        if kind == "lines":
            assert piece.text[: piece.at].endswith("\n")
    assert library_lines(3, 3) == library_cuts("line", 3, 3)
