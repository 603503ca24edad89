"""The made-up model in place of the real one, a file with holes, a terminal."""

from pathlib import Path

import pytest
from fake_infiller import TEXT, FakeInfiller

from diffcode import cli, hub


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeInfiller:
    fake = FakeInfiller()

    def load(options: cli.FillOptions, report: hub.Report) -> FakeInfiller:
        fake.loads.append(options)
        report(hub.Progress("hub", 1, 2))
        return fake

    monkeypatch.setattr(cli, "load_infiller", load)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    return fake


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "code.py"
    path.write_text(TEXT)
    return path


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
