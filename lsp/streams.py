"""Standard input and output, or a socket, as what an endpoint reads and writes."""

import asyncio
import os
import stat
import threading
from contextlib import suppress

# Bytes that may wait for an editor that does not read, before nothing more is read from it. High, because an editor
# that writes without reading would otherwise wait for the server, and the server for it.
FULL = 64 * 2**20
FLUSH_SECONDS = 2.0


class StreamOutlet:
    """A stream's writing end."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        writer.transport.set_write_buffer_limits(high=FULL)

    def write(self, data: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(data)

    def waiting(self) -> int:
        return self._writer.transport.get_write_buffer_size()

    async def drain(self) -> None:
        with suppress(OSError):
            await self._writer.drain()

    async def lost(self) -> None:
        with suppress(OSError):
            await asyncio.shield(self._writer.wait_closed())

    async def close(self) -> None:
        """Send what is waiting, within reason."""
        self._writer.close()
        try:
            await asyncio.wait_for(self.lost(), FLUSH_SECONDS)
        except TimeoutError:
            self._writer.transport.abort()


async def stdio() -> tuple[asyncio.StreamReader, StreamOutlet]:
    """Standard input and output, which from then on belong to the protocol alone."""
    source, sink = _take_stdio()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    inlet = os.fdopen(_pipe_from(source), "rb", buffering=0)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), inlet)
    outlet = os.fdopen(_pipe_to(sink), "wb", buffering=0)
    unread = asyncio.StreamReader()
    transport, protocol = await loop.connect_write_pipe(lambda: asyncio.StreamReaderProtocol(unread), outlet)
    return reader, StreamOutlet(asyncio.StreamWriter(transport, protocol, None, loop))


def _take_stdio() -> tuple[int, int]:
    """Private copies of descriptors 0 and 1. What a library prints goes to standard error, what a child reads is
    empty."""
    source, sink = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    try:
        os.dup2(2, 1)
    except OSError:  # started without standard error
        os.dup2(nothing, 1)
    os.close(nothing)
    return source, sink


def _pipe_from(source: int) -> int:
    """A descriptor that an event loop can wait for: files and terminals are read by a thread."""
    if _is_pipe(source):
        return source
    out, into = os.pipe()
    threading.Thread(target=_copy, args=(source, into), daemon=True).start()
    return out


def _pipe_to(sink: int) -> int:
    if _is_pipe(sink):
        return sink
    out, into = os.pipe()
    threading.Thread(target=_copy, args=(out, sink)).start()  # the process ends when all is written
    return into


def _is_pipe(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _copy(source: int, sink: int) -> None:
    with suppress(OSError):
        while data := os.read(source, 2**16):
            view = memoryview(data)
            while view:
                view = view[os.write(sink, view) :]
    with suppress(OSError):
        os.close(sink)
