"""Loss and gradients of both stages against a dense model in fp64 that autograd takes apart: no cache, no shared pass.

The dense model is `tiny.Oracle`, one forward for each span.
"""

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch
import torch.nn.functional as F
from tiny import Oracle, Row
from torch import Tensor
from training_kit import DENOISING, example, span_stage, stir

from diffcode.backbone import Backbone
from diffcode.loading import ModelShape
from diffcode.training.decoder import CausalAttention, Decoder
from diffcode.training.infill_stage import InfillStage
from diffcode.training.masks import MASKED
from diffcode.training.options import InfillOptions
from diffcode.training.span_stage import SpanStage, Text

SETTINGS = tiny.config()
EXAMPLES = [(0, example(5, 7, 6, 1)), (1, example(0, 3, 9, 2)), (2, example(4, 2, 1, 3))]
FUSED = {
    "qkv": {"self_attn.q_proj": 64, "self_attn.k_proj": 32, "self_attn.v_proj": 32},
    "out": {"self_attn.o_proj": 64},
    "gate_up": {"mlp.gate_proj": 96, "mlp.up_proj": 96},
    "down": {"mlp.down_proj": 64},
}


def backbone(dtype: torch.dtype = torch.float32) -> Backbone:
    shape = ModelShape.from_config(SETTINGS, __file__)  # type: ignore[arg-type]
    return Backbone(shape, tiny.weights(SETTINGS), dtype, torch.device("cpu"))


def leaves(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: p.detach().double().requires_grad_() for name, p in parameters.items()}


def oracle(mine: Mapping[str, Tensor], weights: dict[str, Tensor] | None = None) -> Oracle:
    """The dense model over low-rank maps of the decoder's names."""
    adapter = {"mask_embedding": mine.get("head.mask_D", torch.zeros(64))}
    for layer in range(2):
        for fused, maps in FUSED.items():
            stem = f"layers.{layer}.low_rank.{fused}."
            for (name, _), up in zip(maps.items(), mine[stem + "up_Er"].split(list(maps.values())), strict=True):
                adapter[f"base_model.model.model.layers.{layer}.{name}.lora_A.weight"] = mine[stem + "down_rD"]
                adapter[f"base_model.model.model.layers.{layer}.{name}.lora_B.weight"] = up
    return Oracle(SETTINGS, weights or tiny.weights(SETTINGS), adapter, 1.0)


def assert_gradients(ours: Mapping[str, Tensor], gold: Mapping[str, Tensor], tolerance: float = 2e-4) -> None:
    for name, parameter in ours.items():
        assert parameter.grad is not None, name
        expected = gold[name].grad
        assert expected is not None, name
        assert expected.abs().max() > 1e-6, f"{name} has no say: this tests nothing"
        assert (parameter.grad.double() - expected).abs().max() < tolerance * expected.abs().max(), name


# ---- stage A


def infill_gold(model: Oracle, end_weight: float) -> Tensor:
    """The weighted sum over all middles, all rows adapted."""
    total = torch.zeros((), dtype=torch.float64)
    for _, e in EXAMPLES:
        ids = [*e.context, *e.middle]
        rows = [Row(token, i, span=True) for i, token in enumerate(ids[:-1])]
        logits = model.logits(rows, torch.ones(len(rows), len(rows), dtype=torch.bool).tril())
        weights = torch.tensor([1.0] * (len(e.middle) - 1) + [end_weight]).double()
        nll = F.cross_entropy(logits[len(e.context) - 1 :], torch.tensor(e.middle), reduction="none")
        total = total + (nll * weights).sum()
    return total


@pytest.mark.parametrize("recompute", [False, True])
def test_infill_loss_and_gradients(recompute: bool) -> None:
    decoder = Decoder(backbone(), 4, recompute=recompute)
    stage = InfillStage(decoder, InfillOptions(end_weight=3.0))
    stir(stage.parameters())
    scored = stage.score(EXAMPLES)
    scored.loss.backward()
    mine = leaves(stage.parameters())
    gold = infill_gold(oracle(mine), 3.0)
    gold.backward()
    assert float(scored.loss.detach()) == pytest.approx(float(gold.detach()), rel=1e-5)
    assert scored.weight == sum(len(e.middle) - 1 + 3.0 for _, e in EXAMPLES)
    assert_gradients(stage.parameters(), mine)


def test_full_training_moves_every_weight_of_the_base() -> None:
    """Embedding and head are one, so its gradient comes from both ends."""
    decoder = Decoder(backbone(), 4, train_base=True)
    stage = InfillStage(decoder, InfillOptions(end_weight=1.0))
    stir({name: p for name, p in stage.parameters().items() if "low_rank" in name})
    scored = stage.score(EXAMPLES)
    scored.loss.backward()
    weights = {name: w.double().requires_grad_() for name, w in tiny.weights(SETTINGS).items()}
    low = leaves({name: p for name, p in stage.parameters().items() if "low_rank" in name})
    infill_gold(oracle(low, weights), 1.0).backward()
    own = {name: p for name, p in stage.parameters().items() if "low_rank" not in name}
    gold = {name: torch.cat([weights[n].grad for n in names]) for name, names in hf_names(own)}  # type: ignore[misc]
    assert len(gold) == 2 + 2 * 8
    for name, parameter in own.items():
        assert parameter.grad is not None, name
        assert (parameter.grad.double() - gold[name]).abs().max() < 2e-4 * gold[name].abs().max(), name


def hf_names(own: Mapping[str, Tensor]) -> list[tuple[str, list[str]]]:
    """The published weights that each of the decoder's holds."""
    plain = {"embedding_VD": ["embed_tokens.weight"], "norm_D": ["norm.weight"]}
    inside = {
        "input_norm_D": ["input_layernorm.weight"],
        "qkv_ED": [f"self_attn.{m}_proj.weight" for m in "qkv"],
        "qkv_bias_E": [f"self_attn.{m}_proj.bias" for m in "qkv"],
        "out_DE": ["self_attn.o_proj.weight"],
        "post_norm_D": ["post_attention_layernorm.weight"],
        "gate_FD": ["mlp.gate_proj.weight"],
        "up_FD": ["mlp.up_proj.weight"],
        "down_DF": ["mlp.down_proj.weight"],
    }
    found = []
    for name in own:
        stem, _, last = name.rpartition(".")
        found.append((name, [f"model.{stem}.{n}" if stem else f"model.{n}" for n in (inside if stem else plain)[last]]))
    return found


# ---- stage B


def successor_gold(x: Tensor, previous: Tensor, mine: Mapping[str, Tensor]) -> Tensor:
    normed = [t / (t.square().mean() + SETTINGS["rms_norm_eps"]).sqrt() for t in (x, previous)]
    inner = mine["head.down_HE"] @ torch.cat(normed)
    return x + mine["head.up_DH"] @ (inner * torch.sigmoid(inner))


def span_gold(texts: list[Text], mine: Mapping[str, Tensor], stage: SpanStage) -> tuple[Tensor, float]:
    """Loss and weight, a span and a row at a time."""
    model, bare = oracle(mine), oracle({n: p.detach() * 0 for n, p in mine.items()})
    head = tiny.weights(SETTINGS)["model.embed_tokens.weight"].double()
    kept, d = stage.kept_N.tolist(), stage.options.distill
    total, weight = torch.zeros((), dtype=torch.float64), 0.0
    for text in texts:
        whole = [Row(token, i) for i, token in enumerate(text.ids)]
        with torch.no_grad():
            teacher = bare.logits(whole, torch.ones(len(whole), len(whole), dtype=torch.bool).tril())
        for span in text.spans:
            places = [Row(None if t == MASKED else t, span.start + w, True) for w, t in enumerate(span.shown)]
            rows = [*whole[: span.start], *places]
            sees = torch.ones(len(rows), len(rows), dtype=torch.bool).tril()
            sees[span.start :] = True
            hidden = states(model, rows, sees)[span.start :]
            for w, target in enumerate(span.targets):
                if target not in kept:
                    continue
                logp = (head[kept] @ successor_gold(hidden[w], head[span.previous[w]], mine)).log_softmax(-1)
                q = teacher[min(span.start + w, len(text.ids) - 2)][kept].softmax(-1)
                row = -(1 - d) * logp[kept.index(target)] - d * (q * logp).sum()
                total, weight = total + span.weights[w] * row, weight + span.weights[w]
    return total, weight


def states(model: Oracle, rows: list[Row], sees: Tensor) -> Tensor:
    """The final states: its logits over a head that is the identity."""
    unit = replace(model, weights=model.weights | {"lm_head.weight": torch.eye(64)})
    return unit.logits(rows, sees)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("changes", [{}, {"distill": 0.0}, {"noise": 0.5, "island_rate": 1.0, "all_masked": 0.2}])
def test_span_loss_and_gradients(changes: dict[str, Any], recompute: bool) -> None:
    kept = sorted({*range(0, 264, 3), tiny.END})
    stage = span_stage(backbone(), kept, replace(DENOISING, window=3, starts=4, **changes))
    for layer in stage.decoder.layers:
        layer.recompute = recompute
    texts = [stage._text(e, random.Random(number)) for number, e in EXAMPLES]
    scored = stage._score(texts)
    scored.loss.backward()
    mine = leaves(stage.parameters())
    gold, weight = span_gold(texts, mine, stage)
    gold.backward()
    assert float(scored.loss.detach()) == pytest.approx(float(gold.detach()), rel=1e-4)
    assert scored.weight == pytest.approx(weight, rel=1e-5)
    assert_gradients(stage.parameters(), mine, 1e-3)


@pytest.mark.parametrize("stage", ["infill", "span"])
def test_recomputing_changes_nothing(stage: str) -> None:
    """To the last bit: the same sums in the same order."""
    found = []
    for recompute in (False, True):
        decoder = Decoder(backbone(torch.bfloat16), 4, recompute=recompute)
        made: Any = InfillStage(decoder, InfillOptions())
        if stage == "span":
            plain = span_stage(backbone(torch.bfloat16))
            made = SpanStage(decoder, plain.head, plain.kept_N, tiny.MIDDLE, DENOISING)
        stir(made.parameters())
        scored = made.score(EXAMPLES)
        scored.loss.backward()
        found.append((scored.loss.detach(), {n: p.grad for n, p in made.parameters().items()}))
    assert torch.equal(found[0][0], found[1][0])
    for name, gradient in found[0][1].items():
        assert gradient is not None
        assert torch.equal(gradient, found[1][1][name]), name


def test_recomputing_keeps_fewer_tensors() -> None:
    """Else the option did nothing."""
    sizes = []
    for recompute in (False, True):
        decoder = Decoder(backbone(), 4, recompute=recompute)
        kept: list[int] = []

        def pack(tensor: Tensor, kept: list[int] = kept) -> Tensor:
            kept.append(tensor.numel())
            return tensor

        ids = torch.arange(40)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            decoder(decoder.embed(ids), ids, CausalAttention([40]))
        sizes.append(sum(kept))
    assert sizes[1] < 0.5 * sizes[0]
