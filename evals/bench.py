"""`diffcode bench`: our engine against torch and llama.cpp, same prompts, one run, taking turns."""

import dataclasses
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffcode.errors import BadOption

if TYPE_CHECKING:
    from rich.table import Table

    from diffcode.evals.cuts import Line
    from diffcode.evals.race import Racer, Timing

    Timings = Mapping[tuple[int, int], Timing]  # by prompt and round

OURS = "diffcode int8"
SINGLE = "infill-single"  # its problems, filled up to the newline; nothing is run
EPILOG = """\b
Engines: int8, bf16, int5, int4 (the CPU engine), bfloat16 (torch), compiled (the same
through torch.compile), and llama.cpp with the published 4-bit file (Q4_K_M) or turned
into Q4_0 or Q8_0; that needs pip install llama-cpp-python. llama.cpp fills left to right.

\b
Examples:
  diffcode bench                              int8 against torch in bfloat16
  diffcode bench --engines int8,Q4_K_M,Q4_0,Q8_0 --problems 40
  diffcode bench --out runs/bench             keep every timing, and a plot
"""


@click.command(epilog=EPILOG)
@click.option("--engines", default="int8,bfloat16", metavar="A,B", help="Who runs.")
@click.option("--policies", default="leftmost,verified,threshold", metavar="A,B", help="Of the CPU engine's fills.")
@click.option("--problems", type=click.IntRange(min=2), default=20, help="Lines to fill.")
@click.option(
    "--lines",
    "which",
    type=click.Choice(("library", SINGLE)),
    default="library",
    help="Python's library's, or a task's.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=3, help="Times that everything is done.")
@click.option("--context", type=click.IntRange(min=16), default=256, help="Tokens of context.")
@click.option("--threads", type=click.IntRange(min=1), help="Of llama.cpp. [default: as many as the CPU engine]")
@click.option("--model", metavar="NAME_OR_PATH", help="A Hugging Face folder instead of the default.")
@click.option("--adapter", metavar="PATH", help="A span adapter's folder, or none.")
@click.option("--infill", metavar="PATH", help="The adapter that is merged into the weights, or none.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for bench.jsonl and bench.svg.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    engines: str, policies: str, problems: int, which: str, rounds: int, out: Path | None, as_json: bool, **given: Any
) -> None:
    """Time engines on the same lines of code: reading a context, a token, 8 rows, whole fills cold and warm.

    All take turns within one run, so that a busy moment hits each alike; medians are shown, and ratios line by line.
    """
    from rich.console import Console
    from rich.progress import track

    from diffcode.evals.race import race

    loud = Console(stderr=True)
    racers = _racers(engines.split(","), policies.split(","), **given)
    lines = _lines(which, problems)
    total = rounds * len(lines) * (2 * len(racers) + sum(_forwards(r) for r in {r.engine: r for r in racers}.values()))
    found = list(track(race(racers, lines, rounds), "racing", total=total, console=loud))
    if out is not None:
        _keep(out, found)
    summary = summarise(found)
    if as_json:
        click.echo(json.dumps({"machine": _machine(), "measures": summary}, indent=1))
    else:
        Console(width=None if Console().is_terminal else 150).print(table(summary))


def _lines(which: str, count: int) -> "list[Line]":
    from diffcode.evals import tasks
    from diffcode.evals.cuts import Line, library_lines
    from diffcode.evals.problems import select

    if which == "library":
        return library_lines(count, seed=1)
    found = select(tasks.load(which), count, 0)
    return [Line(p.text, p.holes[0][0], p.solutions[0].removesuffix("\n")) for p in found]


def _forwards(racer: "Racer") -> int:
    return 2 + (racer.cold.model.adapter is not None)


def _racers(
    engines: Sequence[str], policies: Sequence[str], context: int, threads: int | None, **load: Any
) -> "list[Racer]":
    from diffcode import hub
    from diffcode.config import ENGINE_DTYPES, DenoiseOptions, WindowOptions
    from diffcode.evals.race import QUANTISATIONS, llama, own
    from diffcode.kernels.cpu.engine import default_threads

    known = dict.fromkeys(ENGINE_DTYPES, "diffcode") | dict.fromkeys(("bfloat16", "compiled"), "torch")
    for name in engines:
        if name not in known and name not in QUANTISATIONS:
            raise BadOption(f"there is no engine {name!r}: choose from {', '.join([*known, *QUANTISATIONS])}")
    for policy in policies:
        DenoiseOptions.parse(policy)
    if "int8" not in engines:
        raise BadOption("leave int8 among the engines: the others are compared with it")
    window = WindowOptions(context)
    racers = own(OURS, "int8", policies, window, **load)
    like = racers[0].cold.model
    for name in (n for n in engines if n != "int8"):
        if name in known:
            dtype = "bfloat16" if name == "compiled" else name
            racers += own(f"{known[name]} {name}", dtype, ["leftmost"], window, **load)
        else:
            racers.append(llama(name, like, window, hub.pull(), threads or default_threads()))
    return racers


# ---- what came of it

Row = dict[str, float | str]


def summarise(timings: "Iterable[Timing]") -> dict[str, list[Row]]:
    """By measure, a row a racer: milliseconds, and how many times longer than ours, paired by prompt and round."""
    by: defaultdict[str, defaultdict[str, dict[tuple[int, int], Timing]]] = defaultdict(lambda: defaultdict(dict))
    for t in timings:
        by[t.measure][t.racer][t.prompt, t.round] = t
    return {measure: [_row(name, mine, racers) for name, mine in racers.items()] for measure, racers in by.items()}


def _row(name: str, mine: "Timings", racers: "Mapping[str, Timings]") -> Row:
    ours = racers.get(f"{OURS}, verified") or next(r for racer, r in racers.items() if racer.startswith(OURS))
    ratios = sorted(t.seconds / ours[key].seconds for key, t in mine.items())
    seconds = sorted(t.seconds for t in mine.values())
    return {
        "racer": name,
        "n": len(seconds),
        "ms": 1e3 * statistics.median(seconds),
        "ms_low": 1e3 * seconds[len(seconds) // 10],
        "ms_high": 1e3 * seconds[-1 - len(seconds) // 10],
        "ratio": statistics.median(ratios),
        "ratio_low": ratios[len(ratios) // 10],
        "ratio_high": ratios[-1 - len(ratios) // 10],
        "forwards": statistics.mean(t.forwards for t in mine.values()),
        "as_reference": statistics.mean(t.text == ours[key].text for key, t in mine.items()),
    }


def table(summary: Mapping[str, Sequence[Row]]) -> "Table":
    """All measures one below the other."""
    from rich import box
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, caption=_machine())
    for name in ("measure", "engine, policy"):
        grid.add_column(name)
    for name in ("n", "ms, median", "10 to 90 %", "times ours", "10 to 90 %", "forwards", "same text"):
        grid.add_column(name, justify="right")
    for measure, rows in summary.items():
        for i, row in enumerate(rows):
            fill, name = measure.endswith("fill"), str(row["racer"])
            grid.add_row(
                measure if i == 0 else "", name if fill else name.partition(",")[0], str(row["n"]),
                f"{row['ms']:.1f}", f"{row['ms_low']:.1f} to {row['ms_high']:.1f}", f"{row['ratio']:.2f}",
                f"{row['ratio_low']:.2f} to {row['ratio_high']:.2f}",
                f"{row['forwards']:.1f}" if fill else "", f"{row['as_reference']:.0%}" if fill else "",
                end_section=i == len(rows) - 1,
            )  # fmt: skip
    return grid


def _machine() -> str:
    from diffcode.evals.machine import describe, facts

    return describe(facts("cpu", None, "none")).replace("; tests run without isolation", "")


def _keep(out: Path, timings: "Sequence[Timing]") -> None:
    from diffcode.evals.plots import race_plot

    out.mkdir(parents=True, exist_ok=True)
    machine = _machine()
    rows = (json.dumps(dataclasses.asdict(t) | {"machine": machine}) for t in timings)
    (out / "bench.jsonl").write_text("".join(f"{row}\n" for row in rows), encoding="utf8")
    (out / "bench.svg").write_text(race_plot(summarise(timings), machine), encoding="utf8")
