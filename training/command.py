"""`diffcode train`. Light to import: the command line reads it for its help."""

import json
import signal
from collections import deque
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffcode.errors import BadOption
from diffcode.interrupt import interruptible
from diffcode.training.distributed import ALONE, World, joined
from diffcode.training.options import STAGES, TrainOptions, with_settings

if TYPE_CHECKING:
    from diffcode.training.trainer import Trainer

DEFAULTS = TrainOptions()
EPILOG = """\b
Examples:
  diffcode data build ~/src --out runs/corpus            first, a corpus
  diffcode train --data runs/corpus --out runs/span      then a span adapter
  diffcode fill app.py --adapter runs/span/best          and use it
  diffcode train --adapt . --minutes 60                  both for one repository
\b
The same command goes on where a run was stopped, by Ctrl-C, SIGTERM or a crash:
a checkpoint is written every few minutes. --out then holds
  best/           the adapter that was best on the held-out text
  adapter/        the newest one
  metrics.jsonl   a line a step and a validation; loss.svg shows them
Every choice can be set: --set denoising.window=8 --set spans.most_lines=12.
Several GPUs or machines: torchrun --nproc-per-node 8 -m diffcode train ...
Each process takes its share of a step's texts; a run goes on with any number.
\b
Stages:
  span     the adapter of the span rows: more tokens a forward
  infill   an adapter on every row, merged into the weights by --infill: the
           model learns where a hole ends. Needed once for a base model.
"""


@click.command(epilog=EPILOG)
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="A set that diffcode data build made.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="The run's folder.")
@click.option("--adapt", type=click.Path(path_type=Path, exists=True), metavar="PATH", help="Learn this repository.")
@click.option("--stage", type=click.Choice(STAGES), default="span", help="What is trained.")
@click.option("--steps", type=click.IntRange(min=1), default=DEFAULTS.steps, help="Optimiser steps at most.")
@click.option("--minutes", type=float, metavar="M", help="Training time at most; 60 with --adapt.")
@click.option("--texts", type=click.IntRange(min=1), default=DEFAULTS.texts, help="Texts a step.")
@click.option("--rate", type=float, default=DEFAULTS.rate, help="Peak learning rate.")
@click.option("--rank", type=click.IntRange(min=1), default=DEFAULTS.rank, help="Rank of the low-rank maps.")
@click.option("--seed", type=int, default=DEFAULTS.seed, help="Same seed and data, same run.")
@click.option("--full", is_flag=True, help="Train the base's own weights (stage infill): best/ is a model.")
@click.option("--recompute", is_flag=True, help="Half the memory, a third more time.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Any other setting.")
@click.option("--from", "start", type=click.Path(path_type=Path, exists=True), help="Begin from this adapter.")
@click.option("--fresh", is_flag=True, help="Begin from nothing, not from the shipped adapter.")
@click.option("--model", metavar="NAME_OR_PATH", help="A GGUF file or Hugging Face folder instead of the default.")
@click.option("--infill", metavar="PATH", help="The infilling adapter merged into the base, or none.")
@click.option("--device", metavar="D", help="cpu, cuda, cuda:1, ...")
@click.option("--dtype", type=click.Choice(["bfloat16", "float32"]), help="Precision of the base's weights.")
@click.option("--probe", is_flag=True, help="Also run code at every validation: a small pass@1, half a minute each.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document at the end.")
def command(**given: Any) -> int:
    """Train an adapter: on a corpus (--data, --out), or on your own repository (--adapt)."""
    with joined(given["device"]) as world:
        if given["adapt"] is not None and world.size == 1 and not given["full"]:
            from diffcode.training.adapt import adapt

            return adapt(**given)
        with world.agreed():
            check(given)
            trainer = make(given, world)
        stopped = watch(trainer)
        if world.leads:
            report(trainer, given["as_json"])
        code = 130 if stopped else 0
        world.leave(code)
        return code


def check(given: dict[str, Any]) -> None:
    """What can be wrong with the options before anything is loaded."""
    if given["probe"] and given["full"]:
        raise BadOption("--probe looks at adapters, and --full makes none: leave one of them out")
    if given["adapt"] is not None:
        raise BadOption("--adapt trains an adapter in one process: leave --full and torchrun out")
    for name in ("data", "out"):
        if given[name] is None:
            raise BadOption(f"--{name} is missing: name a folder, or use --adapt PATH for your own repository")


def options_of(given: dict[str, Any]) -> TrainOptions:
    """The command's options as the trainer takes them."""
    names = ("stage", "steps", "minutes", "texts", "rate", "rank", "seed", "full", "recompute")
    return with_settings(TrainOptions(**{name: given[name] for name in names}), given["settings"])


def make(given: dict[str, Any], world: World = ALONE) -> "Trainer":
    """Load the model and open the run."""
    options = options_of(given)
    from diffcode import display
    from diffcode.training.launch import load, make_trainer, opened

    opened(given["data"])  # what is wrong with it is said before a model is loaded
    transfer = display.Transfer("loading the model")
    with display.live(transfer) if world.leads else nullcontext():
        model, start = load(options, given | {"device": world.device(given["device"])}, transfer.report)
        if start is not None and options.rank != start.rank:
            options = replace(options, rank=start.rank)
        folder = start.folder if start else None
        trainer = make_trainer(options, given["data"], given["out"], model, folder, world, given["model"])
    if given["probe"]:
        from diffcode.training.probe import prober

        trainer.probe = prober(model, options.stage)
    return trainer


def watch(trainer: "Trainer") -> bool:
    """Run it until it ends or is told to, and say whether it was told to."""
    with interruptible(signal.SIGTERM) as stop:
        trainer.stop = stop.is_set
        _show(trainer)
        return bool(trainer.world.most(stop.is_set()))


def _show(trainer: "Trainer") -> None:
    """Run it, showing how it goes on standard error; of several processes one does."""
    if not trainer.world.leads:
        deque(trainer.run(), maxlen=0)
        return
    from diffcode.training.watch import Board

    with Board(trainer) as board:
        for progress in trainer.run():
            board.show(progress)


def report(trainer: "Trainer", as_json: bool) -> None:
    """What came of it."""
    found = trainer.summary()
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    what = "model" if trainer.options.full else "adapter"
    click.echo(f"{found['step']} steps, best measure {found['best']:.4f}, {what} {found['adapter']}")
    if found["done"] < 1:
        click.echo("stopped early: the same command goes on from here", err=True)
