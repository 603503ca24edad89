"""How long a suggestion takes while somebody types: sessions made of real lines, through a `diffcode lsp` process.

    python -m diffcode.evals.keystrokes --sessions 60 --out runs/keystrokes.jsonl

A session opens a file of Python's library that lacks one line and types that line, at gaps that vary about 170 ms, with
pauses in which the suggestion is waited for. After each key the editor asks as editors do; what counts are the keys
before a pause. Cold: the first question about a file. Warm: the others that the model was asked; then all the others
that got a suggestion, be it what is left of the one before. Meanwhile another thread sends a request that needs no
model every 50 ms.
"""

import json
import random
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.progress import track
from rich.table import Table

from diffcode.evals.cuts import Line, library_lines
from diffcode.evals.editor import EditorProcess, items
from diffcode.evals.statistics import percentile

GAP, SPREAD = 0.17, 0.35  # of the gaps between keys: median in seconds, standard deviation of the logarithm
BURST = 4.0  # keys between two pauses, on average
PING = 0.05  # seconds between two pings
BUDGET = 0.3  # seconds: what people say a suggestion may take


@dataclass(frozen=True, slots=True)
class Key:
    """A key before a pause, and what came of it. Seconds."""

    session: int
    cold: bool
    latency: float
    by_model: bool  # else the answer came from memory, or the gates were silent
    worked: float  # in the model
    waited: float  # put off on purpose
    shown: bool
    fits: bool  # it is what the line goes on with

    @property
    def overhead(self) -> float:
        return self.latency - self.worked - self.waited


def type_line(editor: EditorProcess, line: Line, number: int, rng: random.Random, rest: float = 0) -> Iterator[Key]:
    """One session. `rest`: seconds between the cursor's coming there, of which the editor tells, and the first key."""
    uri = f"file:///keystrokes/{number}.py"
    row, at = line.row, len(line.indent)
    editor.open(uri, line.holding(line.indent))
    if rest:
        editor.cursor(uri, row, at)
        time.sleep(rest)
    cold = True
    pauses = {at, *(i for i in range(at, len(line.solution)) if rng.random() < 1 / BURST)}
    for column in range(at, len(line.solution)):
        before = editor.command("diffcode.status") if column in pauses else {}
        if column > at:
            editor.insert(uri, row, column - 1, line.solution[column - 1])
        request = editor.begin_suggestion(uri, row, column)
        if column not in pauses:
            time.sleep(rng.lognormvariate(0, SPREAD) * GAP)
            continue
        reply = editor.end(request)
        status = editor.command("diffcode.status")
        made, remembered = status["lastMs"]["made"], status["remembered"]
        by_model = made > before["lastMs"]["made"] and remembered == before["remembered"]
        found = items(reply)
        fits = bool(found) and line.solution[column:].startswith(found[0]["insertText"].split("\n", 1)[0])
        worked, waited = (status["lastMs"][name] / 1000 for name in ("worked", "waited"))
        yield Key(number, cold and by_model, reply.seconds, by_model, worked, waited, bool(found), fits)
        cold = cold and not by_model
        time.sleep(rng.lognormvariate(0, SPREAD) * GAP)
    editor.close(uri)


class Pinger:
    """Asks for something that needs no model, again and again."""

    def __init__(self, editor: EditorProcess):
        self.seconds: list[float] = []
        self._editor, self._done = editor, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._done.wait(PING):
            self.seconds.append(self._editor.ask("$/ping", None).seconds)

    def stop(self) -> None:
        self._done.set()
        self._thread.join()


@click.command(help=__doc__)
@click.option("--sessions", type=click.IntRange(1, 120), default=60, show_default=True)
@click.option("--seed", default=5, show_default=True, help="Which lines, gaps and pauses.")
@click.option(
    "--rest",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Seconds that the cursor rests there before, as editors tell.",
)
@click.option("--out", type=click.Path(path_type=Path), help="File for one JSON line a key; what it has counts too.")
@click.option("--part", default="1/1", show_default=True, help="Only every Nth session, as 2/4: parts share one --out.")
def main(sessions: int, seed: int, rest: float, out: Path | None, part: str) -> None:
    first, parts = _part(part)
    numbers = range(first, sessions, parts)
    lines = library_lines(sessions + 1, seed)
    with EditorProcess() as editor:
        began = time.perf_counter()
        list(type_line(editor, lines[-1], sessions, random.Random(seed)))  # loads the model
        loading = time.perf_counter() - began
        pinger = Pinger(editor)
        keys = [
            key
            for number in track(numbers, "typing", console=Console(stderr=True))
            for key in type_line(editor, lines[number], number, random.Random(f"{seed} {number}"), rest)
        ]
        pinger.stop()
    pings = pinger.seconds
    if out is not None:
        known = out.read_text(encoding="utf8") if out.exists() else ""
        rows = known + "".join(json.dumps(row) + "\n" for row in [*map(asdict, keys), {"pings": pings}])
        out.write_text(rows, encoding="utf8")
        read = [json.loads(line) for line in rows.splitlines()]
        keys = [Key(**row) for row in read if "pings" not in row]
        pings = [ping for row in read for ping in row.get("pings", ())]
    Console(width=None if Console().is_terminal else 110).print(table(keys, pings, loading))


def _part(text: str) -> tuple[int, int]:
    """(which session comes first, every how many)."""
    found = re.fullmatch(r"([1-9][0-9]*)/([1-9][0-9]*)", text)
    if found is None or int(found[1]) > int(found[2]):
        raise click.BadParameter(f"{text} is no part: write for example 2/4", param_hint="--part")
    return int(found[1]) - 1, int(found[2])


def table(keys: Sequence[Key], pings: Sequence[float], loading: float) -> Table:
    grid = Table("milliseconds", "n", "p50", "p95", f"within {1000 * BUDGET:.0f} ms")
    made = [key for key in keys if key.by_model]
    rows = {
        "cold, time to answer": [k.latency for k in made if k.cold],
        "warm, time to answer": [k.latency for k in made if not k.cold],
        "... of it in the model": [k.worked for k in made if not k.cold],
        "... put off on purpose": [k.waited for k in made if not k.cold],
        "... the server's own": [k.overhead for k in made],
        "warm, all that was shown": [k.latency for k in keys if k.shown and not k.cold],
        "from memory or silent": [k.latency for k in keys if not k.by_model],
        "ping": list(pings),
    }
    for name, seconds in rows.items():
        if seconds:
            low, high = percentile(seconds, 50), percentile(seconds, 95)
            within = sum(s <= BUDGET for s in seconds) / len(seconds)
            grid.add_row(name, str(len(seconds)), f"{1000 * low:.1f}", f"{1000 * high:.1f}", f"{within:.0%}")
    shown = [key for key in keys if key.shown]
    right = sum(key.fits for key in shown)
    grid.caption = (
        f"{len(keys)} pauses in {len({k.session for k in keys})} sessions: {len(shown)} suggestions, the first line of "
        f"{right} just as the file goes on; the first session, which loads the model, took {loading:.1f} s"
    )
    return grid


if __name__ == "__main__":
    main()
