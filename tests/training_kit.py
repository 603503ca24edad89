"""Small things to train with: a corpus, adapters with weights of some size, runs that end within seconds."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tiny
import torch
from torch import Tensor

from diffcode.backbone import Backbone
from diffcode.engine import Model
from diffcode.tokens import Tokens
from diffcode.training.dataset import DatasetWriter
from diffcode.training.decoder import Decoder
from diffcode.training.options import DenoisingOptions, SpanOptions, TrainOptions
from diffcode.training.sampler import Example
from diffcode.training.span_stage import SpanHead, SpanStage

SHORT = SpanOptions(window=(24, 96), most_tokens=40, most_characters=24, most_lines=2)
DENOISING = DenoisingOptions(window=4, starts=6, kept=120)


def write_corpus(
    folder: Path, texts: Sequence[str], tokens: Tokens, validation: int = 1, language: str = "python"
) -> Path:
    """A data set of these documents, the last `validation` of them held out."""
    with DatasetWriter(folder) as writer:
        for text in texts:
            writer.add(tokens.encode(text), language)
        writer.close({"validation_documents": validation, "hash": str(len(texts))})
    return folder


def repetitive(count: int = 8, seed: int = 0) -> list[str]:
    """Documents in which every line is one of three."""
    rng = random.Random(seed)
    lines = ("def re(de):\n", "    return de\n", "de = re(1)\n")
    return ["".join(rng.choice(lines) for _ in range(60)) for _ in range(count)]


def options(stage: str, **changes: Any) -> TrainOptions:
    """Settings of a run that takes a second or two."""
    plain = TrainOptions(
        stage=stage, steps=6, texts=3, rank=4, warmup=2, rate=1e-3, rows=400, validate_every=3, validation_texts=4,
        spans=SHORT, denoising=DENOISING,
    )  # fmt: skip
    return replace(plain, **changes)


def load(folder: Path, dtype: str = "float32", **changes: Any) -> Model:
    return Model.load(str(folder), device="cpu", dtype=dtype, **changes)


def stir(parameters: Mapping[str, Tensor], seed: int = 0, size: float = 1.0) -> None:
    """Random weights in place of an adapter's first ones, in numbers that bf16 has: saving them then loses nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(parameters.items()):
            wide = 0.3 if parameter.ndim == 1 else size / parameter.shape[-1] ** 0.5
            drawn = wide * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(drawn.bfloat16().float())


def span_stage(
    backbone: Backbone, kept: Sequence[int] | None = None, options: DenoisingOptions = DENOISING, rank: int = 4
) -> SpanStage:
    """A span stage with stirred weights; `kept`: all of the vocabulary by default."""
    decoder = Decoder(backbone, rank)
    head = SpanHead(backbone.shape.width, torch.Generator().manual_seed(0))
    kept_N = torch.tensor(list(kept if kept is not None else range(len(backbone.head_VD))))
    stage = SpanStage(decoder, head, kept_N, tiny.MIDDLE, options)
    stir(stage.parameters())
    return stage


def ids(count: int, seed: int) -> tuple[int, ...]:
    """Text tokens."""
    return tuple(torch.randint(0, len(tiny.TEXTS), (count,), generator=torch.Generator().manual_seed(seed)).tolist())


def example(suffix: int, prefix: int, middle: int, seed: int = 0) -> Example:
    """A canvas of random tokens; `middle` counts its end."""
    drawn = ids(suffix + prefix + middle - 1, seed)
    context = (tiny.PREFIX, tiny.SUFFIX, *drawn[:suffix], tiny.MIDDLE, *drawn[suffix : suffix + prefix])
    return Example(context, (*drawn[suffix + prefix :], tiny.END), "lines", "python")


def losses(rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, float, float]]:
    """What two runs of the same seed must have in common, a step each."""
    return [(row["step"], row["loss"], row["norm"]) for row in rows if "loss" in row]
