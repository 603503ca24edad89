"""Which steps are captured, replayed, forgotten; with graphs that are none. (That captured steps give the same fills:
`test_step.py`.)"""

import warnings
from collections import OrderedDict
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffcode.kernels.arena import FIRST, Arena
from diffcode.kernels.graphs import Graphs, graphs_for
from diffcode.kernels.step import COLUMNS, HEADED, PADDED, Asked, Table, layout_for, table_of


class Recorder:
    """Captures by noting what was captured; a replay runs it."""

    def __init__(self, fails: bool = False):
        self.captured, self.replayed, self.fails = [], [], fails

    def __call__(self, step):
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing\nand much more")
        self.captured.append(step)
        recorder, out = self, [None]

        class Graph:
            def replay(self) -> None:
                recorder.replayed.append(step)
                out[0] = step()

        return Graph(), out


def test_first_it_runs_then_it_is_captured_then_replayed() -> None:
    recorder, runs = Recorder(), []
    graphs = Graphs(recorder)
    for expected in ((1, 0, 0), (2, 1, 1), (3, 1, 2), (4, 1, 3)):
        graphs.run("a", lambda: runs.append(0))
        assert (len(runs), len(recorder.captured), len(recorder.replayed)) == expected
    assert len(graphs) == 1


@given(st.lists(st.integers(0, 5), max_size=60), st.integers(1, 4))
def test_the_least_recently_used_goes(kinds: list[int], most: int) -> None:
    recorder = Recorder()
    graphs, model, ran, captured = Graphs(recorder, most), OrderedDict(), 0, 0
    for kind in kinds:
        graphs.run(kind, lambda: None)
        if kind not in model:
            ran += 1
            model[kind] = 1
        elif model[kind] == 1:
            captured += 1
            model[kind] = 2
        model.move_to_end(kind)
        while len(model) > most:
            model.popitem(last=False)
        assert len(graphs) == sum(state == 2 for state in model.values()) <= most
    assert len(recorder.captured) == captured
    assert len(recorder.replayed) == len(kinds) - ran


def test_what_was_forgotten_is_captured_anew() -> None:
    recorder = Recorder()
    graphs = Graphs(recorder)
    for _ in range(2):
        graphs.run("a", lambda: None)
    graphs.forget()
    assert len(graphs) == 0
    for _ in range(3):
        graphs.run("a", lambda: None)
    assert len(recorder.captured) == 2


def test_where_capturing_fails_everything_runs_and_one_warning_says_so() -> None:
    graphs, recorder, runs = Graphs(found := Recorder(fails=True)), found, []
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found_values = [graphs.run("a", lambda: runs.append(0) or 7) for _ in range(5)]
    assert found_values == [7] * 5
    assert len(runs) == 5, "a step that failed to be captured ran all the same, and once"
    assert [str(w.message) for w in seen] == [
        "steps cannot be captured as CUDA graphs here (operation not permitted when stream is capturing): "
        "they run as they come"
    ]
    assert not recorder.replayed


def test_the_user_may_want_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFCODE_GRAPHS", "0")
    graphs = Graphs(recorder := Recorder())
    assert [graphs.run("a", lambda: 3) for _ in range(4)] == [3] * 4
    assert not recorder.captured


def test_a_cpu_has_none() -> None:
    graphs = graphs_for(torch.device("cpu"))
    assert [graphs.run("a", lambda: 3) for _ in range(4)] == [3] * 4


# ---- kinds of steps


@given(st.integers(1, 60), st.integers(0, 15), st.integers(0, 6), st.integers(0, 3), st.integers(0, 3000))
def test_few_layouts_hold_all_steps(fresh: int, drafts: int, window: int, windows: int, length: int) -> None:
    anchors = sorted({0, drafts // 2, drafts})[:windows] if window else []
    chain = fresh + drafts
    tokens = [*range(1, chain + 1), *[-1] * window * len(anchors)]
    sights = [(i + 1, 0, 0) for i in range(chain)]
    for i, anchor in enumerate(anchors):
        sights += [(fresh + anchor, chain + i * window, chain + (i + 1) * window)] * window
    asked = Asked(tokens, range(length, length + len(tokens)), sights, anchors, window, drafts + 1)
    layout = layout_for(asked, length)
    assert layout.rows == (len(tokens) if len(tokens) > PADDED[-1] else next(n for n in PADDED if n >= len(tokens)))
    assert layout.longest >= length + len(tokens)
    assert layout.longest & (layout.longest - 1) == 0
    assert drafts + 1 <= layout.headed <= max(HEADED, drafts + 1)
    flat = table_of(asked, layout, 1000, length)
    assert len(flat) == layout.numbers == COLUMNS * layout.rows + len(anchors)
    table, idle = Table.of(torch.tensor(flat), layout), layout.chain - chain
    assert table.token_R[idle:].tolist() == tokens
    assert not table.slot_R[:idle].any(), "rows that nobody asked for write where nobody reads"
    assert not table.sight_R4[:idle].any()
    assert table.slot_R[idle:].tolist() == list(range(1000 + length, 1000 + length + len(tokens)))
    headed = table.token_R[layout.chain - layout.headed : layout.chain]
    for anchor, first in zip(anchors, table.first_A.tolist(), strict=True):
        assert headed[first] == fresh + anchor, "the row before the window"


def test_a_session_meets_few_kinds_of_steps() -> None:
    """One a width of window and power of two of context, whatever was committed and drafted."""
    kinds = set()
    for length in range(100, 1000, 7):
        for drafts in range(8):
            tokens = [1] * (1 + drafts) + [-1] * 4
            asked = Asked(tokens, tokens, [(0, 0, 0)] * len(tokens), (drafts,), 4, drafts + 1)
            kinds.add(layout_for(asked, length))
    assert len(kinds) == 2, "up to 512 places, and up to 1024"


# ---- memory


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 900)), max_size=25))
def test_stretches_do_not_overlap(acts: list[tuple[bool, int]]) -> None:
    moved = []
    arena, held = Arena(1, 1, 2, torch.float32, torch.device("cpu"), 256, lambda: moved.append(0)), []
    for takes, number in acts:
        before = arena.k_LGPK
        if takes or not held:
            held.append(arena.take(number))
            assert held[-1].places >= number
        else:
            arena.give(held.pop(number % len(held)))
        assert (arena.k_LGPK is not before) == bool(moved), "graphs are told when addresses change"
        moved.clear()
        ends = sorted((s.start, s.start + s.places) for s in held)
        assert all(end <= begin for (_, end), (begin, _) in pairwise(ends))
        assert all(begin >= FIRST and end <= arena.places for begin, end in ends)
        assert arena.caches[0].k_GPK.data_ptr() == arena.k_LGPK.data_ptr()


def test_what_was_read_moves_along() -> None:
    arena = Arena(2, 1, 4, torch.float32, torch.device("cpu"), 300)
    first = arena.take(20)
    arena.k_LGPK[:, :, first.start : first.start + 20] = 7
    arena.v_LGPK[:, :, first.start : first.start + 20] = 8
    second = arena.move(first, 20, 600)
    assert second.places >= 600
    assert (arena.k_LGPK[:, :, second.start : second.start + 20] == 7).all()
    assert (arena.v_LGPK[:, :, second.start : second.start + 20] == 8).all()
    assert arena.take(20) == first, "its old place is free"
