"""Which machine runs an op: Triton on a GPU where it is installed and takes the shapes, else the specification.

The functions have the names and arguments of `kernels.reference`; the cache's places that rows see come as sights.
"""

import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor

from diffcode.kernels import reference, reference_commit
from diffcode.kernels.reference import Cache, HeadRows, Map, Norm
from diffcode.kernels.reference_commit import Committed, Forwarded

Machine = Literal["triton", "torch"]
# At 64 rows and more published fused heads lose to the library's product (see the issue); not measured here.
SLICED_ROWS = 64
_known: dict[str, bool] = {}
_plain = False
TYPES = (torch.bfloat16, torch.float16, torch.float32, torch.int64)  # of rows, or of what `commit` counts


@cache
def _triton(op: str) -> ModuleType | None:
    """The op's Triton module, None where it cannot be had."""
    if importlib.util.find_spec("triton") is None:
        return None
    try:
        return importlib.import_module(f"diffcode.kernels.triton.{op}")
    except (ImportError, AttributeError, OSError) as error:  # another version, or built for another machine
        warnings.warn(f"Triton is installed but does not run here ({error}): torch does its work", stacklevel=3)
        return None


def machine(op: str, x: Tensor, head_width: int = 1) -> Machine:
    """Who runs an op on these rows. DIFFCODE_KERNELS=torch keeps Triton out."""
    if _plain or os.environ.get("DIFFCODE_KERNELS") == "torch" or not (x.is_cuda or _interpreted()):
        return "torch"
    if x.dtype not in TYPES or head_width & (head_width - 1):
        return "torch"
    if x.dtype == torch.float32 and not _interpreted():  # no tensor cores, and tiles of twice the size do not fit
        return "torch"
    return "triton" if _runs(op) else "torch"


@contextmanager
def torch_alone() -> Iterator[None]:
    """For a while torch runs everything, to compare with. Another thread's ops meanwhile run there too."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


def _runs(op: str) -> bool:
    """After the first call a look into a table: a graph compiler must not meet imports."""
    if op not in _known:
        _known[op] = _triton(op) is not None
    return _known[op]


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def lora_linear(
    x_RD: Tensor, linear: Map, *, norm: Norm | None = None, span_rows: int = 0, residual_RE: Tensor | None = None
) -> Tensor:
    """`reference.lora_linear`."""
    if machine("lora_linear", x_RD) == "torch":
        return reference.lora_linear(x_RD, linear, norm=norm, span_rows=span_rows, residual_RE=residual_RE)
    weight_D, eps = _norm(norm)
    maps = (linear.weight_ED, linear.scales_EG, linear.bias_E, linear.down_rD, linear.up_Er)
    y_RE: Tensor = _op("lora_linear")(x_RD, *maps, weight_D, residual_RE, span_rows, eps)
    return y_RE


def gated_mlp(x_RD: Tensor, gate_up: Map, *, norm: Norm | None = None, span_rows: int = 0) -> Tensor:
    """`reference.gated_mlp`."""
    if machine("gated_mlp", x_RD) == "torch" or gate_up.bias_E is not None:
        return reference.gated_mlp(x_RD, gate_up, norm=norm, span_rows=span_rows)
    weight_D, eps = _norm(norm)
    maps = (gate_up.weight_ED, gate_up.scales_EG, gate_up.down_rD, gate_up.up_Er)
    y_RF: Tensor = _op("gated_mlp")(x_RD, *maps, weight_D, span_rows, eps)
    return y_RF


def qkv_rope(
    x_RD: Tensor,
    qkv: Map,
    cos_RK: Tensor,
    sin_RK: Tensor,
    slot_R: Tensor,
    cache: Cache,
    *,
    norm: Norm | None = None,
    span_rows: int = 0,
) -> Tensor:
    """`reference.qkv_rope`."""
    if machine("qkv_rope", x_RD, cos_RK.shape[1]) == "torch":
        return reference.qkv_rope(x_RD, qkv, cos_RK, sin_RK, slot_R, cache, norm=norm, span_rows=span_rows)
    weight_D, eps = _norm(norm)
    maps = (qkv.weight_ED, qkv.scales_EG, qkv.bias_E, qkv.down_rD, qkv.up_Er)
    places = (cos_RK, sin_RK, slot_R, cache.k_GPK, cache.v_GPK)
    q_RHK: Tensor = _op("qkv_rope")(x_RD, *maps, weight_D, *places, span_rows, eps)
    return q_RHK


def span_attention(q_RHK: Tensor, cache: Cache, sight_R4: Tensor, longest: int) -> Tensor:
    """`reference.span_attention` of what `sight_R4` lets rows see; a row that sees nothing gets zeros.

    `longest`: places of the longest canvas, known to the host; it only decides how the work is cut.
    """
    if machine("span_attention", q_RHK, q_RHK.shape[2]) == "triton":
        mixed_RE: Tensor = _op("span_attention")(q_RHK, cache.k_GPK, cache.v_GPK, sight_R4, longest)
        return mixed_RE
    seen_RP = reference.seen_places(sight_R4, cache.k_GPK.shape[1])
    out_RE = reference.span_attention(q_RHK, cache.k_GPK, cache.v_GPK, seen_RP)
    return out_RE.masked_fill(~seen_RP.any(1, keepdim=True), 0)


def masked_head(
    x_RD: Tensor,
    head: Map,
    *,
    norm: Norm | None = None,
    barred_RV: Tensor | None = None,
    ids_V: Tensor | None = None,
    draw_R2: Tensor | None = None,
    temperature: float = 0.0,
    favour: tuple[int, float] | None = None,
) -> HeadRows:
    """`reference.masked_head` of rows that are not normed yet. `ids_V` (int32) are the tokens behind the outputs, and
    what is returned; `draw_R2` (int64) seed and place of each row, for a draw with `reference.counted_gumbel`."""
    if machine("masked_head", x_RD) == "torch":
        x_RD = x_RD if norm is None else reference.rms_norm(x_RD, norm.weight_D, norm.eps)
        head_VD = reference.widen(head.weight_ED, head.scales_EG, x_RD.dtype)
        noise_RV = None if draw_R2 is None else reference.counted_gumbel(draw_R2, len(head_VD), ids_V)
        more = {"barred_RV": barred_RV, "gumbel_RV": noise_RV, "temperature": temperature, "favour": favour}
        found = reference.masked_head(x_RD, head_VD, **more)  # type: ignore[arg-type]
        token_R = found.token_R if ids_V is None else ids_V[found.token_R].long()
        return HeadRows(token_R, found.probability_R, found.margin_R, found.entropy_R)
    weight_D, eps = _norm(norm)
    favoured, nats = favour or (-1, 0.0)
    sliced = len(x_RD) >= SLICED_ROWS and head.scales_EG is None
    choice = (barred_RV, ids_V, draw_R2, temperature, favoured, nats, sliced)
    return HeadRows(*_op("masked_head")(x_RD, head.weight_ED, head.scales_EG, weight_D, eps, *choice))


def commit(policy: str, seen: Forwarded, bound_B: Tensor, left_B: Tensor, ends_V: Tensor) -> Committed:
    """`reference_commit.commit`."""
    if machine("commit", seen.drafts_B) == "torch":
        return reference_commit.commit(policy, seen, bound_B, left_B, ends_V)
    module = _triton("commit")
    assert module is not None
    found: Committed = module.committed(*module.commit(*module.flat(policy, seen, bound_B, left_B, ends_V)))
    return found


def _op(name: str) -> Callable[..., Any]:
    """A torch.library op that `machine` has loaded; its types are the schema's."""
    found: Callable[..., Any] = getattr(torch.ops.diffcode, name)
    return found


def _norm(norm: Norm | None) -> tuple[Tensor | None, float]:
    return (None, 0.0) if norm is None else (norm.weight_D, norm.eps)
