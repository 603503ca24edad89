"""How much of a text is read in time, and that the rest is read while nobody waits."""

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import tiny

from diffcode.canvas import JUMPS, make_block
from diffcode.config import DenoiseOptions, WindowOptions
from diffcode.contexts import common
from diffcode.engine import Model
from diffcode.errors import Cancelled
from diffcode.holes import Hole
from diffcode.infill import Infiller
from diffcode.interrupt import Stop
from diffcode.kernels.cpu import native
from diffcode.kernels.cpu.engine import EngineSession
from diffcode.native import piece
from diffcode.reader import LEAST, Reader

pytestmark = pytest.mark.skipif(native.library() is None, reason="the CPU engine was not built here")
RNG = random.Random(5)
TEXT = "".join(RNG.choice("abc d=()\n") for _ in range(3000))
HOLE = Hole(2000, 2000)


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    monkeypatch.setenv("DIFFCODE_HOME", str(tmp_path / "home"))
    model = Model.load(str(tiny.write_model(tmp_path / "model")), "none", dtype="int8")
    return Reader(Infiller(model, WindowOptions(1024)))


def context(reader: Reader, budget: int) -> tuple[int, ...]:
    window = replace(reader.views[0].window, budget=budget, jump=1024 // JUMPS)
    return make_block(TEXT, (HOLE,), ("",), 0, reader.views[0].model.tokens, window).context


def test_windows_narrow_down_to_the_least(reader: Reader) -> None:
    assert [view.window.budget for view in reader.views] == [1024, 768, 512, 384, 256]
    few = Reader(reader.views[0].seeing(WindowOptions(LEAST - 1)))
    assert [view.window.budget for view in few.views] == [LEAST - 1]
    assert all(view.contexts is reader.views[0].contexts for view in reader.views)


@pytest.mark.parametrize(
    ("seconds", "rate", "budget"),
    [(1.0, 1e-5, 1024), (0.2, 2e-4, 512), (0.2, 5e-4, 384), (0.2, 2e-3, 256), (0.0, 1e-5, 256)],
)
def test_as_much_as_can_be_read_in_time(reader: Reader, seconds: float, rate: float, budget: int) -> None:
    reader.rate = rate
    view, unread = reader.outlook(TEXT, HOLE, seconds)
    assert view.window.budget == budget
    assert unread == len(context(reader, budget))


def test_whoever_types_waits_for_no_wider_window(reader: Reader) -> None:
    view, _ = reader.outlook(TEXT, HOLE, 0.2)
    view.fill_with(TEXT, [(2000, 2000)], DenoiseOptions(max_tokens=4))
    longer = f"{TEXT[:2000]}ab{TEXT[2000:]}"
    again, unread = reader.outlook(longer, Hole(2002, 2002), 10.0)
    assert again is view
    assert unread < 8
    reader.read(longer, Hole(2002, 2002), Stop())
    assert reader.outlook(longer, Hole(2002, 2002), 10.0)[0] is reader.views[0]


def test_a_narrow_window_moves_as_seldom_as_a_wide_one(reader: Reader) -> None:
    """Sixteen tokens typed would move a window of 256 tokens otherwise, and all of its prefix would be read again."""
    assert moves(reader.views[-1]) <= 5
    assert moves(reader.views[-1].seeing(WindowOptions(256))) >= 8


def moves(view: Infiller) -> int:
    """How often the context is another one while 160 letters are typed."""
    seen, text, tokens = [], TEXT, view.model.tokens
    for at in range(2000, 2160):
        text = f"{text[:at]}a{text[at:]}"
        seen.append(make_block(text, (Hole(at + 1, at + 1),), ("",), 0, tokens, view.window).context)
    return sum(common(a, b) < len(a) - 8 for a, b in pairwise(seen))


def test_what_was_read_costs_nothing_more(reader: Reader) -> None:
    reader.read(TEXT, HOLE, Stop())
    view, unread = reader.outlook(TEXT, HOLE, 0.01)
    assert (view.window.budget, unread) == (1024, 1), "the last token is always read"


def test_reading_ahead_changes_no_fill(reader: Reader) -> None:
    ahead, options = reader.views[0], DenoiseOptions(max_tokens=6)
    fresh = Infiller(ahead.model, ahead.window, memory=0).fill_with(TEXT, [(2000, 2000)], options)
    reader.read(TEXT, HOLE, Stop())
    assert ahead.fill_with(TEXT, [(2000, 2000)], options).spans[0].tokens == fresh.spans[0].tokens


def test_the_least_is_what_the_narrowest_window_shows(reader: Reader) -> None:
    reader.read(TEXT, HOLE, Stop(), least=True)
    view, unread = reader.outlook(TEXT, HOLE, 0.0)
    assert (view.window.budget, unread) == (256, 1)


def test_reading_ahead_leaves_a_narrow_window_known(reader: Reader) -> None:
    narrow = reader.views[-1]
    narrow.fill_with(TEXT, [(2000, 2000)], DenoiseOptions(max_tokens=2))
    known = narrow.contexts.known(context(reader, narrow.window.budget))
    reader.read(TEXT, HOLE, Stop())  # begins with the same suffix
    assert narrow.contexts.known(context(reader, narrow.window.budget)) == known > 200


def test_a_stopped_reading_keeps_what_it_has(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, step, rows = Stop(), EngineSession.step, list[int]()

    def counted(session: EngineSession, given: object) -> object:
        found = step(session, given)  # type: ignore[arg-type]
        rows.append(len(given.tokens))  # type: ignore[attr-defined]
        if len(rows) == 3:
            stop.set()
        return found

    monkeypatch.setattr(EngineSession, "step", counted)
    with pytest.raises(Cancelled):
        reader.read(TEXT, HOLE, stop)
    whole = context(reader, 1024)
    assert reader.views[0].contexts.known(whole) == 3 * piece()
    stop.clear()
    reader.read(TEXT, HOLE, stop)
    assert sum(rows) == len(whole), "nothing was read twice"
    assert max(rows) == piece()
    reader.read(TEXT, HOLE, stop)
    assert sum(rows) == len(whole) + 1


def test_the_rate_is_learnt_from_long_readings_only(reader: Reader) -> None:
    first = reader.rate
    reader.took(10, 5.0)
    assert reader.rate == first
    for _ in range(40):
        reader.took(500, 2.0)
    assert reader.rate == pytest.approx(0.004, rel=0.01)
