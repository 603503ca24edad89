"""Other libraries' kernels for our ops, where they are installed: each a way to the same numbers as `Call.torch`."""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from diffcode.kernels import reference
from diffcode.kernels.calls import Call, Run


@dataclass(frozen=True, slots=True)
class Rival:
    """One library's way to do one op."""

    name: str
    module: str
    op: str
    same: bool  # it computes our numbers; else only nearly our work
    make: Callable[[Any, Call], Run]


def rivals(op: str) -> list[Rival]:
    """Those of an op that are installed."""
    return [r for r in RIVALS if r.op == op and importlib.util.find_spec(r.module.partition(".")[0]) is not None]


def run_of(rival: Rival, made: Call) -> Run:
    """Ready to be called. Raises what the library raises."""
    return rival.make(importlib.import_module(rival.module), made)


def _flashinfer(module: Any, made: Call) -> Run:
    """[rows, heads, width], keys and values [places, groups, width]; takes our mask."""
    q, seen = made.parts["q"], made.parts["seen"]
    k, v = (made.parts[name].transpose(0, 1).contiguous() for name in "kv")

    def run() -> Tensor:
        found: Tensor = module.single_prefill_with_kv_cache(q, k, v, custom_mask=seen, kv_layout="NHD")
        return found.flatten(1)

    return run


def _flash_attention(module: Any, made: Call) -> Run:
    """It takes no mask: every row sees every place, a little more work."""
    q, (k, v) = made.parts["q"][None], (made.parts[name].transpose(0, 1).contiguous()[None] for name in "kv")

    def run() -> Tensor:
        found: Tensor = module.flash_attn_func(q, k, v)
        return found[0].flatten(1)

    return run


def _liger(module: Any, made: Call) -> Run:
    """Its norm and its gate round the library's products."""
    swiglu = importlib.import_module("liger_kernel.ops.swiglu")
    x, norm, gate_up, spans = (made.parts[name] for name in ("x", "norm", "map", "span_rows"))

    def run() -> Tensor:
        normed = module.LigerRMSNormFunction.apply(x, norm.weight_D, norm.eps)
        gate, up = reference.lora_linear(normed, gate_up, span_rows=spans).chunk(2, dim=-1)
        found: Tensor = swiglu.LigerSiLUMulFunction.apply(gate, up)
        return found

    return run


def _separate_sdpa(module: Any, made: Call) -> Run:
    """torch's own attention with groups and a mask, as most models call it."""
    q, k, v, seen = (made.parts[name] for name in ("q", "k", "v", "seen"))

    def run() -> Tensor:
        out = F.scaled_dot_product_attention(q.transpose(0, 1)[None], k[None], v[None], attn_mask=seen, enable_gqa=True)
        return out[0].transpose(0, 1).flatten(1)

    return run


RIVALS = (
    Rival("FlashInfer", "flashinfer", "span_attention", True, _flashinfer),
    Rival("FlashAttention, no mask", "flash_attn", "span_attention", False, _flash_attention),
    Rival("torch SDPA, groups", "torch", "span_attention", True, _separate_sdpa),
    Rival("Liger", "liger_kernel.ops.rms_norm", "gated_mlp", True, _liger),
)
