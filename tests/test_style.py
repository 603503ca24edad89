"""The house rules that no linter checks: short files, short functions, a word on what each module is for."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("diffcode", "kernels", "evals", "lsp", "training", "tests")
FILE_LINES = 400
FUNCTION_LINES = 70


def sources() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def long_functions(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES:
                yield f"{node.name} has {lines} lines"


def complaints(text: str, name: str) -> list[str]:
    """What the house rules have against a module."""
    tree = ast.parse(text)
    found = list(long_functions(tree))
    if (lines := len(text.splitlines())) > FILE_LINES:
        found.append(f"{lines} lines")
    if ast.get_docstring(tree) is None and (text.strip() or name != "__init__.py"):
        found.append("no docstring")
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_module_keeps_the_house_rules(path: Path):
    assert complaints(path.read_text(encoding="utf-8"), path.name) == []


def test_every_rule_is_noticed():
    body = "    pass\n" * FUNCTION_LINES
    assert complaints(f"def far():\n{body}", "far.py") == [f"far has {FUNCTION_LINES + 1} lines", "no docstring"]
    assert complaints('"""Long."""\n' + "\n" * FILE_LINES, "long.py") == [f"{FILE_LINES + 1} lines"]
    assert complaints("", "__init__.py") == []
    assert complaints("", "empty.py") == ["no docstring"]
