"""Tuning with a clock that is made up; what is kept of it; and the ops of a step one by one."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import tiny
import torch
from closeness import check_close
from hypothesis import given
from hypothesis import strategies as st

from diffcode import cli, plan_command
from diffcode.kernels import tiles, tune
from diffcode.kernels.calls import Call, Draw, call
from diffcode.kernels.cpu import native
from diffcode.kernels.explain import on_cpu, on_gpu
from diffcode.kernels.plan import BF16, INT8, Rates, Sizes, SpanRows, forward_cost
from diffcode.kernels.targets import TARGETS, fits
from diffcode.kernels.tiles import TILES, Shape, Tile, for_rows, tile_for
from diffcode.kernels.timing import WallClock, measured_rates
from diffcode.kernels.work import works
from diffcode.planning import plain_kind

TINY = Sizes(2, 64, 4, 2, 16, 96, 288, kept=144, rank=4)
QWEN = Sizes(24, 896, 14, 2, 64, 4864, 151_936, kept=32_768, rank=32)
SHAPE = Shape("lora_linear", 64, 64, 16)


@pytest.fixture(autouse=True)
def shipped_tiles():
    yield
    tiles.use({})


@given(st.integers(1, 40), st.integers(0, 8), st.integers(0, 2000), st.sampled_from([BF16, INT8]))
def test_the_ops_of_a_step_add_up(rows: int, spans: int, context: int, formats) -> None:
    parts = works(QWEN, rows, spans, context, formats=formats)
    whole = forward_cost(QWEN, rows, spans, context, formats=formats)
    assert sum(p.times * p.cost.operations for p in parts) == whole.operations
    assert sum(p.times * p.cost.bytes for p in parts) == pytest.approx(whole.bytes, rel=1e-6)  # scales are whole
    assert ("span rows' head" in {p.name for p in parts}) == bool(spans)


def test_predictions_are_no_floors() -> None:
    target = TARGETS["h100"]
    parts = works(QWEN, 1, 4, 1024)
    rows = on_gpu(parts, target.rates, fits(target, QWEN, 5), {"down": 1e-5})
    assert all(row.predicted >= row.floor > 0 for row in rows)
    by = {row.name: row for row in rows}
    assert by["down"].predicted > 4 * by["down"].floor, "28 programs leave most of the GPU idle"
    assert by["down"].measured == pytest.approx(24e-5)
    assert by["head"].measured is None
    half = on_cpu(parts, Rates(60e9, 2e12), 0.05)
    assert sum(row.predicted for row in half) == pytest.approx(0.05)


# ---- the search


def made(wrong: tuple[Tile, ...] = (), broken: tuple[Tile, ...] = ()) -> Call:
    """An op that looks at the tile in force."""

    def ours() -> torch.Tensor:
        tile = tile_for(SHAPE.op, 16, SHAPE.outputs, SHAPE.inputs)
        if tile in broken:
            raise TypeError("out of resource: shared memory")
        return torch.full((4,), 2.0 if tile in wrong else 1.0)

    return Call(ours, ours, ours)


def seconds(tile: Tile) -> float:
    """A valley whose ground lies at 64 x 16, 64 at a time, 2 warps, 5 stages."""
    away = (tile.outputs, 64), (tile.inputs, 64), (tile.warps, 2), (tile.stages, 5)
    return 1e-6 * (1 + sum(abs(math.log2(mine / best)) for mine, best in away))


def clock(run) -> float:
    run()
    return seconds(tile_for(SHAPE.op, 16, SHAPE.outputs, SHAPE.inputs))


def test_the_quickest_tile_is_found() -> None:
    first = for_rows(TILES["lora_linear"], 16)
    assert tune.best_tile(SHAPE, first, made(), clock) == Tile(64, 16, 64, 2, 5)


def test_tiles_that_fail_or_are_wrong_are_passed_over() -> None:
    first = for_rows(TILES["lora_linear"], 16)
    best = Tile(64, 16, 64, 2, 5)
    assert tune.best_tile(SHAPE, first, made(wrong=(best,)), clock) == Tile(64, 16, 64, 2, 4)
    assert tune.best_tile(SHAPE, first, made(broken=(best,)), clock) == Tile(64, 16, 64, 2, 4)
    everything = tuple(
        replace(first, **{n: v}) for n, values in tune.CHOICES.items() for v in values if v != getattr(first, n)
    )
    assert tune.best_tile(SHAPE, first, made(wrong=everything), clock) == first


def test_a_whole_model_is_tuned_and_the_tiles_in_force_stay() -> None:
    mine = {SHAPE: Tile(16, 16, 32, 4, 2)}
    tiles.use(mine)
    asked = tune.shapes(TINY, 2, rows=(16, 64), context=8)
    assert {shape.op for shape in asked} == set(TILES)
    assert len(asked) == 12, "7 ops of 16 rows; of 64 no heads, which the library's product takes"
    found = tune.tune(
        asked, TINY, Draw(torch.float32, torch.device("cpu")), lambda run: run() is None or 1.0, context=8
    )
    assert found == {
        s: for_rows(TILES[s.op], w.rows * (2 if s.op == "span_attention" else 1)) for s, w in asked.items()
    }
    assert tiles.in_force() == mine


# ---- kept

tile_numbers = st.sampled_from([16, 32, 64, 128])
some_tiles = st.builds(
    Tile, tile_numbers, tile_numbers, st.sampled_from([0, 64]), st.sampled_from([2, 4]), st.integers(1, 5)
)
some_shapes = st.builds(
    Shape, st.sampled_from(sorted(TILES)), st.integers(1, 9), st.integers(1, 9), st.sampled_from(tiles.ROWS)
)


@given(st.dictionaries(some_shapes, some_tiles, max_size=4), st.dictionaries(some_shapes, some_tiles, max_size=4))
def test_what_is_kept_comes_back(tmp_path_factory: pytest.TempPathFactory, one: dict, two: dict) -> None:
    folder = tmp_path_factory.mktemp("tiles")
    tune.save(folder, "NVIDIA H100 80GB HBM3", one)
    file = tune.save(folder, "NVIDIA H100 80GB HBM3", two)
    assert file.name == "nvidia-h100-80gb-hbm3.json"
    assert tune.kept(folder, "NVIDIA H100 80GB HBM3") == one | two, "another model's tiles stay"
    assert tune.kept(folder, "NVIDIA H200") == {}
    assert tune.use_kept(folder, "NVIDIA H100 80GB HBM3") == len(one | two)
    assert tiles.in_force() == one | two
    assert [f.name for f in folder.iterdir()] == [file.name], "no parts are left"


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"version": 2, "gpu": "g", "tiles": []}', '{"version": 1, "gpu": "h", "tiles": []}',
     '{"version": 1, "gpu": "g", "tiles": [3]}', '{"version": 1, "gpu": "g", "tiles": [{"op": "x"}]}'],
)  # fmt: skip
def test_a_damaged_file_is_none(text: str, tmp_path: Path) -> None:
    tune.file_of(tmp_path, "g").write_text(text)
    assert tune.kept(tmp_path, "g") == {}


@pytest.mark.parametrize("change", [{"outputs": 48}, {"warps": 0}, {"stages": 99}, {"rows": "16"}, {"inputs": -64}])
def test_a_tile_that_no_kernel_takes_is_left_out(change: dict, tmp_path: Path) -> None:
    file = tune.save(tmp_path, "g", {SHAPE: Tile(64, 16, 64, 4, 3)})
    document = json.loads(file.read_text())
    document["tiles"][0]["tile"] |= change
    file.write_text(json.dumps(document))
    assert tune.kept(tmp_path, "g") == {}


def test_tuned_tiles_are_for_their_shapes_alone() -> None:
    tiles.use({SHAPE: Tile(16, 16, 32, 4, 2)})
    assert tile_for("lora_linear", 5, 64, 64) == Tile(16, 16, 32, 4, 2)
    for other in (("lora_linear", 17, 64, 64), ("lora_linear", 5, 32, 64), ("gated_mlp", 5, 64, 64)):
        assert tile_for(*other) == for_rows(TILES[other[0]], other[1])
    assert tile_for("lora_linear", 5, 64, 64, size=4) == TILES["lora_linear"][0], "fp32 needs twice the memory"


# ---- what is timed


@pytest.mark.parametrize("name", [w.name for w in works(TINY, 1, 2, 9)])
def test_the_calls_compute_one_thing(name: str) -> None:
    (work,) = (w for w in works(TINY, 3, 2, 9) if w.name == name)
    for dtype in (torch.float32, torch.bfloat16):
        calls = call(work, TINY, 9, Draw(dtype, torch.device("cpu")))
        ours, plain, gold = calls.ours(), calls.torch(), calls.gold()
        assert gold.dtype == torch.float32
        check_close(ours.float(), gold, plain.float(), dtype)
        assert gold.abs().max() > 0.01


def test_rates_are_those_of_the_clock() -> None:
    rates = measured_rates(lambda run: run() is None or 0.5, torch.device("cpu"), copied=64, side=8)
    assert rates == Rates(2 * 64 / 0.5, 2 * 8**3 / 0.5)
    assert WallClock(3)(lambda: None) >= 0


# ---- the commands


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_one_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["tune"]) == 5
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == (
        "",
        "diffcode: tiles are tuned on a GPU, and torch finds none here: nothing was changed\n",
    )
    assert cli.run(["tune", "--model", "nonsense"]) == 2


def test_the_plan_explains_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["plan", "--target", "h100", "--explain", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert sum(op["bytes"] for op in plan["ops"]) == next(f["bytes"] for f in plan["forecasts"] if f["span_rows"] == 4)
    assert all(op["measured"] is None for op in plan["ops"]) or torch.cuda.is_available()
    assert cli.run(["plan", "--target", "h100", "--explain"]) == 0
    shown = capsys.readouterr().out
    assert "predicted ms" in shown
    assert "together" in shown
    assert cli.run(["plan", "--target", "h100", "--json"]) == 0
    assert "ops" not in json.loads(capsys.readouterr().out)


@pytest.mark.skipif(native.library() is None, reason="the CPU engine was not built here")
def test_the_plan_of_this_machine_explains_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DIFFCODE_HOME", str(tmp_path / "home"))
    folder = tiny.write_model(tmp_path / "model")
    adapter = tiny.write_adapter(tmp_path / "adapter", tiny.adapter_tensors(tiny.config()))
    model = ("--model", str(folder), "--adapter", str(adapter), "--dry-run")
    assert cli.run(["plan", *model, "--explain", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    kind = asdict(plain_kind(SpanRows(**plan["span"])))
    forward = next(f for f in plan["forwards"] if f["kind"] == kind)
    assert sum(op["predicted"] for op in plan["ops"]) == pytest.approx(forward["seconds"])
    assert cli.run(["plan", *model, "--explain"]) == 0
    assert "gate and up" in capsys.readouterr().out


def test_a_gpus_name_is_matched_with_its_target() -> None:
    names = {
        "a100": "NVIDIA A100-SXM4-80GB",
        "h100": "NVIDIA H100 80GB HBM3",
        "b200": "NVIDIA B200",
        "mi300x": "AMD Instinct MI300X",
    }
    for name, target in TARGETS.items():
        assert [key for key, gpu in names.items() if plan_command.is_target(target.title, gpu)] == [name]
