"""The language server under load, with the real model: cancels, storms, pings, memory, an editor that dies.

    python -m diffcode.evals.stress

Starts `diffcode lsp` as a process. In turn: edits a megabyte that is a single line; asks for suggestions and cancels
them while they are made, when another thread sends a request that needs no model every 50 ms; sends 2,000 requests at
once and cancels all but the last; types lines and asks after every key, which makes the question before void; kills an
editor whose suggestion is being made. Ends with 1 if anything is not as asked for.
"""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress, track
from rich.table import Table

from diffcode.evals.cuts import Line, library_lines
from diffcode.evals.editor import INVOKED, EditorProcess, Reply, items
from diffcode.evals.keystrokes import Pinger
from diffcode.evals.statistics import percentile

CANCELLED, VOID = -32800, -32801  # RequestCancelled, ContentModified
MEGABYTE, EDITS = 1_000_000, 300
FLAT = 16  # MB that the last four fifths of a long day may add
GONE = 10.0  # seconds that a server may outlive its editor before that counts as a failure
DYING_EDITOR = """
import time
from diffcode.evals.cuts import library_lines
from diffcode.evals.editor import EditorProcess
from diffcode.evals.stress import ask, opened
editor = EditorProcess()
line = library_lines(1, 3)[0]
editor.end(ask(editor, opened(editor, line, 0), line))
ask(editor, opened(editor, line, 1), line)
print(editor.server.pid, flush=True)
time.sleep(600)
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """A row of the table: what was counted or timed, and what was asked of it."""

    what: str
    n: int
    value: str
    goal: str
    met: bool


def opened(editor: EditorProcess, line: Line, number: int) -> str:
    """A document that lacks `line`, and its address."""
    uri = f"file:///stress/{number}.py"
    editor.open(uri, line.holding(line.indent))
    return uri


def ask(editor: EditorProcess, uri: str, line: Line) -> int:
    """Begin a suggestion where `line` is missing, as by hand: nothing is put off or kept back."""
    return editor.begin_suggestion(uri, line.row, len(line.indent), INVOKED)


def edits(editor: EditorProcess, rng: random.Random) -> Finding:
    """Edits of a megabyte that is a single line, each with a request behind it that needs no model."""
    uri, seconds = "file:///stress/megabyte.py", []
    editor.open(uri, "é" * MEGABYTE)
    editor.ask("$/ping", None)
    for number in range(EDITS):
        began = time.perf_counter()
        editor.insert(uri, 0, rng.randrange(MEGABYTE + number), "x")
        editor.ask("$/ping", None)
        seconds.append(time.perf_counter() - began)
    editor.close(uri)
    return timed("an edit in 1 MB on one line, with a ping", seconds, 5)


def timed(what: str, seconds: Sequence[float], most: float) -> Finding:
    """`most`: milliseconds asked for at the 95th percentile."""
    if not seconds:
        return Finding(what, 0, "nothing to time", f"p95 under {most:g} ms", False)
    low, high = (1000 * percentile(seconds, p) for p in (50, 95))
    return Finding(what, len(seconds), f"p50 {low:.2f} ms, p95 {high:.2f} ms", f"p95 under {most:g} ms", high < most)


def cancels(editor: EditorProcess, lines: Sequence[Line], rng: random.Random) -> Finding:
    """One suggestion after the other, cancelled 20 to 200 ms after it was asked for."""
    seconds, ready = [], 0
    for number, line in enumerate(track(lines, "cancels", console=Console(stderr=True))):
        uri = opened(editor, line, number)
        began = time.perf_counter()
        request = ask(editor, uri, line)
        time.sleep(rng.uniform(0.02, 0.2))
        editor.cancel(request)
        sent = time.perf_counter() - began
        reply = editor.end(request)
        if code(reply) == CANCELLED:
            seconds.append(reply.seconds - sent)
        else:
            ready += 1
        editor.close(uri)
    return timed(f"from a cancel to its answer ({ready} were ready before)", seconds, 50)


def storm(editor: EditorProcess, line: Line, count: int) -> Finding:
    """`count` requests in one go, all but the last cancelled."""
    uri = opened(editor, line, count)
    began = time.perf_counter()
    asked = []
    for number in range(count):
        asked.append(ask(editor, uri, line))
        if number < count - 1:
            editor.cancel(asked[-1])
    replies = [editor.end(request) for request in asked]
    seconds = time.perf_counter() - began
    stopped = sum(code(reply) == CANCELLED for reply in replies)
    shown = len(items(replies[-1]))
    editor.close(uri)
    value = f"{len(replies)} answered in {seconds:.2f} s: {stopped} cancelled, the last with {shown} suggestion"
    met = code(replies[-1]) is None and stopped == count - 1 and editor.strays == 0
    return Finding(f"storm of requests, {count - 1:,} of them cancelled", count, value, "each answered once", met)


def long_day(editor: EditorProcess, lines: Sequence[Line], requests: int) -> Finding:
    """Types lines and asks after every key, which makes the question before void. The server's MB: a fifth of the
    way in, and at the end."""
    early, answered, errors, shown = 0.0, 0, 0, 0
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("a long day", total=requests)
        for number in itertools.count():
            replies = typed(editor, lines[number % len(lines)], number)
            errors += sum(code(reply) not in (None, CANCELLED, VOID) for reply in replies)
            shown += sum(bool(items(reply)) for reply in replies)
            answered += len(replies)
            progress.update(bar, completed=answered)
            if not early and answered >= requests / 5:
                early = anonymous(editor.server.pid)
            if answered >= requests:
                break
    more = anonymous(editor.server.pid) - early
    what = f"memory of its own over a long day ({shown:,} suggestions, {errors} errors)"
    value = f"{early:.0f} MB after a fifth of it, {more:+.1f} MB in the rest"
    return Finding(what, answered, value, f"flat: under {FLAT} MB", more < FLAT and not errors)


def typed(editor: EditorProcess, line: Line, number: int) -> list[Reply]:
    uri = opened(editor, line, number)
    column, asked = len(line.indent), []
    for key in line.solution.strip():
        editor.insert(uri, line.row, column, key)
        column += 1
        asked.append(editor.begin_suggestion(uri, line.row, column))
        time.sleep(0.003)
    replies = [editor.end(request) for request in asked]
    editor.close(uri)
    return replies


def code(reply: Reply) -> int | None:
    return None if reply.error is None else int(reply.error["code"])


def anonymous(process: int) -> float:
    """MB that are the process's own: the pages of the weights' file come and go as the kernel likes."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf8")
    return int(next(row for row in status.splitlines() if row.startswith("RssAnon")).split()[1]) / 1024


def dead_editor() -> Finding:
    """Seconds until nothing is left of a server whose editor was killed in the middle of a suggestion."""
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", DYING_EDITOR]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as editor:
        assert editor.stdout is not None
        server = int(editor.stdout.readline())
        time.sleep(0.1)
        editor.send_signal(signal.SIGKILL)
        began = time.perf_counter()
    left = not gone(server, GONE)
    seconds = time.perf_counter() - began
    value = "the server lives on" if left else f"the server was gone {1000 * seconds:.0f} ms later"
    return Finding("kill -9 of the editor while a suggestion is made", 1, value, "no process left", not left)


def gone(process: int, seconds: float) -> bool:
    """Whether it ends within so many seconds. A zombie, which nobody has asked after yet, is gone too."""
    end = time.perf_counter() + seconds
    while True:
        try:
            state = Path(f"/proc/{process}/stat").read_text(encoding="utf8").rpartition(") ")[2]
        except OSError:
            return True
        if state.startswith("Z"):
            return True
        if time.perf_counter() >= end:
            return False
        time.sleep(0.005)


def findings(requests: int, seed: int) -> list[Finding]:
    rng = random.Random(seed)
    lines = library_lines(60, seed)
    with EditorProcess() as editor:
        rows = [edits(editor, rng)]
        editor.end(ask(editor, opened(editor, lines[0], -1), lines[0]))  # loads the model
        pinger = Pinger(editor)
        rows.append(cancels(editor, lines, rng))
        pinger.stop()
        rows.append(timed("ping while suggestions are made", pinger.seconds, 10))
        rows.append(storm(editor, lines[0], min(2_000, requests)))
        rows.append(long_day(editor, lines, requests))
        rows.append(Finding("answers that nobody had asked for", 0, str(editor.strays), "none", editor.strays == 0))
    return [*rows, dead_editor()]


def table(rows: Sequence[Finding]) -> Table:
    grid = Table("what", "n", "measured", "asked for", "met")
    for row in rows:
        grid.add_row(row.what, f"{row.n:,}", row.value, row.goal, "yes" if row.met else "no")
    return grid


@click.command(help=__doc__)
@click.option("--requests", type=click.IntRange(500), default=10_000, show_default=True, help="In the test of memory.")
@click.option("--seed", default=5, show_default=True, help="Which lines and gaps.")
@click.option("--json", "as_json", is_flag=True, help="The rows as JSON.")
def main(requests: int, seed: int, as_json: bool) -> None:
    rows = findings(requests, seed)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        Console(width=None if Console().is_terminal else 150).print(table(rows))
    sys.exit(not all(row.met for row in rows))


if __name__ == "__main__":
    main()
