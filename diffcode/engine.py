"""A loaded model, and sessions in it: the torch machine behind the denoising loop.

Shapes as in `kernels.reference`; N is the number of kept vocabulary rows.
"""

import ctypes
import gc
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from ctypes import c_int32
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffcode import hub
from diffcode.adapter import ADAPTERS, LowRank, SpanAdapter, undoing
from diffcode.backbone import Backbone
from diffcode.config import ENGINE_DTYPES
from diffcode.contexts import Contexts
from diffcode.denoise import Session
from diffcode.errors import BadOption, ModelUnavailable
from diffcode.fused import FusedSession, stepper_for
from diffcode.kernels import reference as ops
from diffcode.kernels.cpu.engine import Engine, EngineWeights
from diffcode.kernels.cpu.native import library
from diffcode.kernels.stepper import Stepper
from diffcode.loading import ModelShape, folder_of, open_folder, unpacked_name
from diffcode.merge import is_current, merged_folder, merged_name
from diffcode.native import (
    NativeSession,
    packed_adapter,
    packed_low_ranks,
    packed_name,
    packed_weights,
    runs_natively,
)
from diffcode.policies import Guess, Origin
from diffcode.rows import Favours, Noise, Rows, allowed_tokens, noise_at
from diffcode.tokens import Tokens

DEFAULT_MODEL = "qwen2.5-coder-0.5b"
SPAN, INFILL = "", "-infill"  # the default model's adapters, by the ends of their folders' names
TORCH_DTYPES = dict.fromkeys((*ENGINE_DTYPES, "bfloat16"), torch.bfloat16) | {"float32": torch.float32}


@dataclass(frozen=True, slots=True)
class Model:
    """Base weights, vocabulary and span adapter, ready to run."""

    backbone: Backbone
    tokens: Tokens
    adapter: SpanAdapter | None
    span_head_ND: Tensor | None  # the adapter's kept rows of the head, for torch
    packed: EngineWeights | None = None  # for the CPU engine, without the adapter
    engine: Engine | None = None
    stepper: Stepper | None = None  # the fused kernels, where they run
    undone: "Undone | None" = None  # without the infilling adapter, for torch

    @classmethod
    def load(
        cls,
        name: str | None = None,
        adapter: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        report: hub.Report | None = None,
        infill: str | None = None,
    ) -> "Model":
        """`name`: None or the default's name, a GGUF file, or a Hugging Face folder. Raises ModelUnavailable.

        `adapter`, on span rows, and `infill`, merged into the weights: a folder, "none", or None for those shipped for
        the default model. `dtype`: one of config.DTYPES; None is int8 where the CPU engine runs, else bfloat16.
        """
        torch_device, torch_dtype = _device(device), _dtype(dtype)  # first: a wrong one must not cost a download
        _check_engine(dtype, torch_device)
        infill_folder = shipped(name, infill, INFILL)
        folder = _model_folder(name, infill_folder, report)
        shape, tensors = open_folder(folder)
        backbone = Backbone(shape, tensors, torch_dtype, torch_device)
        form = _engine_dtype(dtype, torch_device, shape)
        tokens = Tokens.from_folder(folder)
        packed = packed_weights(backbone, tokens, packed_name(folder, form), form, report) if form else None
        undo = None if infill_folder is None else undoing(infill_folder, shape.layers)
        if packed is not None and undo is not None:
            packed, undo = replace(packed, undo=packed_low_ranks(undo, packed)), None
        model = cls(backbone, tokens, None, None, packed, undone=Undone(undo) if undo else None)
        adapter_folder = shipped(name, adapter, SPAN)
        model = model.ready() if adapter_folder is None else model.with_adapter(adapter_folder)
        _give_back()
        return model

    def with_adapter(self, folder: Path) -> "Model":
        """The same weights with another span adapter; both models can be used. Raises ModelUnavailable."""
        backbone = self.backbone
        adapter = SpanAdapter.load(folder, backbone.shape.layers, backbone.dtype, backbone.device)
        _check_fits(adapter, backbone, folder)
        head_ND = backbone.head_VD if adapter.kept_N is None or self.packed else backbone.head_VD[adapter.kept_N]
        undone = self.undone and Undone(self.undone.maps)
        return replace(self, adapter=adapter, span_head_ND=head_ND, undone=undone).ready()

    def ready(self) -> "Model":
        """With an engine for these weights, if it is to run on one, or with the fused kernels."""
        if self.packed is None:
            return replace(self, stepper=stepper_for(self.backbone, self.adapter, self.span_head_ND))
        packed = None if self.adapter is None else packed_adapter(self.adapter, self.packed)
        adapter = self.adapter and self.adapter.outline()
        return replace(self, adapter=adapter, engine=Engine(replace(self.packed, adapter=packed)))

    def session(
        self,
        noise: Noise | None = None,
        temperature: float = 0.0,
        contexts: Contexts | None = None,
        flag: c_int32 | None = None,
        end_bias: float = 0.0,
        open_ended: bool = False,
    ) -> Session:
        """A new, empty canvas. The CPU engine takes what it has read from `contexts`, and looks at `flag` between two
        layers. `end_bias`: nats by which the end's logit counts as larger where tokens are chosen. `open_ended`:
        nothing follows the hole, and so no end is to be known: the weights are those without the infilling adapter,
        which costs 8 points of HumanEval and gains no held-out line there (0.293 and 0.300 of 150).
        """
        if open_ended and self.undone is not None:
            return self.undone.of(self).session(noise, temperature, contexts, flag, end_bias)
        kept_N, end = self.adapter.kept_N if self.adapter else None, self.tokens.fim.end
        favours = Favours((end, end_bias), _favoured(kept_N, end, end_bias))
        if self.engine is not None:
            return NativeSession(self.engine, kept_N, noise, temperature, favours, contexts, flag, open_ended)
        if self.stepper is not None and noise is None:
            return FusedSession(self.stepper, favours)
        return TorchSession(self, noise, temperature, favours)

    def noise(self, seed: int) -> Noise:
        """Gumbel noise that depends on seed and place alone: every policy draws the same token at the same place."""

        def at(place: int) -> Tensor:
            generator = torch.Generator().manual_seed((seed * 1_000_003 + place) % 2**63)
            uniform_V = torch.rand(self.backbone.shape.vocabulary, generator=generator)
            return -torch.log(-torch.log(uniform_V.clamp_min(1e-20))).to(self.backbone.device)

        return at


class Undone:
    """A model's copy without its infilling adapter, made when it is first asked for."""

    def __init__(self, maps: tuple[dict[str, LowRank], ...]):
        self.maps = maps
        self._lock = threading.Lock()
        self._parts: tuple[object, ...] = ()  # of the model that the copy was made from: no circle, it is freed at once
        self._copy: Model | None = None

    def of(self, model: Model) -> Model:
        with self._lock:
            parts = (model.backbone, model.adapter, model.stepper)
            if self._copy is None or any(a is not b for a, b in zip(parts, self._parts, strict=True)):
                self._copy = None  # first, for two take twice the memory
                copy = replace(model, backbone=model.backbone.merged(self.maps), undone=None)
                self._parts, self._copy = parts, copy.ready()
            return self._copy


class TorchSession:
    """`denoise.Session` over the torch backbone."""

    def __init__(self, model: Model, noise: Noise | None, temperature: float, favours: Favours):
        self._model, self._noise, self._temperature, self._favours = model, noise, temperature, favours
        self._cache = model.backbone.new_cache(512)

    def keep(self, rows: int) -> None:
        self._cache.length += rows

    def close(self) -> None:
        pass  # another cutting of the context gives other bits in bf16: nothing is kept

    def step(
        self,
        fresh: Sequence[int],
        drafts: Sequence[int],
        window: Sequence[int | None],
        anchors: Sequence[int],
        first_place: int,
        allowed: Sequence[list[int] | None],
    ) -> tuple[tuple[Guess, ...], tuple[tuple[Guess, ...], ...]]:
        rows = Rows(len(fresh), len(drafts), len(window), tuple(anchors) if window else ())
        hidden_RD = self._forward([*fresh, *drafts], window, rows)
        base_RD = hidden_RD[rows.chain - rows.drafts - 1 : rows.chain]
        places = range(first_place, first_place + rows.drafts + 1)
        base = self._base_head(base_RD, places, allowed)
        spans: list[tuple[Guess, ...]] = [()] * (rows.drafts + 1)
        if rows.span_rows:
            hidden_AWD = hidden_RD[rows.chain :].view(len(rows.anchors), rows.window, -1)
            firsts = [base[anchor] for anchor in rows.anchors]
            found = self._span_guesses(hidden_AWD, firsts, window, rows, rows.span_places(first_place))
            for anchor, guesses in zip(rows.anchors, found, strict=True):
                spans[anchor] = guesses
        return base, tuple(spans)

    def _span_guesses(
        self, x_AWD: Tensor, firsts: list[Guess], window: Sequence[int | None], rows: Rows, places: list[int]
    ) -> list[tuple[Guess, ...]]:
        """Guesses of each anchor's span rows; `firsts` are the base's for window place 0."""
        adapter = self._model.adapter
        assert adapter is not None
        if adapter.successor is None:
            guesses = self._span_head(x_AWD.flatten(0, 1), places)
            return [guesses[i : i + rows.window] for i in range(0, len(guesses), rows.window)]
        found: list[list[Guess]] = [[] for _ in rows.anchors]
        before = [guess.token for guess in firsts]
        for w in range(rows.window):
            known = window[w]
            previous_AD = self._model.backbone.embed(before if known is None else [known] * len(before))
            low, eps = adapter.successor, self._model.backbone.shape.norm_eps
            x_AD = ops.successor(x_AWD[:, w], previous_AD, low.down_rD, low.up_Er, eps)
            guesses = self._span_head(x_AD, places[w :: rows.window])
            before = [guess.token for guess in guesses]
            for mine, guess in zip(found, guesses, strict=True):
                mine.append(guess)
        return [tuple(guesses) for guesses in found]

    def _forward(self, chain: list[int], window: Sequence[int | None], rows: Rows) -> Tensor:
        backbone, adapter = self._model.backbone, self._model.adapter
        x_RD = backbone.embed(chain)
        if rows.span_rows:
            if adapter is None:
                raise BadOption("span rows need a span adapter: load one, or use the policy verified or leftmost")
            x_WD = backbone.embed([place or 0 for place in window])
            masked_W1 = torch.tensor([[place is None] for place in window], device=backbone.device)
            x_WD = torch.where(masked_W1, adapter.mask_D, x_WD)
            x_RD = torch.cat([x_RD, x_WD.repeat(len(rows.anchors), 1)])
        positions_R = torch.tensor(rows.positions(self._cache.length), device=backbone.device)
        seen_RR = rows.seen().to(backbone.device)
        return backbone.forward(x_RD, positions_R, self._cache, seen_RR, rows.span_rows, adapter)

    @torch.inference_mode()
    def _base_head(self, x_RD: Tensor, places: range, allowed: Sequence[list[int] | None]) -> tuple[Guess, ...]:
        head_VD = self._model.backbone.head_VD
        allowed_RV = allowed_tokens(allowed, head_VD.shape[0], x_RD.device)
        barred_RV = None if allowed_RV is None else ~allowed_RV
        gumbel_RV = noise_at(self._noise, places)
        more: dict[str, Any] = {"temperature": self._temperature, "favour": self._favours.base}
        found = ops.masked_head(x_RD, head_VD, barred_RV=barred_RV, gumbel_RV=gumbel_RV, **more)
        return _guesses(found, None, "base")

    @torch.inference_mode()
    def _span_head(self, x_RD: Tensor, places: list[int]) -> tuple[Guess, ...]:
        """The kept rows of the head only, a fifth of it. Any other token still comes from the base rows, which always
        decide the left-most open place over the whole vocabulary."""
        adapter, head_ND = self._model.adapter, self._model.span_head_ND
        assert adapter is not None
        assert head_ND is not None
        gumbel_RN = noise_at(self._noise, places, adapter.kept_N)
        more: dict[str, Any] = {"temperature": self._temperature, "favour": self._favours.span}
        found = ops.masked_head(x_RD, head_ND, gumbel_RV=gumbel_RN, **more)
        return _guesses(found, adapter.kept_N, "span")


def _favoured(kept_N: Tensor | None, token: int, nats: float) -> tuple[int, float] | None:
    """The token by its number in the span rows' head."""
    if kept_N is None:
        return token, nats
    at = int(torch.searchsorted(kept_N, token))
    return (at, nats) if at < len(kept_N) and int(kept_N[at]) == token else None


def _guesses(found: ops.HeadRows, kept_N: Tensor | None, origin: Origin) -> tuple[Guess, ...]:
    token_R = found.token_R if kept_N is None else kept_N[found.token_R]
    columns = (token_R, found.probability_R, found.margin_R, found.entropy_R)
    return tuple(Guess(t, p, m, e, origin) for t, p, m, e in zip(*(c.tolist() for c in columns), strict=True))


def _model_folder(name: str | None, infill: Path | None, report: hub.Report | None) -> Path:
    """The folder to open: unpacked, merged, both made on first use."""
    path = Path(name).expanduser() if name not in (None, DEFAULT_MODEL) else None
    if path is not None and path.is_dir():
        return merged_folder(path, infill) if infill else path
    if path is not None and not (path.suffix == ".gguf" and path.is_file()):
        raise ModelUnavailable(
            f"there is no model {name!r}: give {DEFAULT_MODEL}, a .gguf file, or a folder with config.json and "
            ".safetensors"
        )
    gguf = path or hub.pull(report=report)
    if infill is None:
        return folder_of(gguf)
    plain = unpacked_name(gguf)
    if not plain.exists() and is_current(target := merged_name(plain, infill), plain):
        return target  # the unpacked folder was deleted to save space
    return merged_folder(folder_of(gguf), infill)


def _check_fits(adapter: SpanAdapter, backbone: Backbone, folder: Path) -> None:
    s, low = backbone.shape, adapter.layers[0]
    rows = {"qkv": (s.heads + 2 * s.kv_heads) * s.head_width, "out": s.width, "gate_up": 2 * s.ffn, "down": s.width}
    fits = len(adapter.mask_D) == s.width and all(len(low[n].up_Er) == size for n, size in rows.items())
    if adapter.kept_N is not None:
        fits = fits and int(adapter.kept_N[-1]) < s.vocabulary
    if not fits:
        raise ModelUnavailable(f"{folder} is an adapter for another base model: name one that was trained for this one")


def shipped(name: str | None, given: str | None, kind: str) -> Path | None:
    """The adapter's folder: what was asked for, or the default model's own."""
    if given == "none":
        return None
    if given is not None:
        return Path(given).expanduser()
    own = ADAPTERS / f"{DEFAULT_MODEL}{kind}"
    return own if (name is None or name == DEFAULT_MODEL) and own.is_dir() else None


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=device)
        if device.type == "meta":
            raise RuntimeError("it holds no numbers")
    except (RuntimeError, AssertionError) as error:
        raise ModelUnavailable(
            f"device {name!r} cannot be used here ({str(error).splitlines()[0]}): try cpu"
        ) from error
    return device


def _dtype(name: str | None) -> torch.dtype:
    if name is not None and name not in TORCH_DTYPES:
        raise BadOption(f"there is no dtype {name!r}: choose {' or '.join(TORCH_DTYPES)}")
    return TORCH_DTYPES[name or "bfloat16"]


def _give_back() -> None:
    """Return what loading needed and nobody needs now to the system: 80 MB, mostly of the tokenizer's tables."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # of glibc; elsewhere it is missing


def _engine_dtype(dtype: str | None, device: torch.device, shape: ModelShape) -> str | None:
    """Which of the CPU engine's forms to run, None for torch."""
    if dtype is None and device.type == "cpu" and runs_natively(shape):
        return ENGINE_DTYPES[0]
    return dtype if dtype in ENGINE_DTYPES else None


def _check_engine(dtype: str | None, device: torch.device) -> None:
    if dtype in ENGINE_DTYPES and device.type != "cpu":
        raise BadOption(f"{dtype} runs on a CPU, not on {device}: take bfloat16 there")
    if library() is None and device.type == "cpu" and dtype in (None, *ENGINE_DTYPES):
        message = "the CPU engine was not built here: install diffcode again with a C++ compiler at hand"
        if dtype is not None:
            raise ModelUnavailable(message)
        warnings.warn(f"{message}; until then torch does its work, several times slower", stacklevel=3)
