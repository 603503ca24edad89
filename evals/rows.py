"""One row a fill: what was measured, and the .jsonl file that keeps it."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from diffcode.errors import UnwritableFile
from diffcode.evals.checker import PASSED
from diffcode.evals.problems import Problem

if TYPE_CHECKING:
    from diffcode.infill import Fill


@dataclass(frozen=True)
class Row:
    """One problem filled with one policy. `passed` and `verdict` are None until the test has run."""

    task_id: str
    policy: str
    completion: str
    exact: bool
    tokens: int
    forwards: int
    steps: int
    seconds: float
    context_seconds: float
    span_proposed: int
    span_accepted: int
    ngram_proposed: int
    ngram_accepted: int
    finished: str
    passed: bool | None = None
    verdict: str | None = None

    def judged(self, verdict: str) -> "Row":
        return replace(self, passed=verdict == PASSED, verdict=verdict)


def row_of(problem: Problem, policy: str, fill: "Fill", newline_stop: bool) -> Row:
    """What a fill of the problem's one hole comes to."""
    span = fill.spans[0]
    # A fill that stops at the newline leaves it out, one that ends by itself may have it; the official ones have it.
    completion = span.text.removesuffix("\n") + "\n" if newline_stop else span.text
    return Row(
        task_id=problem.task_id,
        policy=policy,
        completion=completion,
        exact=completion == problem.solution,
        tokens=fill.tokens,
        forwards=fill.forwards,
        steps=span.steps,
        seconds=fill.seconds,
        context_seconds=span.context_seconds,
        span_proposed=span.drafts.span_proposed,
        span_accepted=span.drafts.span_accepted,
        ngram_proposed=span.drafts.ngram_proposed,
        ngram_accepted=span.drafts.ngram_accepted,
        finished=span.finished,
    )


def complete(rows: Sequence[Row], policies: Sequence[str]) -> tuple[Row, ...]:
    """The rows of those problems that every policy has filled: nothing else can be compared."""
    filled: dict[str, set[str]] = {}
    for row in rows:
        filled.setdefault(row.task_id, set()).add(row.policy)
    return tuple(row for row in rows if filled[row.task_id].issuperset(policies))


def append(row: Row, file: TextIO) -> None:
    """Write one row so that it outlives whatever ends this run."""
    file.write(_line(row))
    file.flush()


def save(rows: Iterable[Row], path: Path) -> None:
    """Replace the file at once: it never holds half the rows."""
    beside = path.with_name(path.name + ".part")
    try:
        beside.write_text("".join(map(_line, rows)), encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        raise UnwritableFile(f"{path} cannot be written ({error}); give another --out.") from error


def read(path: Path) -> tuple[Row, ...]:
    """The rows of a file that `append` or `save` wrote."""
    return tuple(Row(**json.loads(line)) for line in path.read_text(encoding="utf-8").split("\n") if line)


def _line(row: Row) -> str:
    return json.dumps(asdict(row)) + "\n"
