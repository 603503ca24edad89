"""The tasks by name, and where each one's problems come from."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from diffcode.errors import BadOption
from diffcode.evals import derive, multihole, problems
from diffcode.evals.problems import DataUnavailable, Problem

# Where a function that stands at the end of a file is over: Chen et al. 2021, section 2.
FUNCTION_ENDS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
HUB = "loubnabnl/humaneval_infilling"


@dataclass(frozen=True, slots=True)
class Task:
    """A named set of problems."""

    name: str
    about: str
    ids: str  # how the ids of its official problems begin
    make: Callable[[], Iterable[Problem]]
    stops: tuple[str, ...] = ()  # strings before which every decoder's fill ends
    on_hub: str | None = None  # the name there, of a task that is not made here


def _from_hub(name: str) -> Iterator[Problem]:
    """An official file that cannot be derived, from a mirror on the model hub."""
    instead = "name the official file with --data"
    try:
        import datasets
    except ImportError:
        raise DataUnavailable(f"{name} is read by datasets: run pip install 'diffcode[eval]', or {instead}") from None
    # The hub's own conversion to parquet: nothing of the repository is executed.
    files = f"hf://datasets/{HUB}@refs%2Fconvert%2Fparquet/{name}/test/*.parquet"
    try:
        rows = datasets.load_dataset("parquet", data_files={"test": files}, split="test")
    except Exception as error:  # whatever goes wrong on the way to a hub
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataUnavailable(f"{name} cannot be had from the hub ({what}): {instead}") from error
    return (problems.problem_of(row, f"{name}, row {number}") for number, row in enumerate(rows, start=1))


def _random_spans(name: str, about: str, ids: str) -> Task:
    on_hub = f"HumanEval-{ids}"
    return Task(name, about, f"{ids}/", lambda: _from_hub(on_hub), on_hub=on_hub)


TASKS = {
    task.name: task
    for task in (
        Task(
            "humaneval", "write a function from its head and docstring", "HumanEval/", derive.human_eval, FUNCTION_ENDS
        ),
        Task("infill-single", "one line of a solution", "SingleLineInfilling/", derive.single_line),
        Task("infill-multi", "one or more lines in a row", "MultiLineInfilling/", derive.multi_line),
        _random_spans("infill-random", "a random span, ten a solution", "RandomSpanInfilling"),
        _random_spans("infill-random-light", "a random span, one a solution", "RandomSpanInfillingLight"),
        Task("multihole", "2 to 4 spans that depend on each other", "MultiHole/", multihole.make),
    )
}


def task_of(name: str) -> Task:
    """The task of that name. Raises BadOption."""
    if name not in TASKS:
        raise BadOption(f"there is no task {name!r}: choose one of {', '.join(TASKS)}")
    return TASKS[name]


def load(name: str, data: Path | None = None) -> tuple[Problem, ...]:
    """All problems of a task in their official order; `data` is a file to read them from instead."""
    if data is not None and name == "multihole":
        raise BadOption("multihole is made from HumanEval: leave --data out")
    task = task_of(name)
    return _own(task, data) if data else problems.checked(task.make(), name)


def _own(task: Task, data: Path) -> tuple[Problem, ...]:
    """The file's problems, which may be anybody's but not another task's: its numbers would go by a wrong name."""
    found = problems.load(data)
    for problem in found:
        for other in TASKS.values():
            if other is not task and problem.task_id.startswith(other.ids):
                where = f"{data} holds {problem.task_id}"
                raise BadOption(f"{where}, which is of {other.name}, not {task.name}: name that task, or another file")
    return found


def known_texts() -> Iterator[tuple[str, str]]:
    """(task id, prompt + solution + tests) of every HumanEval problem: what training data must not contain.

    All tasks here are made of these problems, the random spans too.
    """
    for problem in derive.human_eval():
        yield problem.task_id, problem.filled(problem.solutions) + problem.test
