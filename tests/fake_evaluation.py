"""A made-up engine, made-up problems and a trusting sandbox for the tests of `diffcode eval`."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from diffcode.config import DenoiseOptions
from diffcode.denoise import Drafts
from diffcode.evals import command, sandbox
from diffcode.evals.problems import Problem
from diffcode.evals.results import Row, Run, Settings
from diffcode.infill import Fill, SpanFill

ISOLATION = SimpleNamespace(name="none")
PROBLEMS = [
    Problem(
        f"Made/up/{n}",
        ("def f(n):\n", f"    return m + {n}\n"),
        ("    m = n\n",),
        f"def check(f):\n    assert f(1) == {n + 1}\n",
        "f",
    )
    for n in range(3)
]
SITTING = {
    "processor": "Abacus",
    "cores": "2",
    "device": "default",
    "dtype": "default",
    "isolation": "none",
    "commit": "abc123",
    "began": "2026-11-23T10:00:00+00:00",
}


@dataclass
class FakeInfiller:
    """Right with `verified`, wrong with every other policy; `before` is called with the number of fills so far."""

    calls: list[dict[str, Any]] = field(default_factory=list)
    before: Callable[[int], None] = lambda count: None
    right: Callable[[DenoiseOptions], bool] = lambda options: options.policy == "verified"

    def fill_with(
        self,
        text: str,
        holes: Sequence[tuple[int, int]],
        options: DenoiseOptions,
        *,
        stop: Sequence[str] = (),
        language: str | None = None,
    ) -> Fill:
        assert language == "python"
        self.before(len(self.calls))
        self.calls.append({"text": text, "holes": list(holes), "options": options, "stop": stop})
        right = self.right(options)
        words = "    m = n\n" if right else "    m = n + 1\n"
        if "\n" in stop:
            words = words.rstrip("\n")
        forwards = 3 if right else 6
        spans = tuple(
            SpanFill(s, e, words, (1,) * 6, (0.5,) * 6, forwards, forwards, 0.2, 0.1, "eos", Drafts(3, 2, 1, 1))
            for s, e in holes
        )
        return Fill(text, spans, forwards * len(spans), 6 * len(spans), 0.25)


def trusting(programs: Sequence[sandbox.Program], *, isolation: object, **more: object) -> Iterator[str]:
    """Runs the made-up programs right here."""
    for program in programs:
        space: dict[str, Any] = {}
        try:
            exec(f"{program.code}\n{program.test}\n", space)
            space["check"](space[program.entry_point])
        except Exception as error:
            yield type(error).__name__
        else:
            yield sandbox.PASSED


def install(monkeypatch: pytest.MonkeyPatch, infiller: FakeInfiller) -> None:
    """Put the made-up engine and the trusting sandbox in the place of the real ones."""
    monkeypatch.setattr(command, "load_infiller", lambda settings: infiller)
    monkeypatch.setattr(sandbox, "best_isolation", lambda unsafe=False: ISOLATION)
    monkeypatch.setattr(sandbox, "check_all", trusting)


def write_problems(path: Path, problems: Sequence[Problem] = PROBLEMS) -> Path:
    """An official file of these problems."""
    lines = []
    for problem in problems:
        prompt, suffix = problem.fixed
        row = {"task_id": problem.task_id, "prompt": prompt, "suffix": suffix}
        row |= {"canonical_solution": problem.solutions[0], "test": problem.test, "entry_point": problem.entry_point}
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def row(task: str, decoder: str, passed: bool | None, **changes: object) -> Row:
    """A row of made-up numbers."""
    plain: dict[str, Any] = {
        "task_id": task,
        "decoder": decoder,
        "sample": 0,
        "completions": ("x",),
        "finished": ("eos",),
        "exact": False,
        "syntax": True,
        "tokens": 10,
        "forwards": 5,
        "seconds": 0.3,
        "context_seconds": 0.1,
        "span_proposed": 6,
        "span_accepted": 4,
        "ngram_proposed": 2,
        "ngram_accepted": 1,
        "others": 0.0,
    }
    made = Row(**{**plain, **changes})
    return made if passed is None else made.judged(sandbox.PASSED if passed else "AssertionError")


def run_of(problems: Sequence[str], **changes: Any) -> Run:
    """The run that such rows are rows of."""
    settings = Settings(**{"task": "infill-single", "limit": len(problems), **changes})
    return Run(settings, "f1nge4", 9, tuple(problems), (SITTING,))
