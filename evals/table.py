"""The results table as text: cells, markdown, and a grid for a terminal."""

import sys
from collections.abc import Sequence

from diffcode.evals.summary import Report, Summary

WIDTH = 220  # where nobody looks: a pipe's 80 columns would cut the numbers
UNKNOWN = "-"


def headers(report: Report) -> tuple[str, ...]:
    """One for each of `cells`; timings of a machine that was not idle are marked."""
    mark = "" if all(summary.idle for summary in report.summaries) else " *"
    return (
        "decoder",
        "n",
        *(f"pass@{k}" for k in _ks(report.summaries)),
        "pass@1, 95 % interval",
        "exact",
        "syntax",
        "tokens / forward",
        "less n-gram tokens",
        "forwards / fill",
        f"s / fill p50, p95{mark}",
        f"context ms p50, p95{mark}",
        f"denoising ms p50, p95{mark}",
    )


def cells(summary: Summary) -> tuple[str, ...]:
    low, high = summary.interval
    return (
        summary.decoder,
        str(summary.problems),
        *(f"{rate:.3f}" for rate in summary.pass_at.values()),
        f"{low:.3f} to {high:.3f}",
        f"{summary.exact:.3f}",
        f"{summary.syntax:.3f}",
        _number(summary.tokens_per_forward, ".2f"),
        _number(summary.tokens_per_forward_without_ngrams, ".2f"),
        _number(summary.forwards, ".1f"),
        f"{summary.seconds_p50:.3f}, {summary.seconds_p95:.3f}",
        _milliseconds(summary.context_p50, summary.context_p95),
        _milliseconds(summary.denoise_p50, summary.denoise_p95),
    )


def markdown(report: Report) -> str:
    """Title, table, comparisons and machine."""
    names = headers(report)
    lines = [names, ("---", *["---:"] * (len(names) - 1)), *map(cells, report.summaries)]
    grid = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = [f"* {note}" for note in report.notes()]
    # A line that begins with a star would be an item of the list above it.
    parts = [f"**{report.title}**", grid, "\n".join(notes), report.footer.replace("\n* ", "\n\\* ")]
    return "\n\n".join(part for part in parts if part)


def show(report: Report) -> None:
    """Print the table, and what is to be said about it below."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(*headers(report), title=Text(report.title), title_justify="left")
    grid.columns[0].no_wrap = True
    for column in grid.columns[1:]:
        column.justify = "right"
    for summary in report.summaries:
        grid.add_row(*map(Text, cells(summary)))
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(grid)
    for note in (*report.notes(), report.footer):
        console.print(Text(note), soft_wrap=True)


def _ks(summaries: Sequence[Summary]) -> tuple[str, ...]:
    return tuple(summaries[0].pass_at) if summaries else ("1",)


def _number(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else format(value, form)


def _milliseconds(*values: float | None) -> str:
    return UNKNOWN if None in values else ", ".join(f"{1000 * (value or 0):.0f}" for value in values)
