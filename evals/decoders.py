"""Whatever fills a problem's holes, behind one small protocol."""

import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from diffcode.config import DenoiseOptions
from diffcode.errors import BadOption
from diffcode.evals.problems import Problem

if TYPE_CHECKING:
    from diffcode.infill import Infiller

BASELINE = "leftmost"
LLAMA_CPP = "llama-cpp"
OPENAI = "openai:"


@dataclass(frozen=True, slots=True)
class Rules:
    """What is the same for every decoder of a run."""

    max_tokens: int = 256  # a hole
    stops: tuple[str, ...] = ()
    temperature: float = 0.0
    seed: int = 0

    def seed_of(self, problem: Problem, sample: int) -> int:
        """Every problem and sample has chance of its own, the same for all decoders."""
        return zlib.crc32(f"{self.seed}/{problem.task_id}/{sample}".encode())


@dataclass(frozen=True, slots=True)
class Filled:
    """A filled problem. None stands for what the engine does not tell."""

    completions: tuple[str, ...]  # one a hole
    finished: tuple[str, ...]  # why each ended: "eos", "stop", "line", "suffix" or "budget"
    tokens: int  # of all holes in their last round, the ones that end a fill included
    seconds: float
    forwards: int | None = None
    context_seconds: float | None = None  # reading the context, part of `seconds`
    span_proposed: int = 0
    span_accepted: int = 0
    ngram_proposed: int = 0
    ngram_accepted: int = 0


class Decoder(Protocol):
    """Fills problems under the run's rules."""

    name: str
    in_process: bool  # its work is this process's work

    def fill(self, problem: Problem, rules: Rules, sample: int) -> Filled: ...


class PolicyDecoder:
    """diffcode's own engine with one policy; `leftmost` is left-to-right decoding of the same base."""

    in_process = True

    def __init__(self, name: str, infiller: "Infiller", policy: str | None = None):
        self.name = name
        self.infiller = infiller
        self._policy = policy or name

    def fill(self, problem: Problem, rules: Rules, sample: int) -> Filled:
        options = DenoiseOptions.parse(self._policy, max_tokens=rules.max_tokens, temperature=rules.temperature)
        if options.temperature > 0:
            options = replace(options, seed=rules.seed_of(problem, sample))
        fill = self.infiller.fill_with(problem.text, problem.holes, options, stop=rules.stops, language="python")
        drafts = [span.drafts for span in fill.spans]
        return Filled(
            completions=tuple(span.text for span in fill.spans),
            finished=tuple(span.finished for span in fill.spans),
            tokens=fill.tokens,
            seconds=fill.seconds,
            forwards=fill.forwards,
            context_seconds=sum(span.context_seconds for span in fill.spans),
            span_proposed=sum(d.span_proposed for d in drafts),
            span_accepted=sum(d.span_accepted for d in drafts),
            ngram_proposed=sum(d.ngram_proposed for d in drafts),
            ngram_accepted=sum(d.ngram_accepted for d in drafts),
        )


def chooses(name: str) -> bool:
    """Whether it may write several fills of a hole: forwards and drafts are of all, tokens of the one it keeps."""
    return _ours(name) and DenoiseOptions.parse(name).judged


def _ours(name: str) -> bool:
    return name != LLAMA_CPP and not name.startswith(OPENAI)


def split_names(text: str) -> tuple[str, ...]:
    """The decoders of a comma-separated list, each known and named once. Raises BadOption."""
    names = tuple(name.strip() for name in text.split(","))
    for name in filter(_ours, names):
        DenoiseOptions.parse(name)
    if len(set(names)) < len(names):
        raise BadOption("a decoder is named twice: name each once")
    return names
