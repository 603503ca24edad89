"""What real editors are tested with: as a script a whole language server over a made-up model; helpers for the tests.

The model writes by what stands before a hole on its line; `DIFFCODE_FAKE_SECONDS` makes it slow, and stoppable.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SERVER = [sys.executable, "-P", str(Path(__file__).resolve())]
ENVIRONMENT = {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(Path(__file__).parent)}
WRITES = {  # the end of what stands before a hole: what belongs there
    "return ": "a + b",
    ":\n    ": "c = a\n    return c + b",
    "é = ": "'😀' + name",
    "x = ": "first",
    "y = ": "second",
    "closed(": "a, b)",
}
OTHERWISE = "something"


def wait_for(what: Callable[[], Any], seconds: float = 10.0, pause: float = 0.03) -> Any:
    """The first true value; AssertionError with the last one."""
    end = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < end, f"still {value!r}"
        time.sleep(pause)
    return value


def running(process_id: int) -> bool:
    """A zombie is not."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def serve() -> None:
    """`diffcode lsp` with the model of `WRITES`."""
    from lsp_fake import FakeFiller, Loads

    from diffcode.lsp import abilities, command
    from diffcode.lsp.filler import Task
    from diffcode.lsp.session import Session

    def answer(task: Task) -> list[str]:
        heads = [task.text[: hole.start] for hole in task.holes]
        return [next((new for end, new in WRITES.items() if head.endswith(end)), OTHERWISE) for head in heads]

    class Slow(FakeFiller):
        def fill(self, task: Task, stop: Any, on_step: Any = None) -> Any:
            end = time.monotonic() + float(os.environ.get("DIFFCODE_FAKE_SECONDS", "0"))
            while time.monotonic() < end and not stop():
                time.sleep(0.005)
            return super().fill(task, stop, on_step)

    session = Session(Loads(Slow(answer)))
    abilities.the_session = lambda: session  # type: ignore[assignment]
    command.main()


if __name__ == "__main__":
    serve()
