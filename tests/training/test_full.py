"""Full fine-tuning: the base itself learns, and what comes of it is a model that others can open."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file
from training_kit import load, losses, options, repetitive, write_corpus

from diffcode import cli
from diffcode.errors import BadOption
from diffcode.tokens import Tokens
from diffcode.training.data_command import model_folder
from diffcode.training.infill_stage import InfillStage
from diffcode.training.launch import load as load_for
from diffcode.training.launch import make_trainer
from diffcode.training.options import TrainOptions
from diffcode.training.trainer import Trainer

KINDS: dict[str, dict[str, Any]] = {
    "qwen2, head tied": {},
    "qwen2, head of its own": {"tie_word_embeddings": False},
    "llama, no biases": {"kind": "llama", "tie_word_embeddings": False},
    "wide heads": {"head_dim": 32},
}


def opened(model: Path, out: Path, dtype: str = "float32", **changes: Any) -> Trainer:
    """A run of a full fine-tuning; the corpus is made beside the model where there is none."""
    corpus = model.parent / f"{model.name}-corpus"
    if not corpus.exists():
        write_corpus(corpus, repetitive(), Tokens.from_folder(model_folder(str(model))), validation=2)
    wanted = options("infill", full=True, warmup=1, **changes)
    return make_trainer(wanted, corpus, out, load(model, dtype, adapter="none", infill="none"), name=str(model))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("base") / "m")


@pytest.mark.parametrize("kind", KINDS)
def test_the_result_is_a_model_that_says_what_was_learnt(kind: str, tmp_path: Path) -> None:
    model = tiny.write_model(tmp_path / "m", **KINDS[kind])
    trainer = opened(model, tmp_path / "run", steps=12, validate_every=12)
    list(trainer.run())
    rows = trainer.folder.metrics()
    learnt = losses(rows)
    assert learnt[-1][1] < learnt[0][1] - 1
    # a fresh stage on what was written measures what the run measured, up to the rounding to bf16
    stage = opened(tmp_path / "run/adapter", tmp_path / "again").stage
    with torch.no_grad():
        found = stage.validate(trainer._held_out)
    assert found["nll"] == pytest.approx(rows[-1]["validation"]["nll"], rel=0.01)
    assert found["nll"] < rows[0]["validation"]["nll"] - 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_is_there_under_its_published_name(kind: str, tmp_path: Path) -> None:
    """Saved before a step is taken, it is the base."""
    model = tiny.write_model(tmp_path / "m", **KINDS[kind])
    trainer = opened(model, tmp_path / "run")
    assert isinstance(trainer.stage, InfillStage)
    trainer.stage.save(tmp_path / "saved", {"step": 0})
    before, after = (load_file(folder / "model.safetensors") for folder in (model, tmp_path / "saved"))
    assert before.keys() == after.keys()
    for name, weight in before.items():
        assert torch.equal(after[name], weight.bfloat16()), name


def test_all_of_it_learns(base: Path, tmp_path: Path) -> None:
    trainer = opened(base, tmp_path / "run", average=0.0, steps=2)
    list(trainer.run())
    before, after = (load_file(f / "model.safetensors") for f in (base, tmp_path / "run/adapter"))
    assert [name for name in before if torch.equal(after[name].float(), before[name].bfloat16().float())] == []


def test_transformers_opens_it(base: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    list(opened(base, tmp_path / "run", steps=2).run())
    folder = tmp_path / "run/best"
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ours = load(folder).backbone
    ids = [3, 1, 4, 1, 5]
    seen, positions = torch.ones(5, 5, dtype=torch.bool).tril(), torch.arange(5)
    hidden = ours.forward(ours.embed(ids), positions, ours.new_cache(512), seen)
    with torch.no_grad():
        logits = theirs(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(hidden @ ours.head_VD.T, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_stopped_run_goes_on_bitwise(recompute: bool, base: Path, tmp_path: Path) -> None:
    list(opened(base, tmp_path / "whole").run())
    for end in (2, 6):
        part = opened(base, tmp_path / "parts", recompute=recompute)
        part.stop = lambda part=part, end=end: part.step >= end  # type: ignore[misc]
        list(part.run())
    assert losses(part.folder.metrics()) == losses(opened(base, tmp_path / "whole").folder.metrics())
    files = [tmp_path / run / "adapter/model.safetensors" for run in ("whole", "parts")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_command_makes_a_model_that_fills(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = write_corpus(tmp_path / "corpus", repetitive(), Tokens.from_folder(base), validation=2)
    run = tmp_path / "run"
    where = ["--data", str(corpus), "--out", str(run), "--model", str(base), "--device", "cpu", "--dtype", "float32"]
    small = ["--steps", "2", "--texts", "2", "--set", "validation_texts=3", "--set", "spans.most_tokens=40"]
    assert cli.run(["train", "--stage", "infill", "--full", *where, *small]) == 0
    assert f"model {run / 'best'}" in capsys.readouterr().out
    assert json.loads((run / "best/config.json").read_text())["diffcode"]["stage"] == "infill"
    (tmp_path / "a.py").write_text("def re(de):\n    ???\n")
    asked = ["--model", str(run / "best"), "--device", "cpu", "--max-tokens", "4", "--adapter", "none", "--json"]
    assert cli.run(["fill", str(tmp_path / "a.py"), *asked]) == 0


def test_a_gguf_base_is_saved_as_a_folder_of_its_own(tmp_path: Path) -> None:
    """Its config does not claim to be the unpacked GGUF file."""
    path = tiny.write_gguf(tmp_path / "m.gguf")
    list(opened(path, tmp_path / "run", steps=1).run())
    config = json.loads((tmp_path / "run/best/config.json").read_text())
    assert "made_from" not in config
    assert config["torch_dtype"] == "bfloat16"
    load(tmp_path / "run/best")


@pytest.mark.parametrize("more", [["--stage", "span"], []], ids=["asked for", "the default"])
def test_span_rows_have_no_base_to_train(more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Said before a model is loaded."""
    assert cli.run(["train", "--full", "--data", str(tmp_path), "--out", str(tmp_path / "o"), *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("add --stage infill")
    with pytest.raises(BadOption, match="add --stage infill"):
        TrainOptions(stage="span", full=True)


def test_an_adapter_is_no_start_for_it(base: Path, tmp_path: Path) -> None:
    given = {"start": tmp_path, "model": str(base), "infill": None, "fresh": False, "device": "cpu", "dtype": None}
    with pytest.raises(BadOption, match="--infill"):
        load_for(TrainOptions(full=True), given, lambda at: None)
