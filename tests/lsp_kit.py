"""An editor for tests: in memory, and over a process's pipes or a socket. Reads frames in its own, strict way."""

import asyncio
import json
import queue
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO

from diffcode.lsp.feature import Feature
from diffcode.lsp.server import Server

CLIENTS = Path(__file__).parent / "lsp" / "clients"
DEMO = Path(__file__).parent / "lsp_demo.py"
URI = "file:///project/a.py"


def framed(message: Any) -> bytes:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


def request(id_: Any, method: str, params: Any = None) -> dict:
    return {"jsonrpc": "2.0", "id": id_, "method": method, "params": {} if params is None else params}


def notice(method: str, params: Any = None) -> dict:
    return {"jsonrpc": "2.0", "method": method, "params": {} if params is None else params}


def did_open(text: str, version: int = 1, uri: str = URI) -> dict:
    item = {"uri": uri, "languageId": "python", "version": version, "text": text}
    return notice("textDocument/didOpen", {"textDocument": item})


def did_change(version: int, *changes: dict, uri: str = URI) -> dict:
    params = {"textDocument": {"uri": uri, "version": version}, "contentChanges": list(changes)}
    return notice("textDocument/didChange", params)


def read_frame(stream: BinaryIO) -> dict | None:
    """The next message; None at the end. Anything that is no frame is an error."""
    header = b""
    while not header.endswith(b"\r\n\r\n"):
        byte = stream.read(1)
        if not byte:
            assert not header, header
            return None
        header += byte
    match = re.fullmatch(rb"Content-Length: ([0-9]+)\r\n\r\n", header)
    assert match, header
    message = json.loads(stream.read(int(match[1])).decode("utf-8"))
    assert message["jsonrpc"] == "2.0"
    return message


# ---- in memory


class Wire:
    """Both streams of a server in memory."""

    def __init__(self) -> None:
        self.sent: list[dict] = []
        self.behind = 0
        self.ended = asyncio.Event()
        self._incoming: asyncio.Queue[bytes] = asyncio.Queue()
        self._news = asyncio.Event()

    def feed(self, *messages: Any) -> None:
        """Messages as dicts, or raw bytes; all of them as one read."""
        self._incoming.put_nowait(b"".join(m if isinstance(m, bytes) else framed(m) for m in messages))

    async def read(self, _n: int, /) -> bytes:
        return await self._incoming.get()

    def write(self, data: bytes) -> None:
        header, _, body = data.partition(b"\r\n\r\n")
        assert header == b"Content-Length: %d" % len(body)
        message = json.loads(body.decode("utf-8"))
        assert message["jsonrpc"] == "2.0"
        self.sent.append(message)
        self._news.set()

    def waiting(self) -> int:
        return self.behind

    async def drain(self) -> None: ...

    async def lost(self) -> None:
        await self.ended.wait()

    async def until(self, found: Callable[[dict], bool], seconds: float = 5.0) -> dict:
        """The first message that was or is sent and fits."""
        async with asyncio.timeout(seconds):
            while True:
                for message in self.sent:
                    if found(message):
                        return message
                self._news.clear()
                await self._news.wait()

    async def answer(self, id_: Any) -> dict:
        return await self.until(lambda m: "method" not in m and m.get("id") == id_)

    async def asked(self, method: str) -> dict:
        """A request or notification of the server."""
        return await self.until(lambda m: m.get("method") == method)

    def answers(self, id_: Any) -> list[dict]:
        return [m for m in self.sent if "method" not in m and m["id"] == id_]


@asynccontextmanager
async def served(
    features: Sequence[Feature] = (), params: dict | None = None, initialize: bool = True, log_bodies: bool = False
) -> AsyncIterator[tuple[Server, Wire]]:
    """A running server, by default initialized."""
    wire = Wire()
    server = Server(wire, wire, features, log_bodies=log_bodies)
    running = asyncio.create_task(server.run())
    if initialize:
        wire.feed(request("init", "initialize", params or {"capabilities": {}}), notice("initialized"))
        assert "result" in await wire.answer("init")
    try:
        yield server, wire
    finally:
        wire.ended.set()
        wire.feed(b"")
        await asyncio.wait_for(running, 5)


# ---- as a process


class Editor:
    """Talks to a server process over its pipes, or over a socket."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self.sink = sink
        self.messages: list[dict] = []
        self._queue: queue.Queue[dict | None] = queue.Queue()
        self._ids = 0
        threading.Thread(target=self._read, args=(source,), daemon=True).start()

    def send(self, *messages: Any) -> None:
        self.sink.write(b"".join(m if isinstance(m, bytes) else framed(m) for m in messages))
        self.sink.flush()

    def next(self, seconds: float = 20.0) -> dict | None:
        message = self._queue.get(timeout=seconds)
        if message is not None:
            self.messages.append(message)
        return message

    def until(self, found: Callable[[dict], bool], seconds: float = 120.0) -> dict:
        """The next message that fits; what comes before is kept in `messages`."""
        end = time.monotonic() + seconds
        while True:
            message = self.next(max(end - time.monotonic(), 0.01))
            assert message is not None, "the server has ended"
            if found(message):
                return message

    def request(self, method: str, params: Any = None) -> dict:
        """Send one and wait for its answer."""
        self._ids += 1
        mine = self._ids
        self.send(request(mine, method, params))
        return self.until(lambda m: "method" not in m and m.get("id") == mine)

    def initialize(self, params: dict | None = None) -> dict:
        answer = self.request("initialize", params or {"capabilities": {}})
        self.send(notice("initialized"))
        return answer

    def ended(self, seconds: float = 20.0) -> bool:
        """Whether the server closes its side within that time."""
        try:
            while self.next(seconds) is not None:
                pass
        except queue.Empty:
            return False
        return True

    def _read(self, source: BinaryIO) -> None:
        try:
            while (message := read_frame(source)) is not None:
                self._queue.put(message)
        except (OSError, ValueError, AssertionError) as error:
            print(f"the server's output broke: {error!r}", file=sys.stderr)
        self._queue.put(None)


def start(*arguments: str, command: Sequence[str] = (), **options: Any) -> tuple[subprocess.Popen, Editor]:
    """`diffcode lsp` as a process, or another command."""
    full = [*(command or (sys.executable, "-P", "-m", "diffcode.lsp.command")), *arguments]
    process = subprocess.Popen(full, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    assert process.stdin is not None
    assert process.stdout is not None
    return process, Editor(process.stdout, process.stdin)


def connect(port: int) -> Editor:
    link = socket.create_connection(("127.0.0.1", port), timeout=20)
    return Editor(link.makefile("rb"), link.makefile("wb"))


def shut_down(process: subprocess.Popen, editor: Editor) -> str:
    """Take leave as an editor does; what was said on standard error."""
    assert editor.request("shutdown")["result"] is None
    editor.send(notice("exit"))
    _, stderr = process.communicate(timeout=20)
    return stderr.decode()
