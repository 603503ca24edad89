"""Engines side by side on the same lines of code: who runs, what is timed, and the loop that takes turns."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any, cast

from diffcode.canvas import make_block
from diffcode.config import DenoiseOptions, WindowOptions
from diffcode.contexts import common
from diffcode.evals import outside
from diffcode.evals.cuts import Line
from diffcode.holes import Hole
from diffcode.hub import cache_home
from diffcode.infill import Infiller

if TYPE_CHECKING:
    from diffcode.backbone import Backbone
    from diffcode.engine import Model

SPAN_ROWS = 7  # behind one token: a forward of 8 rows
QUANTISATIONS = {"Q4_K_M": None, "Q4_0": "LLAMA_FTYPE_MOSTLY_Q4_0", "Q8_0": "LLAMA_FTYPE_MOSTLY_Q8_0"}
MEASURES = ("context", "token", "8 rows", "cold fill", "warm fill")


@dataclass(frozen=True, slots=True)
class Timing:
    """One thing timed once."""

    measure: str  # one of MEASURES
    racer: str
    prompt: int
    round: int
    seconds: float
    text: str = ""  # what a fill put into the hole
    forwards: int = 0


@dataclass(frozen=True, slots=True)
class Racer:
    """An engine with a policy; the policy matters to fills alone."""

    engine: str
    policy: str
    cold: Infiller
    warm: Infiller  # keeps contexts

    @property
    def name(self) -> str:
        return f"{self.engine}, {self.policy}"


def race(racers: Sequence[Racer], lines: Sequence[Line], rounds: int) -> Iterator[Timing]:
    """Time everything; whose turn is first changes with every prompt and round."""
    for racer in racers:  # whatever an engine does but once
        _fill(racer, racer.warm, lines[0])
    for round_ in range(rounds):
        for number, line in enumerate(lines):
            first = (number + round_) % len(racers)
            for racer in (*racers[first:], *racers[:first]):
                for measure, seconds, text, forwards in _time_all(racer, line, racer in _firsts(racers)):
                    yield Timing(measure, racer.name, number, round_, seconds, text, forwards)


def _firsts(racers: Sequence[Racer]) -> list[Racer]:
    """One of each engine: contexts and forwards do not depend on the policy."""
    return list({racer.engine: racer for racer in reversed(racers)}.values())


def _time_all(racer: Racer, line: Line, forwards: bool) -> Iterator[tuple[str, float, str, int]]:
    if forwards:
        yield from ((name, _clock(work), "", 1) for name, work in _forwards(racer, line))
    for measure, infiller in (("cold fill", racer.cold), ("warm fill", racer.warm)):
        if measure == "warm fill":
            _fill(racer, infiller, line)
        began = time.perf_counter()
        fill = _fill(racer, infiller, line)
        yield measure, time.perf_counter() - began, fill.text, fill.forwards


def _forwards(racer: Racer, line: Line) -> Iterator[tuple[str, Callable[[], object]]]:
    model, window = racer.cold.model, racer.cold.window
    context = make_block(line.text, [Hole(line.at, line.at)], [""], 0, model.tokens, window).context
    session = model.session()
    yield "context", lambda: session.step(context, (), (), (), 0, [None])
    session.keep(len(context))
    yield "token", lambda: session.step(context[-1:], (), (), (), 0, [None])
    if model.adapter is not None:
        session.keep(0)
        yield "8 rows", lambda: session.step(context[-1:], (), [None] * SPAN_ROWS, (0,), 0, [None])


def _clock(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _fill(racer: Racer, infiller: Infiller, line: Line) -> Any:
    options = DenoiseOptions.parse(racer.policy, max_tokens=64)
    fill = infiller.fill_with(line.text, [(line.at, line.at)], options, stop="\n")
    return fill.spans[0]


# ---- who runs


def own(engine: str, dtype: str, policies: Sequence[str], window: WindowOptions, **load: Any) -> list[Racer]:
    """diffcode in one precision; "compiled" in the name runs its torch forward through torch.compile."""
    cold = Infiller.from_pretrained(dtype=dtype, window=window, memory=0, **load)
    if "compile" in engine:
        compile_forward(cold.model.backbone)
    return [Racer(engine, policy, cold, Infiller(cold.model, window)) for policy in policies]


def compile_forward(backbone: "Backbone", backend: str = "inductor") -> None:
    """Run the forward through torch's compiler, which cannot write to a cache in inference mode."""
    import torch

    assert backbone.layers  # made here: the compiler would look into how
    plain = MethodType(type(backbone).forward.__wrapped__, backbone)  # type: ignore[attr-defined]
    backbone.forward = torch.no_grad()(torch.compile(plain, dynamic=True, backend=backend))  # type: ignore[method-assign]


def llama(quantisation: str, like: "Model", window: WindowOptions, file: Path, threads: int) -> Racer:
    """llama.cpp, left to right, with `file` in one quantisation; the vocabulary is that of `like`."""
    library = outside.import_llama_cpp()
    path = quantised(library, file, quantisation)
    room = {"n_ctx": window.budget + 128, "n_threads": threads, "n_threads_batch": threads}
    canvas = library.Llama(str(path), verbose=False, **room)
    cold = outside.LlamaModel(library, canvas, like.tokens, like.noise)
    warm = WarmLlama(library, canvas, like.tokens, like.noise)
    infillers = [Infiller(cast("Model", model), window, 0) for model in (cold, warm)]
    return Racer(f"llama.cpp {quantisation}", "leftmost", *infillers)


def quantised(library: Any, file: Path, quantisation: str) -> Path:
    """The file requantised by llama.cpp itself, made once."""
    kind = QUANTISATIONS[quantisation]
    target = cache_home() / "bench" / f"{file.stem}-{quantisation}.gguf"
    if kind is None or target.exists():
        return file if kind is None else target
    import ctypes

    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    settings = library.llama_model_quantize_default_params()
    settings.ftype, settings.allow_requantize = getattr(library, kind), True
    if library.llama_model_quantize(str(file).encode(), str(part).encode(), ctypes.byref(settings)) != 0:
        with suppress(OSError):
            part.unlink()
        raise RuntimeError(f"llama.cpp could not turn {file} into {quantisation}")
    part.replace(target)
    return target


class WarmLlamaSession(outside.LlamaSession):
    """Keeps of the model's one canvas what the context begins with: the first step reads what is new only."""

    def __init__(self, library: Any, llama: Any, *rest: Any):
        known = llama.input_ids[: llama.n_tokens].tolist()
        super().__init__(library, llama, *rest)
        self._known = known

    def step(self, fresh: Sequence[int], *rest: Any) -> Any:
        length = common(self._known, fresh[:-1])
        self._known = []
        if length:
            self._llama.n_tokens = length
        found = super().step(fresh[length:], *rest)
        self._sent += length
        return found


class WarmLlama(outside.LlamaModel):
    Session = WarmLlamaSession
