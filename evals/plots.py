"""The report's pictures as inline SVG. Importing this loads matplotlib."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from diffcode.config import DenoiseOptions
from diffcode.errors import BadOption
from diffcode.evals.results import Row
from diffcode.evals.summary import Summary

# Text stays text; the same numbers give the same bytes.
STYLE: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "diffcode", "font.size": 10}
SIZE = (7.5, 4.2)  # inches
BINS = 25


def quality(summaries: Sequence[Summary]) -> str:
    """pass@1 with its interval against tokens a forward; a policy's thresholds are joined by a line."""
    known = [summary for summary in summaries if summary.tokens_per_forward is not None]
    if not known:
        return ""
    with rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        for name, line in sweeps(known).items():
            x = [summary.tokens_per_forward or 0 for _, summary in line]
            y = [summary.pass_at["1"] for _, summary in line]
            spread = np.abs([[rate - edge for edge in s.interval] for rate, (_, s) in zip(y, line, strict=True)]).T
            axes.errorbar(x, y, spread, fmt="o-", capsize=3, label=_plain(name))
            for at, rate, (threshold, _) in zip(x, y, line, strict=True):
                if len(line) > 1:
                    axes.annotate(f"{threshold:g}", (at, rate), xytext=(6, 6), textcoords="offset points")
        axes.set(xlabel="tokens per forward", ylabel="pass@1 with 95 % interval")
        axes.margins(x=0.08)  # room for the last threshold
        axes.grid(alpha=0.3)
        axes.legend()
        return _svg(figure)


def latency(groups: Mapping[str, Sequence[Row]]) -> str:
    """How many fills took how long, one outline a decoder."""
    seconds = {name: [max(row.seconds, 1e-6) for row in rows] for name, rows in groups.items()}
    every = [second for found in seconds.values() for second in found]
    if not every:
        return ""
    edges = np.geomspace(min(every) * 0.99, max(every) * 1.01, BINS + 1)
    with rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        for name, found in seconds.items():
            axes.hist(found, list(edges), histtype="step", linewidth=1.6, label=_plain(name))
        axes.set(xscale="log", xlabel="seconds per fill", ylabel="fills")
        axes.grid(alpha=0.3)
        axes.legend()
        return _svg(figure)


def race_plot(summary: Mapping[str, Sequence[Mapping[str, Any]]], machine: str) -> str:
    """Milliseconds of every engine, a panel a measure; the whiskers hold 80 % of the timings."""
    with rc_context(STYLE):
        figure = Figure(figsize=(SIZE[0], 1.2 + 0.28 * sum(map(len, summary.values()))), layout="constrained")
        heights = [len(rows) for rows in summary.values()]
        panels = figure.subplots(len(summary), 1, height_ratios=heights, squeeze=False)[:, 0]
        for axes, (measure, rows) in zip(panels, summary.items(), strict=True):
            ms = [row["ms"] for row in rows]
            around = [[m - row["ms_low"] for m, row in zip(ms, rows, strict=True)]]
            around.append([row["ms_high"] - m for m, row in zip(ms, rows, strict=True)])
            axes.barh([_plain(row["racer"]) for row in rows], ms, xerr=around, capsize=2, color="#8fb8de")
            axes.invert_yaxis()
            axes.set_title(f"{measure}, ms", fontsize=10, loc="left")
        figure.supxlabel(machine, fontsize=6)
        return _svg(figure)


def sweeps(summaries: Sequence[Summary]) -> dict[str, list[tuple[float, Summary]]]:
    """(threshold, summary) by the name without its threshold, each line in order of threshold."""
    lines: dict[str, list[tuple[float, Summary]]] = {}
    for summary in summaries:
        name = ":".join(part for part in summary.decoder.split(":") if not part.startswith("threshold="))
        try:
            threshold = DenoiseOptions.parse(summary.decoder).bound
        except BadOption:  # an outside engine has none
            name, threshold = summary.decoder, 0.0
        lines.setdefault(name, []).append((threshold, summary))
    return {name: sorted(line, key=lambda point: point[0]) for name, line in lines.items()}


def _plain(name: str) -> str:
    # matplotlib reads dollars as formulas, and hides labels that begin with an underscore.
    return name.replace("$", r"\$").lstrip("_")


def _svg(figure: Figure) -> str:
    target = io.StringIO()
    figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    # From the element on: a page has no room for an XML declaration.
    return re.sub(r"^.*?(?=<svg)", "", target.getvalue(), flags=re.DOTALL)
