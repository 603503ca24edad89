"""HumanEval-Infilling with several policies side by side: `python -m diffcode.evals.infilling DATA.jsonl.gz`.

Fills come first, one at a time, so that nothing else runs beside a timing; the tests run after them. Every policy fills
a problem before the next problem is begun, and who goes first changes from problem to problem. No length is given.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from diffcode.config import DenoiseOptions
from diffcode.errors import BadOption, DiffcodeError, UnwritableFile
from diffcode.evals import checker, machine, rows, table
from diffcode.evals.problems import Problem, load, sample
from diffcode.evals.rows import Row

if TYPE_CHECKING:
    from diffcode.infill import Infiller

INTERRUPTED = 130


@dataclass(frozen=True)
class Settings:
    """How each problem is filled."""

    policies: tuple[str, ...]
    threshold: float | None = None
    newline_stop: bool = False
    max_tokens: int = 256

    def options(self, policy: str) -> DenoiseOptions:
        """What `policy`, a name with or without settings of its own, stands for."""
        return DenoiseOptions.parse(policy, threshold=self.threshold, max_tokens=self.max_tokens)

    def order(self, index: int) -> tuple[str, ...]:
        """The policies for problem number `index`: each of them goes first equally often."""
        turn = index % len(self.policies)
        return self.policies[turn:] + self.policies[:turn]


def fill_one(infiller: "Infiller", problem: Problem, policy: str, settings: Settings) -> Row:
    """One problem with one policy."""
    hole = len(problem.prompt)
    fill = infiller.fill_with(
        problem.prompt + problem.suffix,
        [(hole, hole)],
        settings.options(policy),
        stop="\n" if settings.newline_stop else None,
    )
    return rows.row_of(problem, policy, fill, settings.newline_stop)


def warm_up(infiller: "Infiller", settings: Settings) -> None:
    """A short fill with each policy, so that no measured one pays for what is made at first use."""
    text = "def twice(number):\n    return \n"
    for policy in settings.policies:
        infiller.fill_with(text, [(len(text) - 1,) * 2], replace(settings.options(policy), max_tokens=8))


def fill_all(infiller: "Infiller", problems: Sequence[Problem], settings: Settings) -> Iterator[Row]:
    """Every problem with every policy, not judged yet."""
    for index, problem in enumerate(problems):
        for policy in settings.order(index):
            yield fill_one(infiller, problem, policy, settings)


def collect(fills: Iterable[Row], out: Path | None) -> tuple[list[Row], bool]:
    """The rows as they come, each written to `out` at once, and whether Ctrl-C cut them short."""
    done: list[Row] = []
    with ExitStack() as stack:
        file = stack.enter_context(out.open("w", encoding="utf-8")) if out else None
        try:
            for row in fills:
                done.append(row)
                if file:
                    rows.append(row, file)
        except KeyboardInterrupt:
            return done, True
    return done, False


def judge(done: Sequence[Row], problems: Sequence[Problem], isolation: checker.Isolation) -> Iterator[Row]:
    """The rows with their tests' verdicts, in the same order."""
    by_id = {problem.task_id: problem for problem in problems}
    programs = [by_id[row.task_id].program(row.completion) for row in done]
    for row, verdict in zip(done, checker.check_all(programs, isolation=isolation), strict=True):
        yield row.judged(verdict)


def progress() -> Progress:
    """Bars with the time left, on standard error: standard output is the table's."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))


def evaluate(
    infiller: "Infiller",
    problems: Sequence[Problem],
    settings: Settings,
    isolation: checker.Isolation,
    out: Path | None,
) -> tuple[tuple[Row, ...], bool]:
    """Fill and judge; the rows of the problems that every policy filled, and whether Ctrl-C cut them short."""
    with progress() as bars:
        warm_up(infiller, settings)
        total = len(problems) * len(settings.policies)
        done, cut = collect(bars.track(fill_all(infiller, problems, settings), total, description="filling"), out)
        judged = list(bars.track(judge(done, problems, isolation), len(done), description="testing"))
    if out:
        rows.save(judged, out)
    return rows.complete(judged, settings.policies), cut


def show(done: Sequence[Row], title: str, footer: str, as_markdown: bool) -> None:
    """The table on standard output."""
    if as_markdown:
        click.echo(f"**{title}**\n\n{table.markdown(done)}\n\n{footer}\n")
        return
    summaries, comparisons = table.report(done)
    grid = Table(*table.HEADERS, title=title, title_justify="left")
    for summary in summaries:
        grid.add_row(*summary.cells())
    # A fixed width where nobody looks: a pipe's 80 columns would cut the numbers.
    Console(width=None if sys.stdout.isatty() else 160).print(grid)
    click.echo("\n".join([*(comparison.sentence() for comparison in comparisons), footer]))


def split_policies(_context: click.Context, _parameter: click.Parameter, names: str) -> tuple[str, ...]:
    """The comma-separated policies, such as `verified:ngrams=0`, each known and given once."""
    policies = tuple(name.strip() for name in names.split(","))
    try:
        for name in policies:
            DenoiseOptions.parse(name)
    except BadOption as error:
        raise click.BadParameter(str(error)) from None
    if len(set(policies)) < len(policies):
        raise click.BadParameter("a policy is named twice; name each once.")
    return policies


def title_of(data: Path, done: Sequence[Row], seed: int | None, settings: Settings) -> str:
    """What was measured, in one line."""
    problems = len({row.task_id for row in done})
    parts = [
        data.name.partition(".")[0],
        f"{problems} problems",
        f"shuffle seed {seed}" if seed is not None else "in order",
    ]
    parts.append("stop at the newline" if settings.newline_stop else "no stop string")
    if settings.threshold is not None:
        parts.append(f"threshold {settings.threshold:g}")
    return ", ".join([*parts, f"at most {settings.max_tokens} tokens", "no oracle length"])


def prepare_out(out: Path | None) -> None:
    """Fail before the long part, not after it."""
    if out is None:
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.touch()
    except OSError as error:
        raise UnwritableFile(f"{out} cannot be written ({error}); give another --out.") from error


@click.command(help="Measure policies on a HumanEval-Infilling file; every row runs in the same process.")
@click.argument("data", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N problems after the shuffle.")
@click.option("--shuffle-seed", type=int, default=0, show_default=True, help="Seed of the problems' order.")
@click.option(
    "--policies", default="leftmost,verified", show_default=True, callback=split_policies, metavar="A,B:SETTING=N"
)
@click.option("--threshold", type=float, help="The policies' threshold; each has its own default.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=256, show_default=True, help="Longest fill.")
@click.option(
    "--newline-stop/--no-newline-stop", default=False, show_default=True, help="End a fill at its first line."
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write a row a fill to this .jsonl file.")
@click.option("--model", help="A GGUF file or a Hugging Face folder instead of the default model.")
@click.option("--adapter", help="An adapter folder instead of the default one.")
@click.option("--device", help="torch device, such as cpu or cuda.")
@click.option("--dtype", help="Number format of the weights, such as bfloat16.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the table as markdown.")
def main(
    data: Path,
    limit: int | None,
    shuffle_seed: int,
    policies: tuple[str, ...],
    threshold: float | None,
    max_tokens: int,
    newline_stop: bool,
    out: Path | None,
    as_markdown: bool,
    model: str | None,
    adapter: str | None,
    device: str | None,
    dtype: str | None,
) -> None:
    settings = Settings(policies, threshold, newline_stop, max_tokens)
    try:
        problems = sample(load(data), limit, shuffle_seed)
        prepare_out(out)
        isolation, busy = checker.best_isolation(), os.getloadavg()[0]
        infiller = load_infiller(model, adapter=adapter, device=device, dtype=dtype)
        done, cut = evaluate(infiller, problems, settings, isolation, out)
    except DiffcodeError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    if done:
        footer = machine.describe(device, dtype, isolation.name, busy)
        show(done, title_of(data, done, shuffle_seed, settings), footer, as_markdown)
    if cut:
        click.echo("Stopped early: only problems that every policy had filled are counted.", err=True)
        sys.exit(INTERRUPTED)


def load_infiller(model: str | None, *, adapter: str | None, device: str | None, dtype: str | None) -> "Infiller":
    """The engine; imported here because it loads torch, which `--help` does not need."""
    from diffcode.infill import Infiller

    return Infiller.from_pretrained(model, adapter=adapter, device=device, dtype=dtype)


if __name__ == "__main__":
    main()
