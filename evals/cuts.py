"""Pieces cut out of functions of Python's own library: code to compare settings on that is no benchmark."""

import ast
import random
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KINDS = ("line", "lines", "characters")
LINES = range(4, 26)  # of a function with a docstring
LEAST = 20  # characters of its body


@dataclass(frozen=True, slots=True)
class Line:
    """A text with a line, or another piece, missing."""

    text: str  # without the line
    at: int
    solution: str  # without its line end

    @property
    def row(self) -> int:
        """The missing line's number, from 0."""
        return self.text.count("\n", 0, self.at)

    @property
    def indent(self) -> str:
        return self.solution[: len(self.solution) - len(self.solution.lstrip())]

    def holding(self, written: str) -> str:
        """The text with a line of these words where the line was."""
        return f"{self.text[: self.at]}{written}\n{self.text[self.at :]}"


def library_cuts(kind: str, count: int, seed: int) -> list[Line]:
    """`count` pieces of as many files, the same for the same Python: single lines of whole files (without their line
    ends), or whole lines or any characters of a function's body, the function then being all that is shown."""
    rng = random.Random(seed)
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    rng.shuffle(files)
    found: list[Line] = []
    for path in files:
        if len(found) == count:
            break
        source = path.read_text(encoding="utf8", errors="ignore")
        one = _line(source, rng) if kind == "line" else _piece(source, rng, kind)
        found += [one] if one is not None else []
    return found


def library_lines(count: int, seed: int) -> list[Line]:
    """Single-line statements."""
    return library_cuts("line", count, seed)


def _line(source: str, rng: random.Random) -> Line | None:
    starts = list(statements(source))
    return without_line(source, rng.choice(starts)) if starts else None


def statements(source: str) -> Iterator[int]:
    """Numbers (from 1) of lines that are one whole simple statement inside a function."""
    for function in _functions(source):
        for node in ast.walk(function):
            if not isinstance(node, ast.Assign | ast.AugAssign | ast.Return | ast.Expr | ast.Raise):
                continue
            if node.lineno == node.end_lineno and not isinstance(getattr(node, "value", 0), ast.Constant):
                yield node.lineno


def without_line(source: str, number: int) -> Line:
    lines = source.split("\n")
    before = "".join(f"{line}\n" for line in lines[: number - 1])
    return Line(before + "\n".join(lines[number:]), len(before), lines[number - 1])


def _functions(source: str) -> list[ast.FunctionDef]:
    try:
        return [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)]
    except SyntaxError:
        return []


def _piece(source: str, rng: random.Random, kind: str) -> Line | None:
    """Of one function that says what it does: its docstring stays."""
    known = [f for f in _functions(source) if ast.get_docstring(f) and len(f.body) > 2]
    known = [f for f in known if (f.end_lineno or 0) - f.lineno in LINES]
    if not known:
        return None
    function = rng.choice(known)
    lines = source.splitlines(keepends=True)
    text = "".join(lines[function.lineno - 1 : function.end_lineno])
    body = sum(len(line) for line in lines[function.lineno - 1 : function.body[0].end_lineno])
    places = range(body, len(text) + (kind == "lines"))
    if kind == "lines":
        places = [at for at in places if text[at - 1] == "\n" or at == len(text)]  # type: ignore[assignment]
    if len(text) - body < LEAST or len(places) < 3:
        return None
    start, end = sorted(rng.sample(places, 2))
    return Line(text[:start] + text[end:], start, text[start:end])
