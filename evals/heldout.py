"""Settings compared on code that is no benchmark: single lines cut from Python's own library.

    python -m diffcode.evals.heldout --problems 100 verified verified:ngrams=0 threshold:threshold=0.8 ...

Each argument is a policy with settings of `DenoiseOptions`. Nothing here is executed: what counts is how often a line
comes back exactly, how often it is the line that left-to-right decoding gives, tokens a forward, and milliseconds a
fill. Defaults are chosen with this, never on the benchmark's problems.
"""

import ast
import random
import statistics
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.progress import track
from rich.table import Table

from diffcode.config import DenoiseOptions, WindowOptions
from diffcode.infill import Fill, Infiller


@dataclass(frozen=True, slots=True)
class Line:
    """A file with one line missing."""

    text: str  # without the line
    at: int
    solution: str  # without its line end


def library_lines(count: int, seed: int) -> list[Line]:
    """`count` single-line statements from as many files of the standard library, the same for the same Python."""
    rng = random.Random(seed)
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    rng.shuffle(files)
    lines: list[Line] = []
    for path in files:
        if len(lines) == count:
            break
        source = path.read_text(encoding="utf8", errors="ignore")
        starts = list(_statements(source))
        if starts:
            lines.append(_without_line(source, rng.choice(starts)))
    return lines


def _statements(source: str) -> Iterator[int]:
    """Numbers (from 1) of lines that are one whole simple statement inside a function."""
    try:
        functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)]
    except SyntaxError:
        return
    for function in functions:
        for node in ast.walk(function):
            if not isinstance(node, ast.Assign | ast.AugAssign | ast.Return | ast.Expr | ast.Raise):
                continue
            if node.lineno == node.end_lineno and not isinstance(getattr(node, "value", 0), ast.Constant):
                yield node.lineno


def _without_line(source: str, number: int) -> Line:
    lines = source.split("\n")
    before = "".join(f"{line}\n" for line in lines[: number - 1])
    return Line(before + "\n".join(lines[number:]), len(before), lines[number - 1])


@click.command(help=__doc__)
@click.argument("settings", nargs=-1)
@click.option("--problems", default=100, show_default=True, help="How many lines.")
@click.option("--seed", default=1, show_default=True, help="Which lines.")
@click.option("--context", default=256, show_default=True, help="Tokens of context, 1024 in real use.")
@click.option("--no-suffix", is_flag=True, help="Cut off what follows the line.")
@click.option(
    "--plain", is_flag=True, help="Where nothing follows, show the plain text instead of the suffix-first form."
)
@click.option("--dtype", default="bfloat16", show_default=True)
@click.option("--adapter", default=None, help="An adapter folder instead of the shipped one.")
def main(
    settings: tuple[str, ...],
    problems: int,
    seed: int,
    context: int,
    no_suffix: bool,
    plain: bool,
    dtype: str,
    adapter: str | None,
) -> None:
    options = {name: DenoiseOptions.parse(name) for name in dict.fromkeys(("leftmost", *settings))}
    infiller = Infiller.from_pretrained(
        adapter=adapter, dtype=dtype, window=WindowOptions(budget=context, plain_without_suffix=plain)
    )
    lines = library_lines(problems, seed)
    if no_suffix:
        lines = [Line(line.text[: line.at], line.at, line.solution) for line in lines]
    fills: dict[str, list[Fill]] = {name: [] for name in options}
    for line in track(lines, "filling", console=Console(stderr=True)):
        for name, option in options.items():
            fills[name].append(infiller.fill_with(line.text, [(line.at, line.at)], option, stop="\n"))
    Console(width=None if Console().is_terminal else 150).print(_table(lines, fills))


def _table(lines: list[Line], fills: dict[str, list[Fill]]) -> Table:
    grid = Table("setting", "exact", "as leftmost", "tokens/forward", "span drafts", "n-gram drafts", "ms denoising")
    grid.title = f"{len(lines)} library lines, {time.strftime('%Y-%m-%d')}"
    first = fills["leftmost"]
    for name, found in fills.items():
        spans = [f.spans[0] for f in found]
        drafts = [s.drafts for s in spans]
        grid.add_row(
            name,
            f"{statistics.mean(s.text == line.solution for s, line in zip(spans, lines, strict=True)):.3f}",
            f"{statistics.mean(a.text == b.text for a, b in zip(found, first, strict=True)):.3f}",
            f"{sum(f.tokens for f in found) / sum(f.forwards for f in found):.3f}",
            f"{sum(d.span_accepted for d in drafts)}/{sum(d.span_proposed for d in drafts)}",
            f"{sum(d.ngram_accepted for d in drafts)}/{sum(d.ngram_proposed for d in drafts)}",
            f"{statistics.median(1000 * (s.seconds - s.context_seconds) for s in spans):.0f}",
        )
    return grid


if __name__ == "__main__":
    main()
