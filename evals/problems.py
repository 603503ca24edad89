"""What is measured: code with holes and a test; and the files that hold such problems, read and checked row by row."""

import ast
import gzip
import hashlib
import json
import random
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from diffcode.errors import BadOption, DiffcodeError, UnreadableFile

# Fields of a row of the official files; HumanEval itself has no suffix.
FIELDS = ("task_id", "prompt", "suffix", "canonical_solution", "test", "entry_point")


class DataUnavailable(DiffcodeError):
    """A task's problems cannot be had on this machine."""

    exit_code = 5


@dataclass(frozen=True, slots=True)
class Problem:
    """Code with holes, and the test that the filled code must pass."""

    task_id: str
    fixed: tuple[str, ...]  # what stands before, between and behind the holes: one text more than there are holes
    solutions: tuple[str, ...]  # what stood in each hole
    test: str  # defines check(candidate)
    entry_point: str

    @property
    def text(self) -> str:
        """The code with nothing in its holes."""
        return "".join(self.fixed)

    @property
    def holes(self) -> list[tuple[int, int]]:
        """Where the holes are in `text`: empty spans of characters."""
        at, places = 0, []
        for piece in self.fixed[:-1]:
            at += len(piece)
            places.append((at, at))
        return places

    def filled(self, completions: Sequence[str]) -> str:
        """The code with one completion in each hole."""
        parts = [part for pair in zip(self.fixed, (*completions, ""), strict=True) for part in pair]
        return "".join(parts)


def problem_of(row: Mapping[str, Any], where: str) -> Problem:
    """A row of the official files as a problem; `where` names it in the error."""
    row = {"suffix": "", **row}
    if wrong := [name for name in FIELDS if not isinstance(row.get(name), str)]:
        raise UnreadableFile(f"{where} has no text for {', '.join(wrong)}: give an official HumanEval file")
    fixed, solution = (row["prompt"], row["suffix"]), row["canonical_solution"]
    found = Problem(row["task_id"], fixed, (solution,), row["test"], row["entry_point"])
    # What no program can pass would count against all decoders alike, and nobody would see it.
    if found.entry_point not in defined(found.filled(found.solutions)):
        raise UnreadableFile(f"{where} is damaged, its solution defines no {found.entry_point!r}: fetch the file again")
    if "check" not in defined(found.test):
        raise UnreadableFile(f"{where} is damaged, its test defines no check(candidate): fetch the file again")
    return found


@cache  # thousands of rows are made of 164 programs
def defined(code: str) -> frozenset[str]:
    """The functions and classes that the code defines; none if Python cannot read it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            nodes = ast.walk(ast.parse(code))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return frozenset()
    return frozenset(n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef))


def load(path: Path) -> tuple[Problem, ...]:
    """Every problem of an official .jsonl or .jsonl.gz file, in the file's order."""
    return checked((problem_of(row, where) for row, where in rows_of(path)), str(path))


def checked(problems: Iterable[Problem], source: str) -> tuple[Problem, ...]:
    """The problems, if there are any and no two have the same id."""
    found = tuple(problems)
    if not found:
        raise UnreadableFile(f"{source} holds no problem: give an official .jsonl or .jsonl.gz file")
    seen: set[str] = set()
    for problem in found:
        if problem.task_id in seen:
            raise UnreadableFile(f"{source} holds {problem.task_id} twice: fetch it again")
        seen.add(problem.task_id)
    return found


def rows_of(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The JSON objects of a .jsonl or .jsonl.gz file, each with its place in words."""
    for number, line in _lines(path):
        if not line.strip():
            continue
        where = f"{path}, row {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UnreadableFile(f"{where} is not JSON ({error}): fetch the file again") from error
        if not isinstance(row, dict):
            raise UnreadableFile(f"{where} is not a JSON object: fetch the file again")
        yield row, where


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise UnreadableFile(f"{path} is damaged ({error}): fetch it again") from error
    except OSError as error:
        raise UnreadableFile(f"{path} cannot be read ({error}): check the path") from error
    # Not splitlines(): JSON strings may hold U+2028 and friends as they are.
    return enumerate(text.split("\n"), start=1)


def fingerprint(problems: Iterable[Problem]) -> str:
    """A hash of everything in the problems, in order."""
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(json.dumps(astuple(problem)).encode() + b"\n")
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several equal parts of a run, counted from 1."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise BadOption(f"shard {text!r}: write I/N, such as 1/4 for the first of four")
        return cls(int(index), int(count))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def select(
    problems: Sequence[Problem], limit: int | None, shuffle_seed: int | None, shard: Shard | None = None
) -> tuple[Problem, ...]:
    """The first `limit` problems after a seeded shuffle (None: in order), and of those every n-th for a shard."""
    order = list(problems)
    if shuffle_seed is not None:
        random.Random(shuffle_seed).shuffle(order)
    shard = shard or Shard()
    return tuple(order[:limit][shard.index - 1 :: shard.count])
