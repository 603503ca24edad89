"""A quick pass@1 while training: small functions of our own with a hole, filled greedily and run.

It says whether an adapter writes code that works, in half a minute. The problems were written for this; none is of a
benchmark, so a recipe may be chosen by it, and it is far too small to be reported as a result.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from diffcode.adapter import low_rank_maps
from diffcode.config import DenoiseOptions
from diffcode.engine import Model
from diffcode.evals import sandbox
from diffcode.infill import Infiller
from diffcode.training.probe_problems import PROBLEMS


def prober(model: Model, stage: str) -> Callable[[Path], dict[str, float]]:
    """A probe of the adapters that a run of `stage` on `model` writes. Raises SandboxUnavailable."""
    isolation = sandbox.best_isolation()

    def found(folder: Path) -> dict[str, float]:
        if stage == "span":
            return probe(Infiller(model.with_adapter(folder)), isolation)
        return probe(
            Infiller(replace(model, backbone=model.backbone.merged(low_rank_maps(folder, len(model.backbone.layers))))),
            isolation,
        )

    return found


def probe(infiller: Infiller, isolation: sandbox.Isolation) -> dict[str, float]:
    """Fill every problem greedily and run it: the share that passes, and tokens a forward of the span rows alone."""
    settings = DenoiseOptions(max_tokens=64, ngrams=0)
    known = list(problems())
    fills = [infiller.fill_with(text, [(at, at)], settings) for text, at, _, _ in known]
    programs = [
        sandbox.Program(fill.text, f"def check(candidate):\n    {test}\n", name)
        for fill, (_, _, test, name) in zip(fills, known, strict=True)
    ]
    verdicts = list(sandbox.check_all(programs, isolation=isolation))
    return {
        "probe_passed": sum(verdict == sandbox.PASSED for verdict in verdicts) / len(verdicts),
        "probe_tokens_a_forward": sum(fill.tokens for fill in fills) / sum(fill.forwards for fill in fills),
    }


def problems() -> Iterator[tuple[str, int, str, str]]:
    """Text without the hole's inside, the hole's offset, the assertion, the function's name."""
    for block in PROBLEMS.strip().split("\n\n\n"):
        marked, _, test = block.strip().rpartition("\n# ")
        before, _, rest = marked.partition("⟦")
        name = before.removeprefix("def ").partition("(")[0]
        yield f"{before}{rest.partition('⟧')[2]}\n", len(before), test, name
