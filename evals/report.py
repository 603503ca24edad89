"""report.html: one file that opens without a network, with the table, plots, and every problem that flipped.

Completions are hostile here too: everything is escaped, and the page's own policy lets no script run.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from string import Template

from diffcode.evals import table
from diffcode.evals.results import Row, Run, complete
from diffcode.evals.summary import Comparison, Report, by_decoder

TEMPLATE = Path(__file__).with_name("report.html")


def page(report: Report, rows: Sequence[Row], run: Run) -> str:
    """The whole document."""
    counted = by_decoder(complete(rows, run))
    settings = [(name, str(value)) for name, value in asdict(run.settings).items()]
    settings.append(("data fingerprint", run.fingerprint))
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(report.title),
        table=_table(table.headers(report), map(table.cells, report.summaries)),
        footer=escape("\n".join([*(summary.endings() for summary in report.summaries), report.footer])),
        plots=_plots(report, counted),
        comparisons="\n".join(_comparison(comparison, counted) for comparison in report.comparisons),
        settings=_table(("setting", "value"), settings),
    )


def _table(names: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "\n".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"


def _plots(report: Report, counted: dict[str, list[Row]]) -> str:
    if not report.summaries:
        return ""
    try:
        from diffcode.evals import plots
    except ImportError:
        return "<p>No plots: matplotlib is not installed (pip install 'diffcode[eval]').</p>"
    parts = [
        ("Quality against tokens per forward", plots.quality(report.summaries)),
        ("Seconds per fill", plots.latency(counted)),
    ]
    return "\n".join(f"<h2>{name}</h2>\n{svg}" for name, svg in parts if svg)


def _comparison(comparison: Comparison, counted: dict[str, list[Row]]) -> str:
    lines = [f"<h2>{escape(comparison.decoder)} against {escape(comparison.baseline)}</h2>"]
    lines.append(f"<p>{escape(comparison.sentence())}</p>")
    mine, theirs = (
        {row.task_id: row for row in counted[name] if row.sample == 0}
        for name in (comparison.decoder, comparison.baseline)
    )
    for kind, ids in (("gained", comparison.gained), ("lost", comparison.lost)):
        lines += [_flip(kind, mine[task], theirs[task]) for task in ids]
    return "\n".join(lines)


def _flip(kind: str, mine: Row, theirs: Row) -> str:
    pair = "".join(
        f"<div>{escape(row.decoder)}: {escape(row.verdict or '')}"
        f"{''.join(f'<pre>{escape(text)}</pre>' for text in row.completions)}</div>"
        for row in (theirs, mine)
    )
    name = f'<span class="{kind}">{kind}</span> {escape(mine.task_id)}'
    return f'<details><summary>{name}</summary><div class="pair">{pair}</div></details>'
