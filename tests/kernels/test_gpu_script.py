"""`make gpu` where there is no GPU: a rehearsal of every part, so that ten minutes on one are not spent on typos."""

import dataclasses
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import steps
import torch
import torch.nn.functional as F

from diffcode.evals import gpu, gpu_parts, gpu_worker
from diffcode.evals.gpu_parts import TORCH, Bench, Row
from diffcode.evals.gpu_real import real_rows
from diffcode.evals.gpu_rivals import RIVALS, rivals, run_of
from diffcode.evals.gpu_watch import DEAD, messages
from diffcode.evals.gpu_worker import Part, part_rows
from diffcode.infill import Infiller
from diffcode.kernels import reference
from diffcode.kernels.calls import Draw, call
from diffcode.kernels.plan import Rates
from diffcode.kernels.work import works

ROOT = Path(__file__).parents[2]
TINY = gpu_worker.TINY


def bench(seconds: float = 60.0, clock=lambda run: run() is None or 1e-3) -> Bench:
    rates, device = Rates(1e12, 1e14), torch.device("cpu")
    return Bench(device, torch.float32, clock, rates, lambda run: run, 20, 3, 1, time.monotonic() + seconds)


def op_rows(of: Bench) -> list[Row]:
    return [row for work in gpu_parts.works_of(of, TINY) for row in gpu_parts.op_rows(of, "tiny", TINY, work)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_one_line_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--out", str(tmp_path / "gpu.jsonl")]) == 5
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "diffcode: make gpu measures a GPU, and torch finds none here: nothing was measured\n"
    assert not list(tmp_path.iterdir())


def test_the_makefile_calls_it() -> None:
    done = subprocess.run(["make", "-n", "gpu"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "-m diffcode.evals.gpu --out benchmarks/gpu.jsonl" in done.stdout


def test_a_rehearsal_runs_every_part(tmp_path: Path) -> None:
    out = tmp_path / "gpu.jsonl"
    done = subprocess.run(
        [sys.executable, "-m", "diffcode.evals.gpu", "--rehearse", "--out", str(out)],
        capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for what in ("attention, 16 rows", "span rows' head", "step: a context of 20", "8 fills at once", "agreement",
                 "torch.compile, graph", "a rehearsal", "bound by"):  # fmt: skip
        assert what in done.stdout
    assert not out.exists(), "what was not measured on a GPU is not kept"
    assert "a rehearsal" in done.stdout[-400:], "the table comes last"


def test_every_row_of_ours_is_right() -> None:
    rows = [gpu_parts.commit_row(bench(), 5), *op_rows(bench())]
    assert [row.note for row in rows if row.note] == []
    assert {row.right for row in rows if row.who == "ours"} == {True}
    assert len([row for row in rows if row.who == "torch.compile"]) == 7
    assert not any(gpu.failed(row) for row in rows)


def test_wrong_numbers_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    (work,) = (w for w in works(TINY, 12, 4, 20) if w.name == "down")
    made = call(work, TINY, 20, Draw(torch.float32, torch.device("cpu")))
    assert made.off(made.ours)[1] <= 0
    assert made.off(lambda: made.ours() + 1e-3)[1] > 0
    assert made.off(lambda: made.ours() * torch.nan)[1] > 0
    monkeypatch.setattr(gpu_parts.dispatch, "lora_linear", lambda *a, **k: reference.lora_linear(*a, **k) * 1.01)
    rows = op_rows(bench())
    assert {row.what for row in rows if row.right is False} == {"attention's output, 16 rows", "down, 16 rows"}
    assert sum(map(gpu.failed, rows)) == 2
    monkeypatch.setattr(gpu_parts.dispatch, "commit", lambda *a: gpu_parts.reference_commit.commit("leftmost", *a[1:]))
    assert gpu_parts.commit_row(bench(), 9).right is False


def test_what_fails_is_a_row_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_, **__):
        raise RuntimeError("CUDA error: an illegal memory access\nand so on")

    monkeypatch.setattr(gpu_parts.dispatch, "gated_mlp", broken)
    rows = op_rows(bench())
    (bad,) = (row for row in rows if gpu.failed(row))
    assert (bad.what, bad.note) == ("gate and up, 16 rows", "RuntimeError: CUDA error: an illegal memory access")
    assert len(rows) >= 21
    weights = gpu_parts.random_weights(TINY, bench())
    assert sum(map(gpu.failed, gpu_parts.step_rows(bench(), "tiny", TINY, weights))) == 5
    assert [gpu.failed(row) for row in part_rows(bench(300), Part("tiny", "ops", broken))] == [True]


def test_a_slow_library_costs_others_nothing() -> None:
    assert not gpu.failed(Row("m", "w", "FlashInfer", note="RuntimeError: no compiler"))
    assert not gpu.failed(Row("m", "w", "FlashInfer", seconds=1.0, right=False))
    assert not gpu.failed(Row("m", "w", "ours", note="left out: no time"))
    assert gpu.failed(Row("m", "w", "agreement", right=False))


@pytest.mark.parametrize(("seconds", "count"), [(-1.0, 0), (gpu_worker.SPARE - 5, 0), (gpu_worker.SPARE + 60, 3)])
def test_parts_keep_to_the_time(seconds: float, count: int) -> None:
    part = Part("m", "ops", lambda: iter([Row("m", "w", "ours", seconds=1.0)] * 3))
    rows = list(part_rows(bench(seconds), part))
    assert len([row for row in rows if row.seconds]) == count
    assert [row.note for row in rows if not row.seconds] == ([] if count else ["left out: no time"])


PROCESS = """
import json, os, sys, time
def tell(**message): print(json.dumps(message), flush=True)
left, first = float(sys.argv[1]), int(sys.argv[2])
tell(about={"left": left})
for part in range(first, 4):
    tell(part=part, model="m", what=f"part {part}")
    if part == 1: os.abort()
    if part == 2: time.sleep(60)
    tell(row=part)
    if part == 0: sys.exit(3)
"""


def test_a_process_that_dies_or_hangs_costs_its_part_alone() -> None:
    """Part 0 breaks the GPU and says so, part 1 crashes, part 2 hangs, part 3 is measured all the same."""
    began = time.monotonic()
    told = list(messages(lambda left, first: [sys.executable, "-c", PROCESS, str(left), str(first)], began + 50, 5, 1))
    assert DEAD == 3
    assert [m["row"] for m in told if "row" in m] == [0, 3]
    assert [(m["what"], m["failed"]) for m in told if "failed" in m] == [
        ("part 1", "its process ended with -6"), ("part 2", "killed: it took too long"),
    ]  # fmt: skip
    assert all(40 < m["about"]["left"] <= 50 for m in told if "about" in m)


def test_a_broken_gpu_ends_the_process_behind_the_part_that_broke_it(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [Part("m", str(i), lambda i=i: iter([Row("m", str(i), "ours", seconds=1.0)])) for i in range(4)]
    monkeypatch.setattr(gpu_worker, "parts", lambda *_: parts)
    broken = iter([False, True])
    monkeypatch.setattr(gpu_worker, "alive", lambda device: not next(broken))
    told = io.StringIO()
    assert gpu_worker.work(told, 400, 1, True) == DEAD
    said = [json.loads(line) for line in told.getvalue().splitlines()]
    assert [m["part"] for m in said if "part" in m] == [1, 2]
    assert [m["row"]["what"] for m in said if "row" in m] == ["1", "2"]


def test_the_end_comes_in_time() -> None:
    began = time.monotonic()
    told = list(messages(lambda left, first: [sys.executable, "-c", PROCESS, "9", "2"], began + 3))
    assert time.monotonic() - began < 20
    assert [m["failed"] for m in told if "failed" in m] == ["killed: it took too long"]


def test_a_process_that_does_not_start_is_told() -> None:
    (told,) = messages(lambda left, first: [sys.executable, "-c", "raise SystemExit(7)"], time.monotonic() + 50)
    assert told == {"failed": "its process ended with 7", "model": "any", "what": "the start"}


def test_runs_are_added_to_the_file_and_shown_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        Row("0.5B", "down", "ours", 2e-6, 1e-6, "memory", True, 1e-3),
        Row("0.5B", "down", TORCH, 6e-6, 1e-6, "memory"),
        Row("0.5B", "head", "ours", note="left out: no time"),
    ]
    run = gpu.Report(
        "NVIDIA H100", "2026-01-01T00:00:00", "abc", "2.13", "3.7.1", 5, "triton", Rates(3e12, 7e14), 9, rows
    )
    file = tmp_path / "benchmarks" / "gpu.jsonl"
    gpu.keep(file, run)
    gpu.keep(file, run)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["gpu"] for line in lines] == ["NVIDIA H100"] * 2
    assert lines[0]["rows"][0] == dataclasses.asdict(rows[0])
    gpu.show(run)
    shown = " ".join(capsys.readouterr().out.split())
    for text in ("50%", "3.00", "0.0020", "3.00 TB/s copied", "700 TFLOP/s", "5 tuned tiles", "NVIDIA H100"):
        assert text in shown, text


# ---- other libraries, by stand-ins with their signatures


def flashinfer() -> ModuleType:
    def single_prefill_with_kv_cache(q, k, v, *, custom_mask=None, causal=False, kv_layout="NHD"):
        assert kv_layout == "NHD"
        assert custom_mask.shape == (len(q), len(k))
        out = reference.span_attention(q, k.transpose(0, 1), v.transpose(0, 1), custom_mask)
        return out.view(q.shape)

    return SimpleNamespace(single_prefill_with_kv_cache=single_prefill_with_kv_cache)


def flash_attn() -> ModuleType:
    def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False):
        assert q.ndim == k.ndim == 4, "batch, places, heads, width"
        assert q.shape[3] == k.shape[3]
        turned = (t.transpose(1, 2) for t in (q, k, v))
        return F.scaled_dot_product_attention(*turned, enable_gqa=True).transpose(1, 2)

    return SimpleNamespace(flash_attn_func=flash_attn_func)


class RMSNorm:
    @staticmethod
    def apply(x, weight, eps):
        return reference.rms_norm(x, weight, eps)


class SiLUMul:
    @staticmethod
    def apply(a, b):
        return F.silu(a) * b


FAKES = {
    "flashinfer": flashinfer(),
    "flash_attn": flash_attn(),
    "liger_kernel.ops.rms_norm": SimpleNamespace(LigerRMSNormFunction=RMSNorm),
    "liger_kernel.ops.swiglu": SimpleNamespace(LigerSiLUMulFunction=SiLUMul),
}


@pytest.mark.parametrize("rival", RIVALS, ids=lambda rival: rival.name)
def test_rivals_do_the_same_work(rival, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.import_module", lambda name: FAKES.get(name) or sys.modules[name])
    (work,) = (w for w in works(TINY, 12, 4, 20) if w.op == rival.op)
    made = call(work, TINY, 20, Draw(torch.float32, torch.device("cpu")))
    run = run_of(rival, made)
    assert run().shape == made.torch().shape
    assert (made.off(run)[1] <= 0) == rival.same


def test_only_what_is_installed_is_asked() -> None:
    assert {r.name for r in rivals("span_attention")} >= {"torch SDPA, groups"}
    assert rivals("masked_head") == []


# ---- the default model's fills, with a tiny one in its place


def test_real_fills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [SimpleNamespace(text="def f(a):\n    \n    return a\n", at=14)] * 2

    def load() -> Infiller:
        model = steps.load(tmp_path / str(len(list(tmp_path.iterdir()))))
        return Infiller(model if gpu_parts.dispatch._plain else steps.with_stepper(model))

    rows = list(real_rows(bench(), "tiny", load, lines))
    assert [row.who for row in rows] == ["ours, graph", "ours, no graph", TORCH] * 3
    assert all(row.seconds and "100% as first" in row.note for row in rows)
    assert [row.right for row in rows] == [None, True, None] * 3
    assert {row.note for row in real_rows(bench(-1), "tiny", load, lines)} == {"left out: no time"}
