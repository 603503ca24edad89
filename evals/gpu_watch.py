"""A process that measures, watched by one that never touches the GPU: a kernel that hangs, or breaks the GPU for its
whole process, costs the rest of its part and no more, and the table is printed in time."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from threading import Timer
from typing import Any

DEAD = 3  # the status of a process whose GPU answers no more: its rows have said why
PATIENCE = 150.0  # seconds without a word; to compile a whole step takes a minute or two
START = 40.0  # below so many seconds left no other process is begun

Message = dict[str, Any]


def messages(
    command: Callable[[float, int], Sequence[str]], deadline: float, patience: float = PATIENCE, start: float = START
) -> Iterator[Message]:
    """What the processes say, objects of JSON: "part" says what is begun, "failed" comes from here.

    `command` is given the seconds left and the part to begin with: the one behind that which ended the process before.
    """
    first = 0
    while True:
        left, begun = deadline - time.monotonic(), None
        process = subprocess.Popen(command(left, first), stdout=subprocess.PIPE, text=True, encoding="utf8")
        for message in _heard(process, deadline, patience):
            begun = message if "part" in message else begun
            yield message
        status = process.wait()
        if status not in (0, DEAD) or (status == DEAD and begun is None):
            reason = "killed: it took too long" if status == -9 else f"its process ended with {status}"
            yield {"failed": reason, "model": "any", "what": "the start", **(begun or {})}
        if status == 0 or begun is None or deadline - time.monotonic() < start:
            return
        first = begun["part"] + 1


def _heard(process: "subprocess.Popen[str]", deadline: float, patience: float) -> Iterator[Message]:
    """Line by line; the process is killed at the deadline, and when it says nothing for too long."""
    assert process.stdout is not None

    def alarm() -> Timer:
        timer = Timer(max(0.0, min(patience, deadline - time.monotonic())), process.kill)
        timer.daemon = True
        timer.start()
        return timer

    timer = alarm()
    try:
        for line in process.stdout:
            timer.cancel()
            yield json.loads(line)
            timer = alarm()
        process.wait()
    finally:
        timer.cancel()
        process.kill()
