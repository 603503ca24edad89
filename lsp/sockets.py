"""A WebSocket as what an endpoint reads and writes: every message of the protocol is one text message."""

import asyncio
from contextlib import suppress

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from diffcode.lsp.frames import frame
from diffcode.lsp.streams import FLUSH_SECONDS, FULL


class SocketInlet:
    """The reading end. Messages get the header that they have on other lines."""

    def __init__(self, socket: ServerConnection) -> None:
        self._socket = socket

    async def read(self, _n: int, /) -> bytes:
        """The next message, however long it is; nothing at the end."""
        try:
            return frame(await self._socket.recv(decode=False))
        except ConnectionClosed:
            return b""


class SocketOutlet:
    """The writing end."""

    def __init__(self, socket: ServerConnection) -> None:
        self._socket = socket
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._waiting = 0
        self._room = asyncio.Event()
        self._room.set()
        self._sending = asyncio.get_running_loop().create_task(self._send())

    def write(self, data: bytes) -> None:
        if not self._sending.done():
            body = data.partition(b"\r\n\r\n")[2]
            self._queue.put_nowait(body)
            self._count(len(body))

    def waiting(self) -> int:
        return self._waiting

    async def drain(self) -> None:
        await self._room.wait()

    async def lost(self) -> None:
        await self._socket.wait_closed()

    async def close(self) -> None:
        """Send what is waiting, within reason."""
        self._queue.put_nowait(b"")
        with suppress(TimeoutError):
            await asyncio.wait_for(self._sending, FLUSH_SECONDS)
        await self._socket.close(CloseCode.GOING_AWAY)

    async def _send(self) -> None:
        try:
            while body := await self._queue.get():
                await self._socket.send(body, text=True)
                self._count(-len(body))
        except ConnectionClosed:
            pass
        finally:
            self._room.set()

    def _count(self, by: int) -> None:
        self._waiting += by
        if self._waiting <= FULL:
            self._room.set()
        else:
            self._room.clear()
