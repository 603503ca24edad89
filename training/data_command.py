"""`diffcode data`: make a set of code to train on, and look into one."""

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffcode.errors import BadOption, Cancelled, ModelUnavailable, UnreadableFile

if TYPE_CHECKING:
    from diffcode import hub
    from diffcode.training.data import Progress, Report

BUILD_EPILOG = """\b
Examples:
  diffcode data build ~/src/mylib --out mylib            one repository
  diffcode data build --installed --out site             the packages around this Python
  diffcode data build rows.jsonl.gz --out rows --language go
  diffcode data build hub:OWNER/NAME:data/python --out stack --limit-mb 500
\b
A SOURCE is a folder (of a git repository what git does not ignore), a .jsonl,
.jsonl.gz or .parquet file with a column of code, or hub:OWNER/NAME[:FOLDER] for
a data set of the model hub, streamed, with the token in HF_TOKEN.
\b
Left out: files that are no code in a known language, too small or too large,
generated, minified or data; other people's code in folders like third_party;
anything with a credential in it; anything with a task of `diffcode eval` in it;
exact and near duplicates. DIR/card.md says how many of each, and what is left.
\b
Exit codes: as of diffcode fill; 1 if nothing is left of the sources.
"""


@click.group()
def command() -> None:
    """Make sets of code to train on."""


@command.command(epilog=BUILD_EPILOG)
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@click.option("--out", required=True, type=click.Path(), metavar="DIR", help="Where the set goes.")
@click.option("--installed", is_flag=True, help="Also installed Python packages with permissive licences.")
@click.option("--python", metavar="PATH", help="For --installed: an interpreter, environment or site-packages folder.")
@click.option("--permissive-only", is_flag=True, help="Leave out all that names no permissive licence, SOURCEs too.")
@click.option("--text-column", metavar="NAME", help="Column of the code: content, text or code if not given.")
@click.option("--language", metavar="NAME", help="Language of rows that name none.")
@click.option("--validation", type=float, default=0.01, metavar="SHARE", help="Share of documents to hold out.")
@click.option("--limit-mb", type=click.FloatRange(min=0, min_open=True), metavar="N", help="Stop after so much text.")
@click.option("--max-package-mb", type=click.FloatRange(min=0, min_open=True), metavar="N", help="Text of one package.")
@click.option("--similarity", type=float, default=0.7, metavar="S", help="From here on two texts are near duplicates.")
@click.option("--exact-only", is_flag=True, help="Keep near duplicates.")
@click.option("--model", metavar="NAME_OR_PATH", help="Whose tokenizer to use, if not the default model's.")
@click.option("--seed", type=int, default=0, metavar="S", help="Same seed, same bytes.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Processes; as many as there are cores.")
@click.option("--json", "as_json", is_flag=True, help="Print the card as one JSON document.")
def build(sources: tuple[str, ...], out: str, model: str | None, exact_only: bool, as_json: bool, **given: Any) -> None:
    """Make a set of code out of SOURCEs: filtered, without duplicates, shuffled, tokenised, with a card."""
    given["workers"] = given["workers"] or os.cpu_count() or 1
    if given["python"] and not given["installed"]:
        raise BadOption("--python says where --installed looks: give both")
    from diffcode.training import data
    from diffcode.training.sources import RowOptions

    rows = RowOptions(given.pop("text_column"), given.pop("language"))
    with endable(), progress() as report:
        folder = model_folder(model, lambda at: report(data.Progress(at.stage, at.done, at.total)))
        card = data.build(
            data.BuildOptions(Path(out), folder, sources, rows=rows, near=not exact_only, **given), report
        )
    if as_json:
        click.echo(json.dumps(card, indent=1))
    else:
        held = card["validation_documents"]
        size = f"{card['documents']:,} documents, {card['bytes'] / 1e6:,.1f} MB, {card['tokens']:,} tokens"
        click.echo(f"{out}: {size}, {held:,} documents held out; see {Path(out) / 'card.md'}")


@command.command()
@click.argument("folder", metavar="DIR", type=click.Path())
@click.option("--samples", type=click.IntRange(min=0), default=3, metavar="N", help="How many to print.")
@click.option("--model", metavar="NAME_OR_PATH", help="Whose tokenizer the set was made with, if not the default's.")
@click.option("--seed", type=int, default=0, metavar="S", help="Which samples.")
@click.option("--json", "as_json", is_flag=True, help="Print the card and the samples as one JSON document.")
def inspect(folder: str, samples: int, model: str | None, seed: int, as_json: bool) -> None:
    """Print the card of the set in DIR, and samples as the model will see them."""
    from diffcode.training.card import FORMAT, markdown
    from diffcode.training.dataset import Dataset

    dataset = Dataset.open(Path(folder))
    if dataset.card.get("format") != FORMAT:
        raise UnreadableFile(f"{folder} was made by another version of diffcode: build it again")
    shown = list(_samples(dataset, model, seed, samples)) if samples else []
    if as_json:
        click.echo(json.dumps({"card": dataset.card, "samples": shown}, indent=1))
        return
    click.echo(markdown(dataset.card))
    for number, sample in enumerate(shown, 1):
        click.echo(f"---- sample {number}\n{sample}")


def model_folder(model: str | None, report: "hub.Report | None" = None) -> Path:
    """The folder with the tokenizer: no weights are loaded. Raises ModelUnavailable."""
    from diffcode import hub
    from diffcode.loading import folder_of

    if model is None:
        return folder_of(hub.pull(report=report))
    path = Path(model).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return folder_of(path)
    if not (path / "tokenizer.json").is_file():
        raise ModelUnavailable(f"there is no tokenizer of {model!r}: give a .gguf file or a folder with tokenizer.json")
    return path


def _samples(dataset: Any, model: str | None, seed: int, count: int) -> Iterator[str]:
    from diffcode.tokens import Tokens
    from diffcode.training.sampler import preview

    return preview(dataset, Tokens.from_folder(model_folder(model)), seed, count)


@contextmanager
def endable() -> Iterator[None]:
    """SIGTERM ends a build as Ctrl-C does: with everything temporary removed."""

    def end(*_: object) -> None:
        raise Cancelled("ended: nothing was written, run it again")

    before = signal.getsignal(signal.SIGTERM)
    # other threads may not, and whoever ignores it meant to
    if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def progress() -> Iterator["Report"]:
    """A bar on standard error, if somebody looks at it."""
    if not sys.stderr.isatty():
        yield lambda progress: None
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=Console(stderr=True), transient=True) as view:
        task = view.add_task("starting", total=None)

        def report(at: "Progress") -> None:
            kept = f", kept {at.kept_bytes / 1e6:,.0f} MB" if at.kept_bytes else ""
            view.update(task, description=at.stage + kept, completed=at.done, total=at.total or None)

        yield report
