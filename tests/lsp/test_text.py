"""The text store against a plain model: random editing in all encodings, with all line ends and what looks like one."""

import os
import random
import statistics
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsp_model import CHARACTERS, ENDS, Model, random_change, random_text
from odd_texts import texts

from diffcode.lsp import params, text
from diffcode.lsp.document import Document
from diffcode.lsp.text import ENCODINGS, BadPosition, Position, Range, Text, whole

# `make fuzz` sets it: 10,000 sessions for each encoding and line end
SESSIONS = 2_500 if os.environ.get("DIFFCODE_FUZZ") else 8
LINE_ENDS = [["\n"], ["\r\n"], ["\r"], ENDS]


@pytest.fixture(params=[1, 3, 16, 4096])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Small pieces put every seam into small texts."""
    monkeypatch.setattr(text, "PIECE", request.param)
    return request.param


def same(ours: Text, model: Model, chance: random.Random) -> None:
    assert str(ours) == model.text
    assert ours.lines == len(model.lines())
    for _ in range(4):
        offset = chance.randint(0, len(model.text))
        assert ours.position(offset) == model.position(offset)
        line, character = chance.randrange(ours.lines), chance.choice([0, 1, 2, 3, 5, 8, 10**9])
        assert ours.offset(Position(line, character)) == model.offset(line, character)
        start, end = model.lines()[line]
        assert ours.line(line) == model.text[start:end]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("ends", LINE_ENDS, ids=repr)
def test_random_sessions_agree_with_the_model(encoding, ends, piece):
    for seed in range(SESSIONS):
        chance = random.Random(f"{encoding} {ends} {piece} {seed}")
        model = Model(random_text(chance, ends, 60), encoding)
        document = Document("file:///a", "python", 1, model.text, encoding)
        version = 1
        for _ in range(chance.randrange(4, 16)):
            version += chance.choice([1, 1, 1, 7])
            changes = []
            for _ in range(chance.choice([1, 1, 2, 3])):
                changes.append(random_change(chance, model, ends))
                model.change(changes[-1])
            before = document.snapshot(), str(document.text)
            document.change(version, params.changes({"contentChanges": changes}))
            assert document.version == version
            assert str(before[0]) == before[1]
            same(document.text, model, chance)


@given(texts, st.sampled_from(ENCODINGS))
def test_offset_to_position_and_back(value, encoding):
    ours = Text.of(value, encoding)
    for offset in range(len(ours) + 1):
        inside = value[offset - 1 : offset + 1] == "\r\n"
        assert ours.offset(ours.position(offset)) == offset - inside


@pytest.mark.parametrize(
    ("encoding", "character", "offset"),
    [("utf-8", n, o) for n, o in enumerate([0, 1, 1, 1, 1, 2, 2, 3, 3, 3])]
    + [("utf-16", n, o) for n, o in enumerate([0, 1, 1, 2, 3, 3])]
    + [("utf-32", n, o) for n, o in enumerate([0, 1, 2, 3, 3])],
)
def test_columns_within_a_character_are_its_start(encoding, character, offset):
    assert Text.of("a😀é\nb", encoding).offset(Position(0, character)) == offset


def test_an_empty_text_has_one_line():
    ours = Text.of("", "utf-16")
    assert (ours.lines, ours.offset(Position(0, 5)), ours.offset(Position(1, 0)), len(ours)) == (1, 0, 0, 0)
    assert ours.position(9) == (0, 0)


def test_lines_that_are_not_there_are_refused():
    ours = Text.of("a\nb", "utf-16")
    assert ours.offset(Position(2, 0)) == 3
    for line in (3, 10**9, -1):
        with pytest.raises(BadPosition, match="outside a text of 2 lines"):
            ours.offset(Position(line, 0))
    assert ours.span(Range(Position(0, 0), Position(10**9, 0))) == (0, 3)
    assert ours.span(Range(Position(1, 1), Position(0, 1))) == (1, 3)


@given(st.text(st.sampled_from(["\ud83d", "\ude00", "a", "é", "😀"])), st.sampled_from(ENCODINGS))
def test_halves_of_pairs_become_characters_of_the_same_width(value, encoding):
    made = whole(value)
    made.encode("utf-8")
    codec, size = {"utf-8": ("utf-8", 1), "utf-16": ("utf-16-le", 2), "utf-32": ("utf-32-le", 4)}[encoding]
    assert text.units(made, encoding) == len(value.encode(codec, "surrogatepass")) // size
    assert len(made) == len(value)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "line", ["x", "é😀 = f(x)", "def f(x): return 1 + y + z * 40\n"], ids=["one line", "odd", "30k lines"]
)
def test_an_edit_in_a_megabyte_takes_under_5_ms(encoding, line):
    size = 1_000_000
    ours = Text.of((line * size)[:size], encoding)
    chance, seconds = random.Random(7), []
    for _ in range(60):
        offset = chance.randrange(len(ours) - 9)
        began = time.perf_counter()
        start, end = ours.span(ours.range(offset, offset + chance.choice([0, 0, 5])))
        ours = ours.replace(start, end, chance.choice(["a", "", "é\n", "hello"]))
        seconds.append(time.perf_counter() - began)
    assert statistics.median(seconds) < 0.005, seconds


def test_pieces_stay_few_when_all_is_deleted_bit_by_bit():
    ours = Text.of("line\n" * 50_000, "utf-16")
    chance = random.Random(1)
    while len(ours) > 1000:
        at = chance.randrange(len(ours) - 500)
        ours = ours.replace(at, at + 500, "")
    assert len(ours._pieces) <= 2
    assert set(CHARACTERS) & set("\f\x85\u2028")  # the sessions above had them
