"""How sure is sure enough: the language server's two thresholds, on lines of Python's own library.

    python -m diffcode.evals.calibration --lines 100

`leastConfidence`: of the suggestions for a missing line that are at least this sure, how many are there, and how many
are exactly the line? `doubtBelow`: of lines as they stand, how many get a mark, and of lines in which one name was
replaced by another one of the same file, how often is that name marked?
"""

import io
import keyword
import math
import random
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass

import click
from rich.console import Console
from rich.progress import track
from rich.table import Table

from diffcode.config import DenoiseOptions
from diffcode.evals.cuts import Line, library_lines
from diffcode.infill import Infiller

LEAST = (0.0, 0.2, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
BELOW = (0.001, 0.003, 0.01, 0.02, 0.05, 0.1)


@dataclass(frozen=True, slots=True)
class Suggested:
    """A line that was filled in: the geometric mean of its tokens' probabilities, and whether it is the line."""

    confidence: float
    exact: bool


@dataclass(frozen=True, slots=True)
class Doubted:
    """A line that was read: its least likely token, and the least likely one of the name planted in it."""

    least: float
    planted: float


def suggested(infiller: Infiller, line: Line) -> Suggested:
    at = line.at + len(line.indent)
    (span,) = infiller.fill_with(line.holding(line.indent), [(at, at)], DenoiseOptions(), stop="\n").spans
    logs = [math.log(max(p, 1e-9)) for p in span.confidence]
    return Suggested(math.exp(sum(logs) / max(1, len(logs))), span.text == line.solution.lstrip())


def names(code: str) -> list[tuple[int, int]]:
    """Where names stand in one line of code; none where it is no code by itself."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(code.strip()).readline))
    except (tokenize.TokenError, IndentationError):
        return []
    if any(t.type == tokenize.ERRORTOKEN for t in tokens):
        return []
    offset = len(code) - len(code.lstrip())
    found = (t for t in tokens if t.type == tokenize.NAME and not keyword.iskeyword(t.string))
    return [(offset + t.start[1], offset + t.end[1]) for t in found]


def with_wrong_name(line: Line, rng: random.Random) -> tuple[str, int, int] | None:
    """(the line with one name replaced by another that stands elsewhere in the file, where it begins and ends)."""
    places = names(line.solution)
    others = sorted({row[a:b] for row in line.text.split("\n") for a, b in names(row)})
    if not places or len(others) < 2:
        return None
    start, end = rng.choice(places)
    other = rng.choice([name for name in others if name != line.solution[start:end]])
    return line.solution[:start] + other + line.solution[end:], start, start + len(other)


def doubted(infiller: Infiller, line: Line, rng: random.Random) -> Doubted | None:
    planted = with_wrong_name(line, rng)
    if planted is None:
        return None
    wrong, start, end = planted
    return Doubted(_least(infiller, line, line.solution), _least(infiller, line, wrong, start, end))


def _least(infiller: Infiller, line: Line, written: str, start: int = 0, end: int | None = None) -> float:
    """The probability of the least likely token that touches characters [start, end) of the written line."""
    text, end = line.holding(written), len(written) if end is None else end
    found = infiller.doubts(text, line.at, line.at + len(written))
    touching = [
        d for d in found if d.start < line.at + end and d.end > line.at + start and text[d.start : d.end].strip()
    ]
    return min((d.bound for d in touching), default=1.0)


@click.command(help=__doc__)
@click.option("--lines", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--seed", default=9, show_default=True, help="Which lines, and which names are replaced.")
def main(lines: int, seed: int) -> None:
    infiller, rng = Infiller.from_pretrained(), random.Random(seed)
    known = list(track(library_lines(lines, seed), "reading", console=Console(stderr=True)))
    fills = [suggested(infiller, line) for line in track(known, "filling", console=Console(stderr=True))]
    read = [doubted(infiller, line, rng) for line in track(known, "doubting", console=Console(stderr=True))]
    console = Console(width=None if Console().is_terminal else 110)
    console.print(confidence_table(fills))
    console.print(doubt_table([d for d in read if d is not None]))


def confidence_table(fills: Sequence[Suggested]) -> Table:
    grid = Table("leastConfidence", "suggestions", "exact, of these", "exact ones lost")
    every = sum(f.exact for f in fills)
    for bound in LEAST:
        shown = [f for f in fills if f.confidence >= bound]
        exact = sum(f.exact for f in shown)
        share = f"{exact / len(shown):.2f}" if shown else "-"
        grid.add_row(f"{bound}", str(len(shown)), share, str(every - exact))
    return grid


def doubt_table(read: Sequence[Doubted]) -> Table:
    grid = Table("doubtBelow", "good lines with a mark", "wrong names marked")
    for bound in BELOW:
        marked, found = (sum(getattr(d, which) < bound for d in read) for which in ("least", "planted"))
        grid.add_row(f"{bound}", f"{marked} of {len(read)}", f"{found} of {len(read)}")
    return grid


if __name__ == "__main__":
    main()
