"""`diffcode eval`: measure decoders on benchmarks. Importing this loads no torch and no rich.

Everything that needs no model is checked before one is loaded.
"""

import json
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffcode.config import DTYPES
from diffcode.errors import BadOption, DiffcodeError

if TYPE_CHECKING:
    from diffcode.evals.decoders import Rules
    from diffcode.evals.problems import Problem
    from diffcode.evals.results import Folder, Row, Run, Settings
    from diffcode.evals.summary import Report
    from diffcode.infill import Infiller

INTERRUPTED = 130
EPILOG = """\b
Examples:
  diffcode eval --task infill-single --limit 256     the default policy next to left-to-right decoding
  diffcode eval --task humaneval --decoders leftmost,threshold:threshold=0.8,threshold:threshold=0.9
  diffcode eval --task infill-multi --shard 1/4 --out runs/multi-1
  diffcode eval merge runs/multi-1 runs/multi-2 runs/multi-3 runs/multi-4 --out runs/multi
  diffcode eval compare runs/before runs/after
\b
A decoder is a policy with or without settings (verified, threshold:threshold=0.8:span_rows=2),
leftmost (left-to-right decoding of the same base), llama-cpp (the same file in llama.cpp), or
openai:URL (an OpenAI-compatible completion server, such as openai:http://127.0.0.1:8080/v1#model).
"""


def output_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """How the table is printed."""
    function = click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON document.")(function)
    return click.option("--markdown", is_flag=True, help="Print the table as markdown.")(function)


@click.group("eval", invoke_without_command=True, epilog=EPILOG, context_settings={"show_default": True})
@click.option("--task", metavar="NAME", help="What to measure on: see `diffcode eval list`.")
@click.option("--decoders", metavar="A,B:SETTING=N", default="leftmost,verified", help="What to compare.")
@click.option("--data", type=click.Path(path_type=Path), help="An official .jsonl(.gz) file of the task's problems.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N problems after the shuffle.")
@click.option("--shuffle-seed", type=int, metavar="S", default=0, help="Seed of the problems' order.")
@click.option("--shard", metavar="I/N", help="Only the I-th of N equal parts; `merge` joins them.")
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="N", default=256, help="Tokens a hole at most.")
@click.option("--newline-stop", is_flag=True, help="End every hole at its first line end.")
@click.option("--samples", type=click.IntRange(min=1), metavar="N", default=1, help="Fills a problem, for pass@k.")
@click.option("--temperature", type=click.FloatRange(min=0), metavar="T", default=0.0, help="0: no chance involved.")
@click.option("--seed", type=int, metavar="S", default=0, help="Seed of the samples.")
@click.option("--context", type=click.IntRange(min=16), metavar="N", default=1024, help="Tokens of context.")
@click.option("--plain", is_flag=True, help="Where nothing follows a hole, show the model the plain text.")
@click.option("--model", metavar="NAME_OR_PATH", help="A GGUF file or Hugging Face folder instead of the default.")
@click.option("--adapter", metavar="PATH", help="A span adapter's folder, or none.")
@click.option("--infill", metavar="PATH", help="The infilling adapter's folder, merged into the weights, or none.")
@click.option("--device", metavar="D", help="cpu, cuda, cuda:1, ...")
@click.option("--dtype", type=click.Choice(DTYPES), help="Precision; int8, int5, int4 and bf16 are the CPU engine's.")
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder. [default: runs/TASK-DATE]")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--unsafe", is_flag=True, help="Run the tests even if nothing can isolate them.")
@output_options
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> int:
    """Measure decoders on code benchmarks: quality, tokens per forward, seconds.

    Every decoder fills a problem before the next one is begun; the tests run afterwards, in a sandbox. Prints a table
    and leaves results.jsonl, summary.json and report.html in the run's folder. Ctrl-C keeps what is done.
    """
    if ctx.invoked_subcommand is not None:
        if given["task"] is not None:
            raise BadOption(f"--task does not go with {ctx.invoked_subcommand}: leave one of them out")
        return 0
    if given["task"] is None:
        click.echo(ctx.get_help())
        return 0
    return _run(**given)


@command.command("merge", short_help="Join the runs of all shards.")
@click.argument("shards", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The whole run's folder.")
@output_options
def merge_(shards: tuple[Path, ...], out: Path, markdown: bool, as_json: bool) -> None:
    """Join the runs of all shards to the run that one machine would have made."""
    from diffcode.evals.results import Folder, merged

    _check_output(markdown, as_json)
    parts = [(folder, folder.run(), folder.rows()) for folder in map(Folder, shards)]
    run, rows = merged(parts)
    folder = Folder(out)
    folder.prepare()
    folder.save_rows(rows)
    folder.save_run(run)
    _show(_write(folder, run, rows), markdown, as_json)


@command.command("compare", short_help="Compare two runs problem by problem.")
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("--decoder", "names", multiple=True, metavar="NAME", help="Only this one. May be given several times.")
@click.option("--against", metavar="NAME", help="Compare with this decoder of BEFORE instead of the same one.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def compare_(before: Path, after: Path, names: tuple[str, ...], against: str | None, as_json: bool) -> None:
    """Compare two runs problem by problem: which flipped, and could that be chance?

    Problems that only one run has do not count.
    """
    from diffcode.evals import pairing
    from diffcode.evals.results import Folder

    found = pairing.compare(Folder(before), Folder(after), names, against)
    click.echo(json.dumps(found.document(), indent=1) if as_json else found.text())


@command.command("report", short_help="Make a run's report again from its rows.")
@click.argument("run", type=click.Path(path_type=Path))
@output_options
def report_(run: Path, markdown: bool, as_json: bool) -> None:
    """Make a run's table, summary.json and report.html again from its rows."""
    from diffcode.evals.results import Folder

    _check_output(markdown, as_json)
    folder = Folder(run)
    _show(_write(folder, folder.run(), folder.rows()), markdown, as_json)


@command.command("list")
def list_() -> None:
    """Show the tasks and how many problems each has."""
    from diffcode.evals import tasks

    for task in tasks.TASKS.values():
        if task.on_hub:
            source = f"{task.on_hub} from --data, else from the hub"
        else:
            source = f"{len(tasks.load(task.name))} problems"
        click.echo(f"{task.name:20} {task.about}; {source}")


def _run(*, out: Path | None, resume: bool, unsafe: bool, markdown: bool, as_json: bool, **given: Any) -> int:
    from diffcode.evals import lineup, machine, results, runner, sandbox

    _check_output(markdown, as_json)
    if resume and out is None:
        raise BadOption("--resume needs --out: name the folder of the run to go on with")
    settings = _settings(**given)
    problems, run = _plan(settings)
    folder = results.Folder(out or Path("runs") / f"{settings.task}-{datetime.now():%Y-%m-%d-%H%M%S}")
    run, rows = results.resumed(folder, run) if resume else (run, folder.prepare())
    isolation = sandbox.best_isolation(unsafe)
    decoders = lineup.assemble(settings, lambda: load_infiller(settings))
    folder.save_run(run := run.continued(machine.facts(settings.device, settings.dtype, isolation.name)))
    rows, cut = runner.evaluate(decoders, problems, _rules(settings), settings.samples, isolation, folder, rows)
    _show(_write(folder, run, rows), markdown, as_json)
    click.echo(f"the rows, summary.json and report.html are in {folder.path}", err=True)
    if cut:
        click.echo(f"stopped early: --resume --out {folder.path} goes on", err=True)
    return INTERRUPTED if cut else 0


# ---- before the model


def _check_output(markdown: bool, as_json: bool) -> None:
    if markdown and as_json:
        raise BadOption("--markdown and --json exclude each other: choose one")


def _settings(*, decoders: str, data: Path | None, shard: str | None, **given: Any) -> "Settings":
    from diffcode.evals.decoders import split_names
    from diffcode.evals.problems import Shard
    from diffcode.evals.results import Settings

    if given["samples"] > 1 and given["temperature"] == 0:
        raise BadOption("--samples needs --temperature above 0: without chance all samples are the same")
    part = str(Shard.parse(shard)) if shard else None
    return Settings(decoders=split_names(decoders), data=str(data) if data else None, shard=part, **given)


def _plan(settings: "Settings") -> "tuple[tuple[Problem, ...], Run]":
    """The problems to be filled, and the run as it stands before its first sitting."""
    from diffcode.evals import problems, tasks
    from diffcode.evals.results import Run

    available = tasks.load(settings.task, Path(settings.data) if settings.data else None)
    shard = problems.Shard.parse(settings.shard) if settings.shard else None
    chosen = problems.select(available, settings.limit, settings.shuffle_seed, shard)
    ids = tuple(problem.task_id for problem in chosen)
    return chosen, Run(settings, problems.fingerprint(available), len(available), ids, ())


def _rules(settings: "Settings") -> "Rules":
    from diffcode.evals import tasks
    from diffcode.evals.decoders import Rules

    stops = tasks.task_of(settings.task).stops + (("\n",) if settings.newline_stop else ())
    return Rules(settings.max_tokens, stops, settings.temperature, settings.seed)


def load_infiller(settings: "Settings") -> "Infiller":
    """The one place where the model comes in; tests put another one here."""
    from diffcode.config import WindowOptions
    from diffcode.infill import Infiller

    return Infiller.from_pretrained(
        settings.model,
        adapter=settings.adapter,
        infill=settings.infill,
        device=settings.device,
        dtype=settings.dtype,
        window=WindowOptions(budget=settings.context, plain_without_suffix=settings.plain),
        memory=0,  # every decoder reads the context itself
    )


# ---- after it


def _write(folder: "Folder", run: "Run", rows: "Sequence[Row]") -> "Report":
    """Leave the summary and the report in the folder."""
    from diffcode.evals import report, results, summary

    found = summary.report(rows, run)
    folder.replace(results.SUMMARY, json.dumps(found.document(), indent=1) + "\n")
    folder.replace(results.REPORT, report.page(found, rows, run))
    return found


def _show(report: "Report", markdown: bool, as_json: bool) -> None:
    """The table on standard output."""
    from diffcode.evals import table

    if as_json:
        click.echo(json.dumps(report.document(), indent=1))
    elif markdown:
        click.echo(table.markdown(report))
    else:
        table.show(report)


def main() -> None:
    """For `python -m diffcode.evals.command`; `diffcode eval` has its own way of telling errors."""
    try:
        sys.exit(command.main(standalone_mode=False))
    except (click.ClickException, DiffcodeError) as error:
        click.echo(
            f"diffcode: {error.format_message() if isinstance(error, click.ClickException) else error}", err=True
        )
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
