"""The CPU engine from Python: packed weights in, guesses out. A whole step is one call (engine.cpp).

Nothing here knows of diffcode's models: weights come as tensors, rows as numbers.
"""

import ctypes as c
import os
import weakref
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffcode.kernels.cpu import native
from diffcode.kernels.pack import PackedLinear

MAPS = native.MAPS
LowRanks = Sequence[Mapping[str, tuple[PackedLinear, PackedLinear]]]  # a layer each: down, up


@dataclass(frozen=True, slots=True)
class EngineShape:
    """The numbers of a Qwen2- or Llama-style decoder."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    ffn: int
    vocabulary: int
    norm_eps: float


@dataclass(frozen=True, slots=True)
class EngineLayer:
    """One layer's weights, packed; norms fp32 [D]."""

    input_norm_D: Tensor
    post_norm_D: Tensor
    maps: Mapping[str, PackedLinear]  # by the names in MAPS


@dataclass(frozen=True, slots=True)
class EngineSuccessor:
    """`reference.successor`, and the head behind it: `head(x + up s) = head x + (head up) s`, so that the head is read
    once for all span rows and not once a window place."""

    state: PackedLinear  # `down` of a row's state
    token: PackedLinear  # ... and of the token at its place
    up: PackedLinear
    head: PackedLinear


@dataclass(frozen=True, slots=True)
class EngineAdapter:
    """A span adapter, packed."""

    low_rank: LowRanks
    mask_D: Tensor  # fp32
    head: PackedLinear  # the kept rows of the vocabulary's
    kept_N: Tensor | None  # int32
    successor: EngineSuccessor | None


@dataclass(frozen=True, slots=True)
class EngineWeights:
    """A whole model. `embedding_VD` is bf16, all else fp32 or packed."""

    shape: EngineShape
    layers: Sequence[EngineLayer]
    norm_D: Tensor
    embedding_VD: Tensor
    frequencies_K: Tensor
    head: PackedLinear
    adapter: EngineAdapter | None = None
    undo: LowRanks | None = None  # what the rows of a step with `undo` add to every map


@dataclass(frozen=True, slots=True)
class EngineStep:
    """The rows of one forward; see `diffcode_step` in engine.h."""

    context: int
    tokens: Sequence[int]  # -1: masked
    positions: Sequence[int]
    sights: Sequence[tuple[int, int, int]]  # what each row sees of the new ones, `Sight` in ops.h
    span_rows: int
    base_first: int
    base_rows: int
    window: Sequence[int]  # shown tokens, -1: masked
    anchor_base: Sequence[int]
    temperature: float = 0.0
    allowed_RV: Tensor | None = None  # bool
    base_noise_RV: Tensor | None = None
    span_noise_RN: Tensor | None = None
    base_favour: tuple[int, float] | None = None  # an output of the head, and nats added where a token is chosen
    span_favour: tuple[int, float] | None = None
    undo: bool = False
    cancelled: c.c_int32 = field(default_factory=c.c_int32)


class EngineCancelled(Exception):
    """`EngineStep.cancelled` was set while the step ran."""


Guess = tuple[int, float, float, float]  # token, probability, margin, entropy


class Engine:
    """Weights in a form the machine code can read, and its threads."""

    def __init__(self, weights: EngineWeights, threads: int | None = None):
        library = native.library()
        if library is None:
            raise RuntimeError("the CPU engine was not built for this machine")
        self._library = library
        self.shape = weights.shape
        self._held: list[object] = [weights]  # what the machine code points into
        self.threads = threads or default_threads()
        handle = library.diffcode_model_new(c.byref(self._weights(weights)), self.threads)
        if not handle:
            raise MemoryError("the CPU engine has no memory for the model")
        self.handle = handle
        self._close = weakref.finalize(self, library.diffcode_model_free, handle)

    def session(self) -> "EngineSession":
        """An empty context."""
        return EngineSession(self, self._library.diffcode_session_new(self.handle))

    def _address(self, tensor: Tensor | None) -> int | None:
        if tensor is None:
            return None
        whole = tensor.contiguous()
        self._held.append(whole)
        return whole.data_ptr()

    def _linear(self, packed: PackedLinear | None) -> native.Linear:
        if packed is None:
            return native.Linear()
        self._held.append(packed)
        return linear_of(packed)

    def _layer(self, w: EngineWeights, number: int) -> native.Layer:
        layer = w.layers[number]
        beside = [low_ranks[number] if low_ranks else {} for low_ranks in (w.adapter and w.adapter.low_rank, w.undo)]
        maps = []
        for name in MAPS:
            halves = [half for low_ranks in beside for half in low_ranks.get(name, (None, None))]
            maps.append(native.Map(*(self._linear(packed) for packed in (layer.maps[name], *halves))))
        return native.Layer(self._address(layer.input_norm_D), self._address(layer.post_norm_D), *maps)

    def _weights(self, w: EngineWeights) -> native.Weights:
        s, adapter = w.shape, w.adapter
        successor = adapter.successor if adapter else None
        kept = adapter.head.outputs if adapter else 0
        layers = (native.Layer * s.layers)(*(self._layer(w, number) for number in range(s.layers)))
        self._held.append(layers)
        sizes = (s.layers, s.width, s.heads, s.kv_heads, s.head_width, s.ffn, s.vocabulary, kept)
        return native.Weights(
            native.Shape(*sizes, successor.up.inputs if successor else 0, s.norm_eps),
            layers,
            self._address(w.norm_D),
            self._address(w.embedding_VD),
            self._address(adapter.mask_D) if adapter else None,
            self._address(w.frequencies_K),
            self._linear(w.head),
            self._linear(adapter.head if adapter else None),
            self._address(adapter.kept_N) if adapter else None,
            *(self._linear(getattr(successor, part, None)) for part in ("state", "token", "up", "head")),
        )


class EngineSession:
    """Keys and values of one context."""

    def __init__(self, engine: Engine, handle: int | None):
        self._engine, self._library, self._handle = engine, engine._library, handle
        if not self._handle:
            raise MemoryError("the CPU engine has no memory for a session")
        # The session must go before its engine: the finalizer holds on to it.
        self._close = weakref.finalize(self, _free, engine, self._handle)

    @property
    def bytes(self) -> int:
        """What the context takes."""
        return int(self._library.diffcode_session_bytes(self._handle))

    def reserve(self, places: int) -> None:
        """Make room for so many places at once. Raises MemoryError."""
        if self._library.diffcode_session_reserve(self._handle, places) != 0:
            raise MemoryError("the CPU engine has no memory for this context")

    def fork(self, length: int) -> "EngineSession":
        """Another session that has read what this one read first, `length` tokens of it. Copies 24 KB a token of the
        default model, in a hundredth of the time that reading them takes."""
        return EngineSession(self._engine, self._library.diffcode_session_fork(self._handle, length))

    def step(self, step: EngineStep, hidden: bool = False) -> tuple[list[Guess], list[Guess], Tensor | None]:
        """Run one forward: guesses of the base rows, of the span rows, and final states [R, D] if asked for.

        Raises EngineCancelled, MemoryError, ValueError for a token that the model does not have.
        """
        if step.tokens and max(step.tokens) >= self._engine.shape.vocabulary:  # it would be read from behind the rest
            raise ValueError(f"token {max(step.tokens)} is none of the model's {self._engine.shape.vocabulary}")
        # No torch where it can be helped: one op on two threads leaves a third one spinning for 5 ms.
        sights = [number for sight in step.sights for number in sight]
        lists = [array("i", x) for x in (step.tokens, step.positions, sights, step.anchor_base, step.window)]
        tokens, positions, sights_at, anchors, window = (x.buffer_info()[0] for x in lists)
        noises = [None if n is None else n.float().contiguous() for n in (step.base_noise_RV, step.span_noise_RN)]
        allowed = None if step.allowed_RV is None else step.allowed_RV.to(torch.uint8).contiguous()
        states = torch.empty(len(step.tokens), self._engine.shape.width) if hidden else None
        base, spans = (native.Guess * max(1, step.base_rows))(), (native.Guess * max(1, step.span_rows))()
        asked = native.Step(
            step.context,
            len(step.tokens),
            step.span_rows,
            step.undo,
            tokens,
            positions,
            sights_at,
            step.base_first,
            step.base_rows,
            len(step.anchor_base),
            len(step.window),
            anchors,
            window,
            step.temperature,
            *(None if n is None else n.data_ptr() for n in (allowed, *noises)),
            *(step.base_favour or (-1, 0.0)),
            *(step.span_favour or (-1, 0.0)),
            c.addressof(step.cancelled),
        )
        target = None if states is None else states.data_ptr()
        code = self._library.diffcode_step_run(self._handle, c.byref(asked), base, spans, target)
        if code == 1:
            raise EngineCancelled
        if code != 0:
            raise MemoryError("the CPU engine has no memory for this context")
        return _read(base, step.base_rows), _read(spans, step.span_rows), states


def linear_of(packed: PackedLinear) -> native.Linear:
    """The struct of a packed map, valid while `packed` lives."""
    weights, scales, bias = (
        t.data_ptr() if t is not None else None for t in (packed.weights, packed.scales, packed.bias)
    )
    return native.Linear(weights, scales, bias, packed.padded, packed.inputs, packed.group, packed.outputs, packed.bits)


def linear(x_RD: Tensor, packed: PackedLinear) -> Tensor:
    """One packed map over fp32 rows, [R, E]: rows are rounded as in a step."""
    x_RD, y_RE = x_RD.float().contiguous(), torch.zeros(len(x_RD), packed.padded)
    library = native.library()
    assert library is not None
    struct = linear_of(packed)
    library.diffcode_linear_run(c.byref(struct), x_RD.data_ptr(), len(x_RD), y_RE.data_ptr())
    return y_RE[:, : packed.outputs]


def rates(packed: PackedLinear, threads: int | None = None) -> tuple[float, float]:
    """Bytes a second out of memory, and multiplications and additions a second, of bytes or bf16, of this machine.

    `packed`: the largest map that a step will read; under 64 MB the caches answer.
    """
    library = native.library()
    assert library is not None
    found = c.c_double(), c.c_double()
    weights = packed.weights
    size = weights.numel() * weights.element_size()
    where = (weights.data_ptr(), size, packed.bits)
    library.diffcode_rates(threads or default_threads(), *where, *map(c.byref, found))
    return found[0].value, found[1].value


def default_threads() -> int:
    """DIFFCODE_THREADS, or as many as there are cores."""
    wanted = os.environ.get("DIFFCODE_THREADS", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) > 0 else physical_cores()


def physical_cores() -> int:
    """Cores that this process may use, hyperthreads counted once."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = set()
    for cpu in allowed:
        try:
            with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", encoding="ascii") as file:
                cores.add(file.read().strip())
        except OSError:
            return len(allowed)
    return max(1, len(cores))


def _read(guesses: "c.Array[native.Guess]", count: int) -> list[Guess]:
    return [(g.token, g.probability, g.margin, g.entropy) for g in guesses[:count]]


def _free(engine: Engine, handle: int) -> None:
    engine._library.diffcode_session_free(handle)
