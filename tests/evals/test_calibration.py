"""How the language server's thresholds are looked at."""

import random
from pathlib import Path

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from diffcode.evals.calibration import (
    Doubted,
    Suggested,
    confidence_table,
    doubt_table,
    doubted,
    names,
    suggested,
    with_wrong_name,
)
from diffcode.evals.cuts import Line
from diffcode.infill import Infiller

BEFORE = "def area(width, height):\n"
LINE = Line(BEFORE + "    print(result)\n", len(BEFORE), "    result = width * height")


def cells(table) -> list[list[str]]:
    return [list(row) for row in zip(*(column.cells for column in table.columns), strict=True)]


def test_names_are_neither_keywords_nor_parts_of_strings() -> None:
    code = '    return width if "width" else f(x.height)'
    assert [code[a:b] for a, b in names(code)] == ["width", "f", "x", "height"]
    assert names("    'unfinished") == []
    assert names("x = (") == []


@given(st.integers(0, 200))
def test_one_name_gives_way_to_another_of_the_file(seed: int) -> None:
    found = with_wrong_name(LINE, random.Random(seed))
    assert found is not None
    wrong, start, end = found
    assert wrong != LINE.solution
    assert wrong[start:end] in {"area", "width", "height", "print", "result"}
    assert wrong[:start] == LINE.solution[:start]
    assert LINE.solution.endswith(wrong[end:])


def test_a_file_without_other_names_has_nothing_to_plant() -> None:
    assert with_wrong_name(Line("\n", 0, "x = 1"), random.Random(1)) is None


def test_thresholds_are_counted() -> None:
    rows = cells(confidence_table([Suggested(0.95, True), Suggested(0.55, True), Suggested(0.55, False)]))
    by = {row[0]: row[1:] for row in rows}
    assert by["0.0"] == ["3", "0.67", "0"]
    assert by["0.9"] == ["1", "1.00", "1"]
    marks = {row[0]: row[1:] for row in cells(doubt_table([Doubted(0.5, 0.002), Doubted(0.004, 0.06)]))}
    assert marks["0.003"] == ["0 of 2", "1 of 2"]
    assert marks["0.1"] == ["1 of 2", "2 of 2"]


def test_over_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFCODE_HOME", str(tmp_path / "home"))
    infiller = Infiller.from_pretrained(str(tiny.write_model(tmp_path / "m")), adapter="none", dtype="float32")
    assert 0 < suggested(infiller, LINE).confidence <= 1
    found = doubted(infiller, LINE, random.Random(1))
    assert found is not None
    assert 0 < found.least < 1
    assert 0 < found.planted < 1
