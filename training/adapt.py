"""`diffcode train --adapt PATH`: a personal adapter from one's own repository, on a laptop, within a time budget."""

import hashlib
import json
import os
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console
from rich.progress import track

from diffcode.canvas import normalise
from diffcode.config import DenoiseOptions
from diffcode.errors import BadOption
from diffcode.evals.cuts import Line
from diffcode.hub import cache_home
from diffcode.infill import Fill, Infiller
from diffcode.tokens import Tokens
from diffcode.training.dataset import Dataset

MINUTES = 60.0
LINES = 24  # held-out lines filled with both adapters
COMMENTS = ("#", "//", "/*", "*", '"')
HELD_OUT = 0.1  # share of the repository's files


@dataclass(frozen=True, slots=True)
class Outcome:
    """Held-out lines of the repository, filled before and after."""

    adapter: str
    option: str  # of diffcode fill, which takes it
    lines: int
    before: dict[str, float]
    after: dict[str, float]


def adapt(adapt: Path, **given: Any) -> int:
    """Build a set from the repository, train, and say what it gave."""
    if given["data"] is not None:
        raise BadOption("--adapt makes its own data set from the repository: leave --data out")
    repository = adapt.resolve()
    out: Path = given["out"] or cache_home() / "personal" / name_of(repository)
    data = out / "data"
    if not any(out.glob("*/checkpoint-*")):  # else a run goes on with the files that it was begun with
        build(repository, data, given["model"])
    minutes = MINUTES if given["minutes"] is None else given["minutes"]
    given |= {"data": data, "out": out / given["stage"], "minutes": minutes}
    if click.get_current_context().get_parameter_source("steps") is ParameterSource.DEFAULT:
        given["steps"] = 1_000_000  # the time decides
    from diffcode.training import command

    trainer = command.make(given)
    if trainer.done >= 1:
        click.echo(f"{given['out']} is finished: remove {out} to learn what has changed since", err=True)
    if command.watch(trainer):
        click.echo("stopped early: the same command goes on from here", err=True)
        return 130
    show(compare(data, out / given["stage"] / "best", given), given["as_json"])
    return 0


def name_of(repository: Path) -> str:
    """A folder's name that two repositories of the same name do not share."""
    return f"{repository.name}-{hashlib.sha256(os.fsencode(repository)).hexdigest()[:6]}"


def build(repository: Path, data: Path, model: str | None) -> None:
    """A set of the repository's own files, a tenth of them held out."""
    from diffcode.training.data import BuildOptions
    from diffcode.training.data import build as build_set
    from diffcode.training.data_command import endable, model_folder, progress

    with endable(), progress() as report:
        options = BuildOptions(data, model_folder(model), (str(repository),), validation=HELD_OUT)
        card = build_set(options, report)
    files = f"{card['documents']:,} files of {repository}, {card['validation_documents']:,} of them held out"
    click.echo(f"{files}; what was left out: {data / 'card.md'}", err=True)


def compare(data: Path, adapter: Path, given: dict[str, Any]) -> Outcome:
    """Fill held-out lines with the default adapter and with the new one, the order changing from line to line."""
    where = {"device": given["device"], "dtype": given["dtype"]}
    infill = given["infill"]
    before = Infiller.from_pretrained(given["model"], infill=infill, **where)
    if given["stage"] == "infill":
        after = Infiller.from_pretrained(given["model"], infill=str(adapter), **where)
    else:
        after = Infiller(before.model.with_adapter(adapter), before.window)
    lines = held_out_lines(data, before.model.tokens)
    found: dict[str, list[Fill]] = {"before": [], "after": []}
    options = DenoiseOptions(ngrams=0)
    for number, line in enumerate(track(lines, "comparing on held-out lines", console=Console(stderr=True))):
        turn = [("before", before), ("after", after)]
        for name, infiller in turn if number % 2 else turn[::-1]:
            found[name].append(infiller.fill_with(line.text, [(line.at, line.at)], options, stop="\n"))
    option = "--infill" if given["stage"] == "infill" else "--adapter"
    return Outcome(str(adapter), option, len(lines), *(numbers(lines, found[name]) for name in ("before", "after")))


def held_out_lines(data: Path, tokens: Tokens) -> list[Line]:
    """Up to `LINES` lines of code from the set's held-out documents, the same every time."""
    dataset, rng = Dataset.open(data), random.Random(0)
    candidates = []
    for document in dataset.validation:
        text = normalise(tokens.decode(dataset.ids(document).tolist()))
        starts = [at for at, line in _lines(text) if len(line.strip()) > 3 and not line.strip().startswith(COMMENTS)]
        candidates += [(text, at) for at in rng.sample(starts, min(len(starts), 8))]
    rng.shuffle(candidates)
    return [_cut(text, at) for text, at in candidates[:LINES]]


def _lines(text: str) -> Iterator[tuple[int, str]]:
    at = 0
    for line in text.split("\n"):
        yield at, line
        at += len(line) + 1


def _cut(text: str, at: int) -> Line:
    line = text[at:].partition("\n")[0]
    indent = len(line) - len(line.lstrip())
    return Line(text[: at + indent] + text[at + len(line) :], at + indent, line[indent:])


def numbers(lines: Sequence[Line], fills: Sequence[Fill]) -> dict[str, float]:
    """Share of lines that came back exactly, tokens a forward, and the median denoising time in ms."""
    spans = [fill.spans[0] for fill in fills]
    return {
        "exact": statistics.mean(s.text == line.solution for s, line in zip(spans, lines, strict=True)),
        "tokens_a_forward": sum(f.tokens for f in fills) / sum(f.forwards for f in fills),
        "milliseconds": statistics.median(1000 * (s.seconds - s.context_seconds) for s in spans),
    }


def show(outcome: Outcome, as_json: bool) -> None:
    """The comparison, and how to use what was learnt."""
    if as_json:
        click.echo(json.dumps(asdict(outcome), indent=1))
        return
    click.echo(f"{outcome.lines} held-out lines of the repository   before   after")
    for name in outcome.before:
        click.echo(f"  {name.replace('_', ' '):36} {outcome.before[name]:8.3f} {outcome.after[name]:7.3f}")
    click.echo(f"diffcode fill FILE {outcome.option} {outcome.adapter}")
