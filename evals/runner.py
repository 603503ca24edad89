"""A run from problems to judged rows.

Fills come first, one at a time, so that nothing of ours runs beside a timing; the tests run after them. Every decoder
fills a problem before the next problem is begun, and who goes first changes from problem to problem. No length is
given to anyone.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from diffcode.evals import sandbox
from diffcode.evals.decoders import Decoder, Filled, Rules
from diffcode.evals.machine import Bystanders, processors
from diffcode.evals.problems import Problem
from diffcode.evals.results import Folder, Row
from diffcode.soundness import parses

if TYPE_CHECKING:
    from rich.progress import Progress

Key = tuple[str, str, int]


def fill_all(
    decoders: Sequence[Decoder], problems: Sequence[Problem], rules: Rules, samples: int, done: Collection[Key] = ()
) -> Iterator[Row]:
    """Every problem with every decoder, not judged yet, but those that are `done`; a warm-up comes before."""
    warm_up(decoders, problems[0], rules)
    for index, problem in enumerate(problems):
        for sample in range(samples):
            for decoder in in_turn(decoders, index + sample):
                if (problem.task_id, decoder.name, sample) not in done:
                    yield fill_one(decoder, problem, rules, sample)


def in_turn(decoders: Sequence[Decoder], turn: int) -> list[Decoder]:
    """The decoders, another one first at every turn."""
    first = turn % len(decoders)
    return [*decoders[first:], *decoders[:first]]


def warm_up(decoders: Sequence[Decoder], problem: Problem, rules: Rules) -> None:
    """A short fill with each decoder, so that no measured one pays for what is made at first use."""
    for decoder in decoders:
        decoder.fill(problem, replace(rules, max_tokens=min(8, rules.max_tokens)), 0)


def fill_one(decoder: Decoder, problem: Problem, rules: Rules, sample: int) -> Row:
    """One problem with one decoder."""
    bystanders = Bystanders()
    filled = decoder.fill(problem, rules, sample)
    others = bystanders.others() if decoder.in_process else None
    filled = replace(filled, completions=line_ends(problem, filled, rules))
    return Row(
        task_id=problem.task_id,
        decoder=decoder.name,
        sample=sample,
        exact=filled.completions == problem.solutions,
        syntax=parses(problem.filled(filled.completions)),
        others=others,
        **asdict(filled),
    )


def line_ends(problem: Problem, filled: Filled, rules: Rules) -> tuple[str, ...]:
    """The completions, whole lines with the line end that the newline stop leaves out."""
    if "\n" not in rules.stops:
        return filled.completions
    whole = [not before or before.endswith("\n") for before in problem.fixed[:-1]]
    pairs = zip(filled.completions, whole, strict=True)
    return tuple(text.removesuffix("\n") + "\n" if line else text for text, line in pairs)


def take(coming: Iterable[Row], keep: Callable[[Row], None]) -> bool:
    """Keep each row as it comes; whether Ctrl-C ended it early."""
    try:
        for row in coming:
            keep(row)
    except KeyboardInterrupt:
        return True
    return False


def judge(rows: Sequence[Row], problems: Sequence[Problem], isolation: sandbox.Isolation) -> Iterator[Row]:
    """The rows with their tests' verdicts, in order. Equal completions are run once and get one verdict."""
    by_id = {problem.task_id: problem for problem in problems}
    cases = list(dict.fromkeys((row.task_id, row.completions) for row in rows))
    programs = [_program(by_id[task_id], completions) for task_id, completions in cases]
    coming = zip(cases, sandbox.check_all(programs, isolation=isolation, workers=processors()), strict=True)
    verdicts: dict[tuple[str, tuple[str, ...]], str] = {}
    for row in rows:
        while (row.task_id, row.completions) not in verdicts:  # cases have the order of the rows
            case, verdict = next(coming)
            verdicts[case] = verdict
        yield row.judged(verdicts[row.task_id, row.completions])


def _program(problem: Problem, completions: Sequence[str]) -> sandbox.Program:
    return sandbox.Program(problem.filled(completions), problem.test, problem.entry_point)


def evaluate(
    decoders: Sequence[Decoder],
    problems: Sequence[Problem],
    rules: Rules,
    samples: int,
    isolation: sandbox.Isolation,
    folder: Folder,
    before: Sequence[Row] = (),
) -> tuple[tuple[Row, ...], bool]:
    """Fill what is missing, then judge what is not judged; all rows, and whether Ctrl-C cut them short."""
    rows = {row.key: row for row in before}
    missing = len(problems) * samples * len(decoders) - len(rows)

    def keep(row: Row) -> None:
        folder.append(row)
        rows[row.key] = row

    with progress() as bars:
        fills = fill_all(decoders, problems, rules, samples, frozenset(rows)) if missing else ()
        cut = take(bars.track(fills, missing, description="filling"), keep)
        waiting = [row for row in rows.values() if row.passed is None]
        verdicts = judge(waiting, problems, isolation)
        cut |= take(bars.track(verdicts, len(waiting), description="testing"), lambda row: rows.update({row.key: row}))
    folder.save_rows(rows.values())
    return tuple(rows.values()), cut


def progress() -> "Progress":
    """Bars with the time left, on standard error: standard output is the table's."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))
