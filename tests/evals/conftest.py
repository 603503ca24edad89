"""What several measures of the language server are tried on."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffcode.evals.editor import EditorProcess

TESTS = Path(__file__).parent.parent


@pytest.fixture
def fake_server(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The command of a server that writes `2 * x` behind `return ` and `h` behind ` * `."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS / "lsp" / "node")]))
    return (sys.executable, str(TESTS / "lsp" / "node" / "fake_server.py"), "lsp")


@pytest.fixture
def editor(fake_server: tuple[str, ...]) -> Iterator[EditorProcess]:
    """An editor at the other end of it."""
    with EditorProcess(fake_server) as opened:
        yield opened
    assert opened.server.returncode == 0
