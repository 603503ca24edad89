"""From options to a running trainer: opens the data, loads the model, makes the stage."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffcode.adapter import SpanAdapter, low_rank_maps
from diffcode.engine import INFILL, SPAN, Model, shipped
from diffcode.errors import BadOption, UnreadableFile
from diffcode.hub import Report
from diffcode.training.data_command import model_folder
from diffcode.training.dataset import Dataset
from diffcode.training.decoder import Decoder
from diffcode.training.distributed import ALONE, World
from diffcode.training.infill_stage import InfillStage
from diffcode.training.options import TrainOptions
from diffcode.training.run_folder import RunFolder
from diffcode.training.sampler import Sampler
from diffcode.training.sharding import shard
from diffcode.training.span_stage import SpanHead, SpanStage
from diffcode.training.stage import Stage
from diffcode.training.trainer import Trainer

VALIDATION_SEED = 1_000_003  # of the held-out examples; the same for every run, so that runs compare


@dataclass(frozen=True, slots=True)
class Start:
    """An adapter to begin from."""

    folder: Path
    rank: int


def load_whole(given: Mapping[str, Any], report: Report) -> Model:
    """The base that is itself to be trained: with the shipped infilling adapter merged in, unless --fresh."""
    if given["start"] is not None:
        raise BadOption("--from names an adapter, and --full trains no adapter: merge it in with --infill")
    infill = given["infill"] or ("none" if given["fresh"] else None)
    return Model.load(given["model"], "none", given["device"], given["dtype"] or "bfloat16", report, infill)


def load(options: TrainOptions, given: Mapping[str, Any], report: Report) -> tuple[Model, Start | None]:
    """The base to train on, and where to begin: stage infill has the published weights, stage span the merged ones."""
    if options.full:
        return load_whole(given, report), None
    name, infill = given["model"], given["infill"]
    if infill is None and options.stage == "infill":
        infill = "none"
    model = Model.load(name, "none", given["device"], given["dtype"] or "bfloat16", report, infill)
    folder: Path | None = given["start"]
    if folder is None and not given["fresh"]:
        folder = shipped(name, None, SPAN if options.stage == "span" else INFILL)
    if folder is None:
        return model, None
    first = low_rank_maps(folder, model.backbone.shape.layers)[0]
    return model, Start(folder, len(first["out"].down_rD))


def make_trainer(
    options: TrainOptions,
    data: Path,
    out: Path,
    model: Model,
    start: Path | None = None,
    world: World = ALONE,
    name: str | None = None,
) -> Trainer:
    """A trainer that has gone back to its newest checkpoint, if it has one.

    `start`: an adapter to begin from; `name`: what the model was loaded as, needed to save a whole one (`full`).
    """
    if options.texts < world.size:
        raise BadOption(f"--texts {options.texts} is too few for {world.size} processes: each needs one at least")
    dataset = opened(data)
    folder = RunFolder(out, options.keep, world)
    folder.begin(options, data_of(dataset) | {"base": fingerprint(model)})
    spans = options.spans
    if spans.no_suffix is None and options.stage == "infill" and not options.full:
        spans = replace(spans, no_suffix=0.0)
    training = Sampler(dataset, dataset.training, model.tokens, spans, options.seed)
    validation = Sampler(dataset, dataset.validation, model.tokens, spans, VALIDATION_SEED)
    stage = make_stage(options, model, dataset, start, model_folder(name) if options.full else None)
    shard(stage, world)
    trainer = Trainer(stage, training, validation, options, folder, world=world)
    trainer.resume()
    return trainer


def opened(data: Path) -> Dataset:
    """The set, if a run can be validated with it. Raises UnreadableFile."""
    dataset = Dataset.open(data)
    if not dataset.validation:
        why = f"{data} holds out nothing of its {len(dataset)} documents"
        raise UnreadableFile(f"{why}: build it with a larger --validation, or from more files")
    return dataset


def data_of(dataset: Dataset) -> dict[str, object]:
    """What tells one set from another."""
    return {"tokens": dataset.tokens, "documents": len(dataset), "sha256": dataset.card.get("sha256")}


def fingerprint(model: Model) -> str:
    """Twelve hex digits that differ between base models, also between one with and without an adapter merged in."""
    last = model.backbone.layers[-1]
    parts = (last.qkv_ED[:64], last.down_DF[:8], model.backbone.embedding_VD[:64])
    return hashlib.sha256(b"".join(p.float().cpu().numpy().tobytes() for p in parts)).hexdigest()[:12]


def make_stage(
    options: TrainOptions, model: Model, dataset: Dataset, start: Path | None, source: Path | None = None
) -> Stage:
    """The stage at its beginning: fresh, or from an adapter. `source`: the base's folder, if the base is trained."""
    backbone, device = model.backbone, model.backbone.device
    rank = 0 if options.full else options.rank
    decoder = Decoder(backbone, rank, options.seed, options.full, options.recompute).to(device)
    if options.stage == "infill":
        if start is not None:
            decoder.begin_from(low_rank_maps(start, backbone.shape.layers))
        return InfillStage(decoder, options.infill, source)
    adapter = SpanAdapter.load(start, backbone.shape.layers, torch.float32, device) if start else None
    if adapter is not None:
        decoder.begin_from(adapter.layers)
    kept_N = adapter.kept_N if adapter else None
    if kept_N is None:
        kept_N = frequent_tokens(dataset, options.denoising.kept, model.tokens.fim.end, len(backbone.head_VD))
    head = SpanHead(backbone.shape.width, torch.Generator().manual_seed(options.seed))
    with torch.no_grad():  # at zero the first norm's slope is 1 / sqrt(eps), and clipping would eat all other gradients
        head.mask_D.copy_(backbone.embedding_VD[kept_N].float().mean(0))
    if adapter is not None:
        head.begin_from(adapter)
    return SpanStage(decoder, head.to(device), kept_N.to(device), model.tokens.fim.middle, options.denoising)


def frequent_tokens(dataset: Dataset, count: int, end: int, vocabulary: int) -> Tensor:
    """Ids of the most frequent tokens of a set, ascending, the end token among them."""
    seen = np.zeros(vocabulary, dtype=np.int64)
    for document in dataset.training:
        seen += np.bincount(dataset.ids(document), minlength=vocabulary)
    seen[end] = seen.max() + 1
    best = np.argsort(-seen, kind="stable")[:count]
    return torch.from_numpy(np.sort(best[seen[best] > 0]))
