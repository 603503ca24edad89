"""The page's server for tests, with a made-up model that takes its time; as a script it is `diffcode lsp --web`."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lsp_fake import FakeFiller, Loads

from diffcode.denoise import Frame
from diffcode.errors import CANCELLED, Cancelled
from diffcode.interrupt import Stop
from diffcode.lsp import abilities, command
from diffcode.lsp.filler import ModelSpec, OnStep, Task, Written
from diffcode.lsp.session import Session

MEAN = "sum(values) / len(values)"
BODY = "degrees = celsius * 9 / 5\n    return degrees + 32"
WARMEST = "max(days, key=lambda day: day[1])"
STEP = 0.1  # seconds
PRINTED = re.compile(r"open (http://127\.0\.0\.1:([0-9]+)/([\w-]{43})/) \(Ctrl-C ends\)\n")


class SlowFiller(FakeFiller):
    """Writes MEAN, BODY and WARMEST into the holes of the page's Python sample, MEAN anywhere else but where the third
    one is tried again, word by word."""

    def fill(self, task: Task, stop: Stop, on_step: OnStep | None = None) -> tuple[Written, ...]:
        alone = WARMEST if "warmest(days)" in task.text[: task.holes[0].start][-60:] else MEAN
        texts = (MEAN, BODY, WARMEST) if len(task.holes) == 3 else (alone,) * len(task.holes)
        for hole, text in enumerate(texts if on_step else ()):
            for step, end in enumerate([*re.finditer(r"(?<=\S)\s", text), re.search(r"\Z", text)]):
                if stop():
                    raise Cancelled(CANCELLED)
                on_step(Frame(hole, 0, step, (), text[: end.start()]))
                time.sleep(STEP)
        return tuple(Written(text, (0.9,)) for text in texts)


class SlowLoads(Loads):
    """Takes its time, and says so."""

    def __call__(self, spec: ModelSpec, report: Callable[[str, float | None], None]) -> FakeFiller:
        for what in ("starting", "unpacking"):
            report(what, None)
            time.sleep(STEP)
        return super().__call__(spec, report)


@dataclass
class Web:
    """A running server, and what it has printed."""

    process: subprocess.Popen
    address: str
    port: int
    token: str

    def ended(self) -> str:
        """What it said on standard error after its address."""
        return self.process.communicate(timeout=15)[1]


@contextmanager
def web(*arguments: str, environment: dict[str, str] | None = None):
    """`diffcode lsp --web` as a process, with the made-up model; nothing is opened unless the arguments say so."""
    given = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": str(Path(__file__).parent), **(environment or {})}
    process = subprocess.Popen(
        [sys.executable, __file__, "--web", *(arguments or ("--no-open",))],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=given,
    )  # fmt: skip
    try:
        line = process.stderr.readline()
        found = PRINTED.fullmatch(line)
        assert found, line + process.stderr.read()
        yield Web(process, found[1], int(found[2]), found[3])
    finally:
        process.kill()
        with suppress(ValueError):
            process.communicate()


if __name__ == "__main__":
    session = Session(SlowLoads(SlowFiller()))
    abilities.the_session = lambda: session
    command.main()
