"""What a run leaves in its folder: run.json says what was run, results.jsonl has one row a problem, decoder and sample.

A row is on disk before the next fill begins. Verdicts come later and replace the file at once.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from diffcode.errors import BadOption, UnreadableFile, UnwritableFile
from diffcode.evals.problems import Shard
from diffcode.evals.sandbox import PASSED

VERSION = 1
RUN, RESULTS, SUMMARY, REPORT = "run.json", "results.jsonl", "summary.json", "report.html"


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides a run's results, and what its report must say."""

    task: str
    decoders: tuple[str, ...] = ("leftmost", "verified")
    newline_stop: bool = False
    max_tokens: int = 256
    samples: int = 1
    temperature: float = 0.0
    seed: int = 0
    limit: int | None = None
    shuffle_seed: int | None = 0
    shard: str | None = None
    context: int = 1024
    plain: bool = False
    data: str | None = None
    model: str | None = None
    adapter: str | None = None
    infill: str | None = None
    device: str | None = None
    dtype: str | None = None

    def differences(self, other: "Settings") -> list[str]:
        """In words, what is not the same."""
        mine, theirs = (asdict(replace(one, data=None)) for one in (self, other))  # the fingerprint tells of the data
        return [f"{name} {mine[name]}, not {theirs[name]}" for name in mine if mine[name] != theirs[name]]


@dataclass(frozen=True, slots=True)
class Row:
    """One problem filled once by one decoder. The last two are None until the test has run."""

    task_id: str
    decoder: str
    sample: int
    completions: tuple[str, ...]
    finished: tuple[str, ...]
    exact: bool  # every hole holds what it held before
    syntax: bool  # the filled code parses
    tokens: int
    forwards: int | None
    seconds: float
    context_seconds: float | None
    span_proposed: int
    span_accepted: int
    ngram_proposed: int
    ngram_accepted: int
    others: float | None  # processors that other programs kept busy during the fill
    passed: bool | None = None
    verdict: str | None = None

    @property
    def key(self) -> tuple[str, str, int]:
        return self.task_id, self.decoder, self.sample

    def judged(self, verdict: str) -> "Row":
        return replace(self, passed=verdict == PASSED, verdict=verdict)


@dataclass(frozen=True, slots=True)
class Run:
    """What a folder's rows are rows of."""

    settings: Settings
    fingerprint: str  # of all problems of the task
    available: int  # how many those are
    problems: tuple[str, ...]  # ids of this run's, in order
    sittings: tuple[dict[str, str], ...]  # machine and time, one for each time that the run was begun or resumed

    def continued(self, sitting: dict[str, str]) -> "Run":
        return replace(self, sittings=(*self.sittings, sitting))

    @property
    def keys(self) -> list[tuple[str, str, int]]:
        """Every row that a finished run has."""
        samples, decoders = range(self.settings.samples), self.settings.decoders
        return [(task, name, sample) for task in self.problems for sample in samples for name in decoders]


class Folder:
    """A run's files."""

    def __init__(self, path: Path):
        self.path = path

    def prepare(self) -> tuple[Row, ...]:
        """Make the folder; it holds no rows yet. Raises BadOption where there is a run already, UnwritableFile."""
        if (self.path / RUN).exists() or (self.path / RESULTS).exists():
            raise BadOption(f"{self.path} already holds a run: add --resume, or give another --out")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # Fail before the long part, not after it.
            (self.path / f"{RUN}.part").touch()
            (self.path / f"{RUN}.part").unlink()
        except OSError as error:
            raise _unwritable(self.path, error) from error
        return ()

    def run(self) -> Run:
        """What was run here. Raises UnreadableFile."""
        path = self.path / RUN
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UnreadableFile(f"{self.path} holds no run: name a folder that eval wrote") from None
        except OSError as error:
            raise UnreadableFile(f"{path} cannot be read ({error}): name a folder that eval wrote") from error
        except ValueError as error:
            raise UnreadableFile(f"{path} is damaged ({error}): run it again with another --out") from error
        try:
            if data.pop("version") != VERSION:
                raise ValueError("of another version")
            settings = data.pop("settings")
            if wrong := [*_misfits(settings, Settings), *_misfits(data, Run)]:
                raise ValueError(f"of another kind: {', '.join(wrong)}")
            return Run(settings=Settings(**_tuples(settings)), **_tuples(data))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UnreadableFile(f"{path} is no run of this version of diffcode ({error}): run it again") from error

    def rows(self) -> tuple[Row, ...]:
        """The rows so far; a last line without its end was cut off in the middle and does not count."""
        path = self.path / RESULTS
        try:
            lines = path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise UnreadableFile(f"{path} cannot be read ({error}): name a folder that eval wrote") from error
        found = tuple(_row(line, f"{path}, row {number}") for number, line in enumerate(lines, start=1))
        if len({row.key for row in found}) < len(found):
            raise UnreadableFile(f"{path} holds a row twice: run it again with another --out")
        return found

    def append(self, row: Row) -> None:
        """Write one row so that it outlives whatever ends this run."""
        try:
            with (self.path / RESULTS).open("a", encoding="utf-8") as file:
                file.write(_line(row))
        except OSError as error:
            raise _unwritable(self.path / RESULTS, error) from error

    def save_rows(self, rows: Iterable[Row]) -> None:
        self.replace(RESULTS, "".join(map(_line, rows)))

    def save_run(self, run: Run) -> None:
        self.replace(RUN, json.dumps({"version": VERSION, **asdict(run)}, indent=1) + "\n")

    def replace(self, name: str, text: str) -> None:
        """Put a whole file in the place of the old one at once."""
        path = self.path / name
        beside = path.with_name(f"{name}.part")
        try:
            beside.write_text(text, encoding="utf-8")
            os.replace(beside, path)
        except OSError as error:
            raise _unwritable(path, error) from error


def resumed(folder: Folder, run: Run) -> tuple[Run, tuple[Row, ...]]:
    """The run of a folder, which must be `run`, and the rows that it has. Raises BadOption, UnreadableFile."""
    before = folder.run()
    if differences := before.settings.differences(run.settings):
        raise BadOption(f"{folder.path} was begun with {', '.join(differences)}: give the same, or another --out")
    if (before.fingerprint, before.problems) != (run.fingerprint, run.problems):
        raise BadOption(f"{folder.path} was begun with other problems: the data has changed, give another --out")
    rows = folder.rows()
    known = set(run.keys)
    if strange := [row.key for row in rows if row.key not in known]:
        raise UnreadableFile(f"{folder.path / RESULTS} has a row of another run ({strange[0]}): give another --out")
    folder.save_rows(rows)  # without a half-written last line
    return before, rows


def merged(parts: Sequence[tuple[Folder, Run, tuple[Row, ...]]]) -> tuple[Run, tuple[Row, ...]]:
    """The run that these shards are the parts of, and its rows in order. Raises BadOption."""
    first_folder, first, _ = parts[0]
    found: dict[int, tuple[Run, tuple[Row, ...]]] = {}
    count = 0
    for folder, run, rows in parts:
        if run.settings.shard is None:
            raise BadOption(f"{folder.path} is no shard: name runs that were made with --shard")
        if differences := first.settings.differences(replace(run.settings, shard=first.settings.shard)):
            raise BadOption(f"{first_folder.path} and {folder.path} do not fit: {', '.join(differences)}")
        if run.fingerprint != first.fingerprint:
            raise BadOption(f"{first_folder.path} and {folder.path} do not fit: their data differ")
        shard = Shard.parse(run.settings.shard)
        if shard.index in found or (count and shard.count != count):
            raise BadOption(f"{folder.path} is shard {shard}, which does not fit the others: name each shard once")
        if len(rows) < len(run.keys) or any(row.passed is None for row in rows):
            raise BadOption(f"{folder.path} is not finished: go on with it first, with --resume")
        found[shard.index], count = (run, rows), shard.count
    if missing := [f"{index}/{count}" for index in range(1, count + 1) if index not in found]:
        raise BadOption(f"shards are missing: {', '.join(missing)}")
    problems = [""] * sum(len(run.problems) for run, _ in found.values())
    for index, (run, _) in found.items():
        problems[index - 1 :: count] = run.problems
    sittings = tuple(sitting for _, (run, _) in sorted(found.items()) for sitting in run.sittings)
    whole = replace(first, settings=replace(first.settings, shard=None), problems=tuple(problems), sittings=sittings)
    order = {key: at for at, key in enumerate(whole.keys)}
    rows = tuple(row for _, rows in found.values() for row in rows)
    return whole, tuple(sorted(rows, key=lambda row: order[row.key]))


def complete(rows: Sequence[Row], run: Run) -> tuple[Row, ...]:
    """The judged rows of those problems that every decoder has filled as often as asked: nothing else compares."""
    filled: dict[str, int] = {}
    for row in rows:
        filled[row.task_id] = filled.get(row.task_id, 0) + (row.passed is not None)
    wanted = run.settings.samples * len(run.settings.decoders)
    return tuple(row for row in rows if filled[row.task_id] == wanted)


def _row(line: bytes, where: str) -> Row:
    try:
        data = json.loads(line)
    except ValueError as error:
        raise UnreadableFile(f"{where} is damaged ({error}): run it again with another --out") from error
    if not isinstance(data, dict) or data.keys() != get_type_hints(Row).keys():
        raise UnreadableFile(f"{where} is no row of this version of diffcode: run it again with another --out")
    if wrong := _misfits(data, Row):
        raise UnreadableFile(f"{where} is damaged ({', '.join(wrong)}): run it again with another --out")
    return Row(**_tuples(data))


def _misfits(data: Mapping[str, Any], owner: type) -> list[str]:
    """The fields whose values, out of JSON, are not what the class holds."""
    return [name for name, kind in get_type_hints(owner).items() if name in data and not _is(data[name], kind)]


def _is(value: object, kind: Any) -> bool:
    if isinstance(kind, UnionType):
        return any(_is(value, one) for one in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, list) and all(_is(inner, get_args(kind)[0]) for inner in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(isinstance(inner, str) for inner in value.values())
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else kind)


def _line(row: Row) -> str:
    return json.dumps(asdict(row)) + "\n"


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}


def _unwritable(path: Path, error: OSError) -> UnwritableFile:
    return UnwritableFile(f"{path} cannot be written ({error}): give another --out")
