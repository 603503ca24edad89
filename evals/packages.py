"""Holes in real packages: a line is taken out, the language server's suggestion accepted, the package's own tests run.

    python -m diffcode.evals.packages --holes 40 --out runs/packages toolz cachetools inflection

Each name is a package on the package index whose source distribution carries its tests. A line counts as a hole only
where the tests fail without it. Packages are fetched and their tests run in a folder of their own, with this Python.
"""

import itertools
import json
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from diffcode.errors import UnreadableFile
from diffcode.evals.cuts import Line, statements, without_line
from diffcode.evals.editor import INVOKED, EditorProcess, applied, items, uri_of

LONGEST = 120.0  # seconds of a package's tests
FOLDERS_WITHOUT = {"test", "tests", "doc", "docs", "example", "examples", "benchmarks"}
WITHOUT = FOLDERS_WITHOUT | {"setup.py", "conftest.py", "_version.py"}


Where: TypeAlias = tuple[str, str, int]  # package, file, line


@dataclass(frozen=True, slots=True)
class Outcome:
    """A hole and what became of it."""

    package: str
    file: str
    line: int
    solution: str
    suggested: str | None  # None: the server offered nothing
    passed: bool
    seconds: float  # until the suggestion was there

    @property
    def where(self) -> Where:
        return self.package, self.file, self.line

    @property
    def exact(self) -> bool:
        return self.suggested is not None and self.suggested.strip() == self.solution.strip()


class Package:
    """An unpacked source distribution with its tests."""

    def __init__(self, name: str, folder: Path):
        self.name, self.root = name, _fetched(name, folder)

    def files(self) -> list[Path]:
        every = sorted(self.root.rglob("*.py"))
        return [p for p in every if not set(p.relative_to(self.root).parts) & WITHOUT and "test" not in p.name]

    def passes(self) -> bool:
        """Whether its tests pass as it is now; bytecode is not kept, for edits come faster than a second."""
        command = [sys.executable, "-B", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly"]
        path = ":".join(str(p) for p in (self.root / "src", self.root) if p.is_dir())
        environment = {"PYTHONPATH": path, "PATH": "/usr/bin:/bin", "HOME": str(self.root), "LANG": "C.UTF-8"}
        try:
            done = subprocess.run(
                command, cwd=self.root, env=environment, capture_output=True, timeout=LONGEST, check=False
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def holes(self, rng: random.Random, known: Collection[Where] = ()) -> Iterator[tuple[Path, Line]]:
        """Every line without which the tests fail, in any order, each with its file, which lacks nothing."""
        sources = [(path, path.read_text(encoding="utf8")) for path in self.files()]
        every = [(path, source, number) for path, source in sources for number in statements(source)]
        rng.shuffle(every)
        for path, source, number in every:
            line = without_line(source, number)
            if self.where(path, line) in known:
                continue
            if not self.judge(path, line.holding(f"{line.indent}pass")):
                yield path, line

    def where(self, path: Path, line: Line) -> Where:
        return self.name, str(path.relative_to(self.root)), line.text.count("\n", 0, line.at) + 1

    def judge(self, path: Path, text: str) -> bool:
        """Whether the tests pass with `text` in the file, which is put back."""
        source = path.read_text(encoding="utf8")
        try:
            path.write_text(text, encoding="utf8")
            return self.passes()
        finally:
            path.write_text(source, encoding="utf8")


def _fetched(name: str, folder: Path) -> Path:
    """The unpacked source distribution. Raises UnreadableFile."""
    target = folder / name
    shutil.rmtree(target, ignore_errors=True)
    options = ["-q", "--no-deps", "--no-binary", ":all:", "-d", str(target)]
    command = [sys.executable, "-m", "pip", "download", *options, name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(target.glob("*.tar.gz"))
    if not archives:
        said = (done.stderr.strip().splitlines() or ["nothing was fetched"])[-1]
        raise UnreadableFile(f"{name} has no source distribution here ({said}): name another package")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(target, filter="data")
    return next(path for path in target.iterdir() if path.is_dir())


def suggestion(editor: EditorProcess, path: Path, line: Line) -> tuple[str | None, str, float]:
    """(what was suggested, the file with it, seconds) at the line's place, the cursor behind its indentation."""
    at, text = len(line.indent), line.holding(line.indent)
    uri = uri_of(path)
    editor.open(uri, text)
    reply = editor.end(editor.begin_suggestion(uri, line.text.count("\n", 0, line.at), at, INVOKED))
    editor.close(uri)
    found = items(reply)
    if not found:
        return None, text, reply.seconds
    return str(found[0]["insertText"]), applied(text, found[0]), reply.seconds


@click.command(help=__doc__)
@click.argument("names", nargs=-1, required=True)
@click.option("--holes", type=click.IntRange(min=1), default=40, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder for the packages and results.jsonl, which is gone on with where it is there.",
)
def main(names: tuple[str, ...], holes: int, seed: int, out: Path) -> None:
    console, rng = Console(stderr=True), random.Random(seed)
    out.mkdir(parents=True, exist_ok=True)
    rows = out / "results.jsonl"
    known = rows.read_text(encoding="utf8").splitlines() if rows.exists() else []
    outcomes = [Outcome(**json.loads(row)) for row in known]
    packages = []
    for name in names:
        package = Package(name, out)
        if package.passes():
            packages.append(package)
        else:
            console.print(f"{name}: left out, its own tests do not pass here as they are")
    if not packages:
        raise click.ClickException("no package's tests pass here: name others")
    with EditorProcess() as editor, Progress(console=console) as progress, rows.open("a", encoding="utf8") as file:
        task = progress.add_task("holes", total=holes, completed=len(outcomes))
        there = {outcome.where for outcome in outcomes}
        for hole in itertools.islice(in_turn(packages, rng, there), max(0, holes - len(outcomes))):
            outcomes.append(_outcome(editor, *hole))
            print(json.dumps(asdict(outcomes[-1])), file=file, flush=True)
            progress.advance(task)
    Console(width=None if Console().is_terminal else 110).print(table(outcomes))


def in_turn(
    packages: list[Package], rng: random.Random, known: Collection[Where] = ()
) -> Iterator[tuple[Package, Path, Line]]:
    """A hole of each package, then another of each, until there are none."""
    for round_ in itertools.zip_longest(*(package.holes(rng, known) for package in packages)):
        yield from ((package, *hole) for package, hole in zip(packages, round_, strict=True) if hole is not None)


def _outcome(editor: EditorProcess, package: Package, path: Path, line: Line) -> Outcome:
    suggested, text, seconds = suggestion(editor, path, line)
    passed = suggested is not None and package.judge(path, text)
    return Outcome(*package.where(path, line), line.solution, suggested, passed, seconds)


def table(outcomes: list[Outcome]) -> Table:
    grid = Table("package", "holes", "tests pass", "exact", "nothing offered")
    for name in [*dict.fromkeys(o.package for o in outcomes), "all"]:
        mine = [o for o in outcomes if name in (o.package, "all")]
        counts = (sum(o.passed for o in mine), sum(o.exact for o in mine), sum(o.suggested is None for o in mine))
        grid.add_row(name, str(len(mine)), *map(str, counts))
    return grid


if __name__ == "__main__":
    main()
