"""Engines side by side: who takes part, what is timed, and what is said of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from fake_llama import Library

from diffcode import cli
from diffcode.config import DenoiseOptions, WindowOptions
from diffcode.engine import Model
from diffcode.evals import bench, outside
from diffcode.evals.bench import OURS, summarise
from diffcode.evals.cuts import library_lines
from diffcode.evals.race import Racer, Timing, WarmLlama, compile_forward, race
from diffcode.infill import Infiller
from diffcode.kernels.cpu import native
from diffcode.soundness import parses

needs_engine = pytest.mark.skipif(native.library() is None, reason="the CPU engine was not built here")


def timings(measure: str, racer: str, seconds: list[float], text: str = "x") -> list[Timing]:
    return [Timing(measure, racer, i, 0, s, text, 3) for i, s in enumerate(seconds)]


def test_ratios_are_paired_by_prompt() -> None:
    ours, other = f"{OURS}, verified", "other, leftmost"
    found = summarise(timings("cold fill", other, [3.0, 40.0, 2.0], "y") + timings("cold fill", ours, [1.0, 10.0, 1.0]))
    (theirs, mine) = found["cold fill"]
    assert (theirs["racer"], theirs["ms"], theirs["ratio"], theirs["as_reference"]) == (other, 3000.0, 3.0, 0)
    assert (theirs["ratio_low"], theirs["ratio_high"]) == (2.0, 4.0)
    assert (mine["ms"], mine["ratio"], mine["as_reference"], mine["forwards"]) == (1000.0, 1.0, 1, 3)


def test_lines_may_be_a_tasks() -> None:
    lines = bench._lines(bench.SINGLE, 3)
    assert lines == bench._lines(bench.SINGLE, 3)
    assert len({line.text for line in lines}) == 3
    for line in lines:
        assert line.solution.strip()
        assert "\n" not in line.solution
        assert parses(line.holding(line.solution)), "what the hole's line says, and the rest of the function"


@needs_engine
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DIFFCODE_HOME", str(tmp_path / "home"))
    model = tiny.write_model(tmp_path / "model")
    adapter = tiny.write_adapter(tmp_path / "adapter", tiny.adapter_tensors(tiny.config()))
    given = ["bench", "--model", str(model), "--adapter", str(adapter), "--problems", "2", "--rounds", "2"]
    assert cli.run([*given, "--policies", "leftmost,verified", "--out", str(tmp_path / "out"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["measures"]
    assert set(found) == {"context", "token", "8 rows", "cold fill", "warm fill"}
    assert [row["racer"] for row in found["cold fill"]] == [
        f"{OURS}, leftmost",
        f"{OURS}, verified",
        "torch bfloat16, leftmost",
    ]
    assert all(row["n"] == 4 and row["ms"] > 0 for rows in found.values() for row in rows)
    same = {row["racer"]: row["as_reference"] for row in found["warm fill"]}
    assert same[f"{OURS}, leftmost"] == 1, "verified gives what left-to-right decoding gives"
    kept = (tmp_path / "out" / "bench.jsonl").read_text().splitlines()
    assert len(kept) == 2 * 2 * (3 * 2 + 2 * 3)
    assert (tmp_path / "out" / "bench.svg").read_text().startswith("<svg")
    for wrong, message in (("llama", "there is no engine 'llama'"), ("bfloat16", "leave int8 among the engines")):
        assert cli.run([*given, "--engines", wrong]) == 2
        assert message in capsys.readouterr().err


class KeepingLibrary(Library):
    """As llama.cpp is: a reset leaves the cache's numbers where they are."""

    def reset(self) -> None:
        if not hasattr(self, "_cache"):
            super().reset()
            self.read: list[int] = []
        self.n_tokens = 0

    @property
    def input_ids(self) -> Any:
        return torch.tensor(self.read)

    def eval(self, ids: list[int]) -> None:
        self.read = [*self.read[: self.n_tokens], *ids]
        super().eval(ids)


def test_llama_cpp_is_warm_when_we_are(tmp_path: Path) -> None:
    """What its canvas holds of the new context is not read again, and the fill is the same."""
    ours = Infiller.from_pretrained(str(tiny.write_model(tmp_path / "m")), adapter="none", dtype="float32")
    line = library_lines(1, 1)[0]
    fills, sent = [], []
    for kind in (outside.LlamaModel, WarmLlama):
        library = KeepingLibrary(ours)
        library.reset()
        other = Infiller(kind(library, library.Llama("f"), ours.model.tokens, ours.model.noise), WindowOptions(64), 0)  # type: ignore[arg-type]
        racer = Racer("llama.cpp", "leftmost", other, other)
        timed = [t for t in race([racer], [line, line], 1) if t.measure == "warm fill"]
        fills.append([t.text for t in timed])
        sent.append(len(library.evaluated[-timed[-1].forwards]))
    plain = ours.fill_with(line.text, [(line.at,) * 2], DenoiseOptions("leftmost", max_tokens=64), stop="\n")
    assert fills[0] == fills[1]
    assert sent[1] < sent[0] / 3, "the context was read again"
    assert plain.forwards > 0


def test_the_compiled_forward_is_the_same(tmp_path: Path) -> None:
    """And it may write to the cache, which torch's compiler refuses in inference mode."""
    model = Model.load(str(tiny.write_model(tmp_path / "m")), "none", dtype="float32")

    def guesses() -> list[int]:
        session = model.session()
        session.step([1, 2, 3], [], [], [], 0, [None])
        session.keep(3)
        base, _ = session.step([4], [5, 6], [], [], 0, [None] * 3)
        return [guess.token for guess in base]

    plain = guesses()
    compile_forward(model.backbone, backend="aot_eager")
    assert guesses() == plain
