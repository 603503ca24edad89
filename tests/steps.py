"""Tiny models that fill holes by the fused step, for the tests on torch's ops and for those in Triton's interpreter."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffcode.config import POLICY_NAMES, DenoiseOptions
from diffcode.denoise import Denoised, Problem, denoise
from diffcode.engine import Model
from diffcode.fused import step_weights
from diffcode.kernels.ahead import Ahead, Ask
from diffcode.kernels.graphs import Graphs
from diffcode.kernels.plan import SpanRows
from diffcode.kernels.stepper import Stepper
from diffcode.stops import StopRule
from tests import tiny

TEXT = "def area(width, height):\n    return ???\n"
BOUNDS = {"verified": 0.2, "threshold": 0.5, "margin": 0.3, "entropy_bound": 1.0, "edit": 0.5, "leftmost": 0.0}
MAX_TOKENS = 9
WINDOW = 4
# In Triton's interpreter, where a step takes half a second:
FEW_TOKENS = 4
QUICK = ("verified", "threshold")
POLICIES = [pytest.param(name, marks=[pytest.mark.slow] if name not in QUICK else []) for name in POLICY_NAMES]


def load(root: Path, *, successor: bool = True) -> Model:
    """Two layers, half of the vocabulary kept, and rows that are as sure of themselves as a trained model's."""
    tensors = tiny.adapter_tensors(tiny.config(), kept=range(0, tiny.VOCABULARY, 2))
    if successor:
        random = torch.Generator().manual_seed(5)
        tensors["successor_down"] = torch.randn(32, 128, generator=random) / 128**0.5
        tensors["successor_up"] = torch.randn(64, 32, generator=random) / 32**0.5
    folder = tiny.write_model(root / "base")
    tensors_of = load_file(folder / "model.safetensors")
    save_file(tensors_of | {"model.norm.weight": 5 * tensors_of["model.norm.weight"]}, folder / "model.safetensors")
    return Model.load(str(folder), str(tiny.write_adapter(root / "span", tensors)), "cpu", "float32")


def stepper_of(model: Model, graphs: Graphs | None = None, places: int = 512) -> Stepper:
    weights = step_weights(model.backbone, model.adapter, model.span_head_ND)
    return Stepper(weights, graphs, places)


def with_stepper(model: Model, graphs: Graphs | None = None, places: int = 512) -> Model:
    return replace(model, stepper=stepper_of(model, graphs, places))


def denoised(model: Model, context: tuple[int, ...], policy: str, tokens: int = MAX_TOKENS, **more: int) -> Denoised:
    """By the loop on the host, with nothing but the policy: no n-grams, no stop strings. An end is never doubted."""
    session = model.session()
    options = DenoiseOptions(policy, BOUNDS[policy], tokens, ngrams=0, **more)
    problem = Problem(context, b"", StopRule("", (), False, False, ""))
    loop = denoise(session, problem, options, model.tokens, SpanRows(WINDOW))
    try:
        while True:
            next(loop)
    except StopIteration as end:
        found: Denoised = end.value
        return found


def ask(model: Model, policy: str, tokens: int = MAX_TOKENS, anchors: int = 1) -> Ask:
    window = 0 if policy == "leftmost" else WINDOW
    ends = [t for t in range(tiny.VOCABULARY) if model.tokens.is_end(t)]
    return Ask(policy, BOUNDS[policy], tokens, window, ends, anchors)


def contexts(count: int) -> list[tuple[int, ...]]:
    """Some fills end by themselves, by some policies; none is empty, which the host would doubt."""
    found = []
    for seed, length in ((24, 9), (3, 21), (1, 9), (37, 9), (7, 9))[:count]:
        random = torch.Generator().manual_seed(seed)
        found.append(tuple(torch.randint(0, 260, (length,), generator=random).tolist()))
    return found


def ahead(model: Model, policy: str, prompts: list[tuple[int, ...]], steps: int = 4, **more: int) -> Ahead:
    """All fills to their ends, looked at every few steps."""
    assert model.stepper is not None
    found = Ahead(model.stepper, ask(model, policy, **more), len(prompts), 64)
    found.begin(prompts)
    while not found.run(steps):
        pass
    return found
