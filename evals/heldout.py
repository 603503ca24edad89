"""Settings compared on code that is no benchmark: lines and other pieces cut from Python's own library.

    python -m diffcode.evals.heldout --problems 100 verified verified:ngrams=0 threshold:threshold=0.8 ...
    python -m diffcode.evals.heldout --problems 150 --cut characters leftmost:end_bias=0

Each argument is a policy with settings of `DenoiseOptions`. Nothing here is executed: what counts is how often a line
comes back exactly, how often it is the line that left-to-right decoding gives, tokens a forward, and milliseconds a
fill. Defaults are chosen with this, never on the benchmark's problems.
"""

import statistics
import time
from dataclasses import replace

import click
from rich.console import Console
from rich.progress import track
from rich.table import Table

from diffcode.config import DTYPES, DenoiseOptions, WindowOptions
from diffcode.evals.cuts import KINDS, Line, library_cuts
from diffcode.infill import Fill, Infiller
from diffcode.soundness import parses


@click.command(help=__doc__)
@click.argument("settings", nargs=-1)
@click.option("--problems", default=100, show_default=True, help="How many lines.")
@click.option("--seed", default=1, show_default=True, help="Which lines.")
@click.option("--context", default=256, show_default=True, help="Tokens of context, 1024 in real use.")
@click.option("--no-suffix", is_flag=True, help="Cut off what follows the line.")
@click.option(
    "--plain", is_flag=True, help="Where nothing follows, show the plain text instead of the suffix-first form."
)
@click.option("--dtype", type=click.Choice(DTYPES))
@click.option("--adapter", default=None, help="An adapter folder instead of the shipped one.")
@click.option("--infill", default=None, help="An infilling adapter's folder instead of the shipped one, or none.")
@click.option("--cut", type=click.Choice(KINDS), default="line", show_default=True, help="What is missing.")
@click.option("--free", is_flag=True, help="No stop at the line's end: the model must know where the hole ends.")
def main(
    settings: tuple[str, ...],
    problems: int,
    seed: int,
    context: int,
    no_suffix: bool,
    plain: bool,
    dtype: str | None,
    adapter: str | None,
    infill: str | None,
    cut: str,
    free: bool,
) -> None:
    options = {name: DenoiseOptions.parse(name) for name in dict.fromkeys(("leftmost", *settings))}
    infiller = Infiller.from_pretrained(
        adapter=adapter,
        infill=infill,
        dtype=dtype,
        window=WindowOptions(budget=context, plain_without_suffix=plain),
        memory=0,  # every setting reads the context itself
    )
    lines = library_cuts(cut, problems, seed)
    free = free or cut != "line"  # other pieces end where they end
    if free and cut == "line":
        lines = [replace(line, solution=f"{line.solution}\n") for line in lines]
    if no_suffix:
        lines = [Line(line.text[: line.at], line.at, line.solution) for line in lines]
    fills: dict[str, list[Fill]] = {name: [] for name in options}
    for line in track(lines, "filling", console=Console(stderr=True)):
        for name, option in options.items():
            stop = None if free else "\n"
            hole = [(line.at, line.at)]
            fills[name].append(infiller.fill_with(line.text, hole, option, stop=stop, language="python"))
    Console(width=None if Console().is_terminal else 150).print(_table(lines, fills, free))


def _table(lines: list[Line], fills: dict[str, list[Fill]], free: bool) -> Table:
    grid = Table(
        "setting",
        "exact",
        "empty",
        "ran on",
        "too early",
        "broken",
        "as leftmost",
        "tokens/forward",
        "span drafts",
        "n-gram drafts",
        "ms denoising",
    )
    grid.title = f"{len(lines)} pieces of library code, {time.strftime('%Y-%m-%d')}"
    first = fills["leftmost"]
    for name, found in fills.items():
        spans = [f.spans[0] for f in found]
        drafts = [s.drafts for s in spans]
        grid.add_row(
            name,
            f"{statistics.mean(s.text == line.solution for s, line in zip(spans, lines, strict=True)):.3f}",
            f"{sum(not s.text.strip() for s in spans)}",
            f"{sum(_ran_on(s.text, line.solution) for s, line in zip(spans, lines, strict=True))}",
            f"{sum(_ran_on(line.solution, s.text) for s, line in zip(spans, lines, strict=True) if s.text)}",
            f"{sum(not parses(f.text) for f in found)}" if free else "-",
            f"{statistics.mean(a.text == b.text for a, b in zip(found, first, strict=True)):.3f}",
            f"{sum(f.tokens for f in found) / sum(f.forwards for f in found):.3f}",
            f"{sum(d.span_accepted for d in drafts)}/{sum(d.span_proposed for d in drafts)}",
            f"{sum(d.ngram_accepted for d in drafts)}/{sum(d.ngram_proposed for d in drafts)}",
            f"{statistics.median(1000 * (s.seconds - s.context_seconds) for s in spans):.0f}",
        )
    return grid


def _ran_on(text: str, solution: str) -> bool:
    return text.startswith(solution) and text != solution


if __name__ == "__main__":
    main()
