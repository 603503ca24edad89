"""Waits for the death of the process that started this one. An editor that is killed says nothing, and where another
process has inherited its end of the pipe, standard input stays open."""

import asyncio
import os
from collections.abc import Callable

POLL_SECONDS = 1.0


def alive(process_id: int) -> bool:
    """Whether there is a process with this id. Signal 0 does something else outside POSIX, so there nobody is asked."""
    if os.name != "posix":
        return True
    try:
        os.kill(process_id, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


async def death_of(process_id: int, *, open_: Callable[[int], int] | None = None) -> None:
    """Return when the process is gone, also while nobody has reaped it. `open_` is os.pidfd_open, where there is one:
    it tells at once and is not fooled by a new process with the old id."""
    open_ = open_ or getattr(os, "pidfd_open", None)
    try:
        descriptor = open_(process_id) if open_ else None
    except ProcessLookupError:
        return
    except OSError:
        descriptor = None
    if descriptor is None:
        while alive(process_id):
            await asyncio.sleep(POLL_SECONDS)
        return
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
