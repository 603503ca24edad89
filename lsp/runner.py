"""Runs servers: one on standard input and output, or one for each connection to a port."""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, TypeAlias

from diffcode.errors import DiffcodeError
from diffcode.lsp.endpoint import Inlet, Outlet, blame
from diffcode.lsp.server import Server
from diffcode.lsp.streams import StreamOutlet, stdio

log = logging.getLogger(__name__)

MakeServer: TypeAlias = Callable[[Inlet, Outlet], Server]
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class CannotListen(DiffcodeError):
    """The port is taken, or the address is not this machine's."""

    exit_code = 2


class Line(Outlet, Protocol):
    """An outlet that can be closed."""

    async def close(self) -> None:
        """Send what is waiting, within reason, and end the connection."""


class Connections:
    """The servers of a listener, one for each connection."""

    def __init__(self, make: MakeServer) -> None:
        self._make = make
        self._servers: dict[Server, asyncio.Task[None] | None] = {}

    async def serve(self, inlet: Inlet, outlet: Line, *, clean_start: bool = False) -> None:
        """Serve one until it ends."""
        server = self._make(inlet, outlet)
        server.endpoint.clean_start = clean_start
        self._servers[server] = asyncio.current_task()
        try:
            await server.run()
        finally:
            await outlet.close()
            del self._servers[server]

    async def close(self, code: int) -> None:
        """End them all."""
        for server in self._servers:
            server.stop(code, "stopped by a signal")
        if tasks := [task for task in self._servers.values() if task is not None]:
            await asyncio.wait(tasks, timeout=5)


async def serve_stdio(make: MakeServer) -> int:
    """Serve the one editor that started this process."""
    asyncio.get_running_loop().set_exception_handler(_log_failure)
    if sys.stdin.isatty():
        log.warning("waiting for an editor on standard input: `diffcode lsp --help` says how one starts this")
    inlet, outlet = await stdio()
    server = make(inlet, outlet)
    _on_signals(lambda code: server.stop(code, "stopped by a signal"))
    try:
        return await server.run()
    finally:
        await outlet.close()


async def serve_tcp(make: MakeServer, host: str, port: int) -> int:
    """Listen, and serve every editor that connects, until a signal comes."""
    over = until_signal()
    connections = Connections(make)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await connections.serve(reader, StreamOutlet(writer), clean_start=True)

    try:
        listener = await asyncio.start_server(serve, host, port)
    except OSError as error:
        raise CannotListen(f"cannot listen at {host}:{port} ({error.strerror}): name another --tcp") from None
    if host not in LOOPBACK:
        log.warning("whoever reaches %s:%d can use this server: there is no password", host, port)
    number = listener.sockets[0].getsockname()[1]
    print(f"listening at {host}:{number}", file=sys.stderr, flush=True)
    code = await over
    listener.close()
    await connections.close(code)
    return code


def until_signal() -> asyncio.Future[int]:
    """The exit code, once a signal has come; until then what fails in the event loop is logged."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_failure)
    over: asyncio.Future[int] = loop.create_future()
    _on_signals(lambda code: None if over.done() else over.set_result(code))
    return over


def _on_signals(stop: Callable[[int], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError, RuntimeError):  # Windows, or not the main thread
            loop.add_signal_handler(number, stop, 128 + number)


def _log_failure(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    log.error("%s: %s", context.get("message"), blame(error) if error else "no exception")
