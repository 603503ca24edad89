"""The CPU engine behind the denoising loop: a model's weights packed for it, and sessions in it.

The packed base is written once beside the merged weights and memory-mapped, so that processes share it; a span adapter
is small and packed when it is loaded.
"""

import hashlib
import mmap
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from ctypes import c_int32
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffcode.adapter import LowRank, SpanAdapter
from diffcode.backbone import Backbone
from diffcode.contexts import Contexts
from diffcode.errors import CANCELLED, Cancelled, ModelUnavailable
from diffcode.hub import Progress, Report, cache_home
from diffcode.kernels.cpu.engine import (
    MAPS,
    Engine,
    EngineAdapter,
    EngineCancelled,
    EngineLayer,
    EngineSession,
    EngineShape,
    EngineStep,
    EngineSuccessor,
    EngineWeights,
    LowRanks,
)
from diffcode.kernels.cpu.engine import Guess as EngineGuess
from diffcode.kernels.cpu.native import isa, library
from diffcode.kernels.pack import BF16, BLOCK, Form, PackedLinear, pack_linear, pick_outputs, product
from diffcode.loading import ModelShape, weights_identity
from diffcode.policies import Guess
from diffcode.rounding import rounded
from diffcode.rows import Favours, Noise, Rows, allowed_tokens, noise_at
from diffcode.tokens import Tokens

FORMAT = 4  # of the packed file
# How a model's maps are rounded, by its dtype.
FORMS = {"int8": Form(8, 128), "int5": Form(5, 32), "int4": Form(4, 32), "bf16": BF16}
MASKED = -1
ROOM = 64  # places behind a new context: most fills need no more, and whatever grows is copied
POPULATE_READ = 22  # MADV_POPULATE_READ of Linux 5.14
NO_FAVOURS = Favours()


def piece() -> int:
    """Tokens of a context that are read at once: what was read before a stop is kept, and that comes after a layer.

    A layer of 32 takes 2 ms, and 32 to 256 take the same time for 1024 tokens. With AMX so few wait for memory: 1.3 s
    for 1024 tokens, and 0.95 by 128, a layer of which takes 4 ms.
    """
    return 128 if isa() == "amx" else 32


def runs_natively(shape: ModelShape) -> bool:
    """True where the CPU engine was built, and runs models of this shape."""
    fits = shape.width % BLOCK == 0 and (shape.heads * shape.head_width) % 4 == 0 and shape.ffn % BLOCK == 0
    return fits and library() is not None


def packed_weights(
    backbone: Backbone, tokens: Tokens, file: Path, dtype: str, report: Report | None = None
) -> EngineWeights:
    """The backbone's maps rounded as `FORMS` says, from `file`, which is made on first use. Raises ModelUnavailable."""
    s = backbone.shape
    if not runs_natively(s):
        raise ModelUnavailable(f"the CPU engine runs models whose widths divide by {BLOCK}: take bfloat16 for this one")
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        if not file.exists():
            _write(backbone, tokens, file, FORMS[dtype], report)
    _cache(file)
    with safe_open(file, framework="pt") as opened:
        stored = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
    shape = EngineShape(s.layers, s.width, s.heads, s.kv_heads, s.head_width, s.ffn, s.vocabulary, s.norm_eps)
    layers = [
        EngineLayer(
            stored[f"layers.{i}.input_norm"],
            stored[f"layers.{i}.post_norm"],
            {name: _stored(stored, f"layers.{i}.{name}") for name in MAPS},
        )
        for i in range(s.layers)
    ]
    norm_D, embedding_VD = backbone.norm_D.float(), backbone.embedding_VD.to(torch.bfloat16)
    return EngineWeights(shape, layers, norm_D, embedding_VD, backbone.frequencies_K, _stored(stored, "head"))


def packed_adapter(adapter: SpanAdapter, base: EngineWeights) -> EngineAdapter:
    """A span adapter in 8 bits or bf16, with its outputs of the base's head. It reads the rows that the base reads."""
    low_rank = packed_low_ranks(adapter.layers, base)
    head = base.head if adapter.kept_N is None else pick_outputs(base.head, adapter.kept_N)
    kept_N = None if adapter.kept_N is None else adapter.kept_N.int()
    successor = None if adapter.successor is None else _successor(adapter.successor, head)
    return EngineAdapter(low_rank, adapter.mask_D.float(), head, kept_N, successor)


def packed_low_ranks(layers: Sequence[Mapping[str, LowRank]], base: EngineWeights) -> LowRanks:
    """Low-rank maps in 8 bits, or in bf16 beside bf16, for rows as the base reads them."""
    s = base.shape
    parts = {"qkv": (s.heads * s.head_width, *(s.kv_heads * s.head_width,) * 2), "gate_up": (s.ffn, s.ffn)}
    return [
        {
            name: (
                pack_linear(low.down_rD, None, replace(base.head.form_beside, group=mine.maps[name].group)),
                pack_linear(_stacked(low.up_Er, parts.get(name, (s.width,))), None, base.head.form_beside),
            )
            for name, low in layer.items()
        }
        for layer, mine in zip(layers, base.layers, strict=True)
    ]


def _stacked(up_Er: Tensor, parts: tuple[int, ...]) -> Tensor:
    """The blocks of a block-diagonal map one below the other, if it is one that the engine can take apart."""
    rank = up_Er.shape[1] // len(parts)
    if rank % 4 or up_Er.shape[1] % len(parts) or any(size % BLOCK for size in parts):
        return up_Er
    blocks = [rows[:, i * rank :][:, :rank] for i, rows in enumerate(up_Er.split(parts))]
    return torch.cat(blocks) if torch.equal(torch.block_diag(*blocks), up_Er) else up_Er


def _successor(low: LowRank, head: PackedLinear) -> EngineSuccessor:
    state_rD, token_rD = low.down_rD.chunk(2, dim=1)
    narrow, turn = product(head, low.up_Er)
    state, token = (pack_linear(x, None, head.form_beside) for x in (state_rD, token_rD))
    return EngineSuccessor(state, token, turn, narrow)


def packed_name(folder: Path, dtype: str) -> Path:
    """Where the packed weights of a model's folder lie; the name changes with the folder's weights and their forms."""
    key = (FORMAT, FORMS[dtype], str(folder.resolve()), weights_identity(folder))
    digest = hashlib.sha256(repr(key).encode()).hexdigest()[:12]
    return cache_home() / "packed" / f"{folder.name}-{dtype}-{digest}.safetensors"


def _write(backbone: Backbone, tokens: Tokens, file: Path, form: Form, report: Report | None) -> None:
    tensors: dict[str, Tensor] = {}
    done, total = 0, backbone.numbers * form.bits // 8
    for name, packed in rounded(backbone, tokens, form):
        tensors |= _named(name, packed)
        done += packed.weights.numel() * packed.weights.element_size()
        if report is not None:
            report(Progress(f"rounding the weights to {form.bits} bits", done, max(done, total)))
    for i, layer in enumerate(backbone.layers):
        tensors |= {f"layers.{i}.input_norm": layer.input_norm_D.float()}
        tensors |= {f"layers.{i}.post_norm": layer.post_norm_D.float()}
    handle, part = tempfile.mkstemp(prefix=f"{file.name}.", dir=file.parent)
    os.close(handle)
    try:
        save_file(tensors, part, metadata={"format": "pt", "diffcode": str(FORMAT)})
        _uncache(part)
        os.replace(part, file)
    finally:
        Path(part).unlink(missing_ok=True)


def _uncache(file: str) -> None:
    """Have a written file read again, by `_cache`: what was written lies in the system's cache in pages of 4 KB."""
    if hasattr(os, "posix_fadvise"):
        with open(file, "rb") as written:
            os.fsync(written.fileno())
            os.posix_fadvise(written.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _cache(file: Path) -> None:
    """Read a file, if the system has not, in pages of 2 MB where it can: some file systems of Linux from 6.x on.

    With pages of 4 KB a processor looks up addresses as long as it computes. Whoever maps the file later gets these.
    """
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as memory:
            for advice in (mmap.MADV_HUGEPAGE, POPULATE_READ):
                with suppress(OSError):  # an older system
                    memory.madvise(advice)


def _named(name: str, packed: PackedLinear) -> dict[str, Tensor]:
    parts = {"weights": packed.weights, "scales": packed.scales, "outputs": torch.tensor(packed.outputs)}
    if packed.bias is not None:
        parts["bias"] = packed.bias
    return {f"{name}.{part}": tensor for part, tensor in parts.items()}


def _stored(stored: Mapping[str, Tensor], name: str) -> PackedLinear:
    outputs = int(stored[f"{name}.outputs"])
    return PackedLinear(stored[f"{name}.weights"], stored[f"{name}.scales"], stored.get(f"{name}.bias"), outputs)


class NativeSession:
    """`denoise.Session` over the CPU engine. What `contexts` has read is not read again; the results are the same."""

    def __init__(
        self,
        engine: Engine,
        kept_N: Tensor | None,
        noise: Noise | None,
        temperature: float,
        favours: Favours = NO_FAVOURS,
        contexts: Contexts | None = None,
        flag: c_int32 | None = None,
        open_ended: bool = False,
    ):
        self._open_ended = open_ended
        self._engine, self._kept_N, self._noise, self._temperature = engine, kept_N, noise, temperature
        self._favours = favours
        self._contexts, self._flag = contexts, c_int32() if flag is None else flag
        self._session: EngineSession | None = None
        self._tokens: list[int] = []  # what the session has read for good
        self._chain: list[int] = []  # what the last step read
        self._known = 0  # tokens of the first step that the session had read before

    def close(self) -> None:
        """Leave the context to the next session."""
        if self._contexts is not None and self._session is not None:
            self._contexts.give(self._tokens, self._session, self._open_ended)
        self._session = None

    def keep(self, rows: int) -> None:
        self._tokens += self._chain[: rows - self._known]
        self._known = 0

    def _opened(self, context: Sequence[int]) -> EngineSession:
        if self._session is None:
            found = self._contexts.take(context, self._open_ended) if self._contexts is not None else None
            self._session, self._known = found or (self._engine.session(), 0)
            if found is None:  # what is taken over may have room already, and doubles when it must grow
                self._session.reserve(len(context) + ROOM)
            self._tokens = list(context[: self._known])
        return self._session

    def _read(self, session: EngineSession, fresh: Sequence[int]) -> Sequence[int]:
        """Read a long context piece by piece, the last piece left over: what was read stays if the rest is stopped."""
        size = piece()
        while len(fresh) > size:
            rows, length = Rows(size, 0, 0, ()), len(self._tokens)
            where = rows.positions(length), rows.sights()
            more: Any = {"undo": self._open_ended, "cancelled": self._flag}
            _run(session, EngineStep(length, fresh[:size], *where, 0, 0, 0, (), (), **more))
            self._tokens += fresh[:size]
            self._known += size
            fresh = fresh[size:]
        return fresh

    def step(
        self,
        fresh: Sequence[int],
        drafts: Sequence[int],
        window: Sequence[int | None],
        anchors: Sequence[int],
        first_place: int,
        allowed: Sequence[list[int] | None],
    ) -> tuple[tuple[Guess, ...], tuple[tuple[Guess, ...], ...]]:
        session = self._opened(fresh)
        fresh = self._read(session, fresh[self._known :])
        length = len(self._tokens)
        self._chain = [*fresh, *drafts]
        rows = Rows(len(fresh), len(drafts), len(window), tuple(anchors) if window else ())
        shown = [MASKED if place is None else place for place in window]
        vocabulary = self._engine.shape.vocabulary
        step = EngineStep(
            context=length,
            tokens=[*self._chain, *shown * len(rows.anchors)],
            positions=rows.positions(length),
            sights=rows.sights(),
            span_rows=rows.span_rows,
            base_first=rows.chain - rows.drafts - 1,
            base_rows=rows.drafts + 1,
            window=shown,
            anchor_base=rows.anchors,
            temperature=self._temperature,
            allowed_RV=allowed_tokens(allowed, vocabulary, torch.device("cpu")),
            base_noise_RV=noise_at(self._noise, range(first_place, first_place + rows.drafts + 1)),
            span_noise_RN=noise_at(self._noise, rows.span_places(first_place), self._kept_N),
            undo=self._open_ended,
            cancelled=self._flag,
            base_favour=self._favours.base,
            span_favour=self._favours.span,
        )
        base, spans = _run(session, step)
        found: list[tuple[Guess, ...]] = [()] * (rows.drafts + 1)
        for i, anchor in enumerate(rows.anchors):
            mine = spans[i * rows.window : (i + 1) * rows.window]
            found[anchor] = tuple(Guess(*guess, "span") for guess in mine)
        return tuple(Guess(*guess, "base") for guess in base), tuple(found)


def _run(session: EngineSession, step: EngineStep) -> tuple[list[EngineGuess], list[EngineGuess]]:
    """What the step guesses at base rows and span rows. Raises Cancelled."""
    try:
        base, spans, _ = session.step(step)
    except EngineCancelled:
        raise Cancelled(CANCELLED) from None
    return base, spans
