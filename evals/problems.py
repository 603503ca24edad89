"""Infilling problems: the official HumanEval-Infilling files, read and checked row by row."""

import gzip
import json
import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffcode.errors import UnreadableFile

# Name of a field here -> its name in the official files.
FIELDS = {
    "task_id": "task_id",
    "prompt": "prompt",
    "suffix": "suffix",
    "solution": "canonical_solution",
    "test": "test",
    "entry_point": "entry_point",
}


@dataclass(frozen=True)
class Problem:
    """Code with a hole between `prompt` and `suffix`, and the test that the filled code must pass."""

    task_id: str
    prompt: str
    suffix: str
    solution: str
    test: str
    entry_point: str

    def program(self, completion: str) -> str:
        """The filled code followed by its test, ready to run."""
        return f"{self.prompt}{completion}{self.suffix}\n{self.test}\ncheck({self.entry_point})"


def load(path: Path) -> tuple[Problem, ...]:
    """Every problem of a .jsonl or .jsonl.gz file, in the file's order."""
    problems = tuple(_problem(line, f"{path}, row {number}") for number, line in _lines(path) if line.strip())
    if not problems:
        raise UnreadableFile(f"{path} holds no problem; give a HumanEval-Infilling .jsonl or .jsonl.gz file.")
    _refuse_twins(problems, path)
    return problems


def sample(problems: Sequence[Problem], limit: int | None, seed: int | None) -> tuple[Problem, ...]:
    """The first `limit` problems after a seeded shuffle; seed None keeps the order, limit None keeps all."""
    order = list(problems)
    if seed is not None:
        random.Random(seed).shuffle(order)
    return tuple(order[:limit])


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    except OSError as error:
        raise UnreadableFile(f"{path} cannot be read ({error}); check the path and download the file again.") from error
    except (EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UnreadableFile(f"{path} is damaged ({error}); download it again.") from error
    # Not splitlines(): JSON strings may hold U+2028 and friends as they are.
    return enumerate(text.split("\n"), start=1)


def _problem(line: str, where: str) -> Problem:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UnreadableFile(f"{where} is not JSON ({error}); download the file again.") from error
    if not isinstance(row, dict):
        raise UnreadableFile(f"{where} is not a JSON object; download the file again.")
    if wrong := [name for name in FIELDS.values() if not isinstance(row.get(name), str)]:
        raise UnreadableFile(f"{where} has no text for {', '.join(wrong)}; give a HumanEval-Infilling file.")
    return Problem(**{field: row[name] for field, name in FIELDS.items()})


def _refuse_twins(problems: Sequence[Problem], path: Path) -> None:
    seen: set[str] = set()
    for problem in problems:
        if problem.task_id in seen:
            raise UnreadableFile(f"{path} holds {problem.task_id} twice; download the file again.")
        seen.add(problem.task_id)
