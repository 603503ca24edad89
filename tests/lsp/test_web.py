"""`diffcode lsp --web` as a process: the protocol over WebSockets, and how it starts and ends."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from lsp_fake import ALL
from lsp_kit import URI, did_change, did_open, framed, notice, request
from lsp_web import BODY, MEAN, WARMEST, web
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close
from websockets.sync.client import ClientConnection, connect

from diffcode.lsp import sockets

TCP_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
LISTENING = "0A"
THREE = "def a(values):\n    return ???\n\n\ndef b(celsius):\n    ???\n\n\ndef c(days):\n    return ???\n"


@pytest.fixture(scope="module")
def server():
    with web() as running:
        yield running


class Page:
    """The page's side of a connection."""

    def __init__(self, link: ClientConnection):
        self.socket = link
        self.messages: list[dict] = []
        self._ids = 0

    def send(self, message: dict) -> None:
        self.socket.send(json.dumps(message))

    def until(self, found) -> dict:
        while True:
            text = self.socket.recv(timeout=20)
            assert isinstance(text, str)
            message = json.loads(text)
            self.messages.append(message)
            if message.get("method") in ("workspace/applyEdit", "window/workDoneProgress/create"):
                result = {"applied": True} if "Edit" in message["method"] else None
                self.send({"jsonrpc": "2.0", "id": message["id"], "result": result})
            if found(message):
                return message

    def request(self, method: str, params: dict | None = None) -> dict:
        self._ids += 1
        mine = self._ids
        self.send(request(mine, method, params))
        return self.until(lambda m: m.get("id") == mine and "method" not in m)

    def initialize(self, **options) -> dict:
        capabilities = {**ALL, "window": {"workDoneProgress": True}}
        answer = self.request(
            "initialize", {"capabilities": capabilities, "initializationOptions": {"debounce": 0, **options}}
        )
        self.send(notice("initialized"))
        return answer

    def complete(self, line: int, character: int) -> list[dict]:
        params = {"textDocument": {"uri": URI}, "position": {"line": line, "character": character}}
        answer = self.request("textDocument/inlineCompletion", {**params, "context": {"triggerKind": 1}})
        return answer["result"]["items"]


@contextmanager
def opened(running):
    """A page's connection."""
    address = f"ws://127.0.0.1:{running.port}/{running.token}/lsp"
    with connect(address, origin=f"http://127.0.0.1:{running.port}", compression=None, proxy=None) as link:
        yield Page(link)


# ---- the protocol


def test_a_session_over_a_socket(server):
    with opened(server) as page:
        assert page.initialize()["result"]["serverInfo"]["name"] == "diffcode"
        page.until(lambda m: m.get("method") == "diffcode/status")
        page.send(did_open("def mean(values):\n    return \n"))
        (item,) = page.complete(1, 11)
        assert item["insertText"] == MEAN
        page.send(
            did_change(
                2, {"range": {"start": {"line": 1, "character": 11}, "end": {"line": 1, "character": 11}}, "text": "s"}
            )
        )
        (item,) = page.complete(1, 12)
        assert item["insertText"].endswith(MEAN[1:])
        assert page.request("shutdown")["result"] is None
        page.send(notice("exit"))
        with pytest.raises(ConnectionClosed):
            page.until(lambda m: False)


def test_a_fill_is_seen_while_it_is_written(server):
    with opened(server) as page:
        page.initialize()
        page.send(did_open(THREE))
        answer = page.request("workspace/executeCommand", {"command": "diffcode.fill", "arguments": [{"uri": URI}]})
        assert answer["result"] == {"applied": True}
        (asked,) = (m["params"]["edit"] for m in page.messages if m.get("method") == "workspace/applyEdit")
        (change,) = asked["documentChanges"]
        assert [edit["newText"] for edit in change["edits"]] == [MEAN, BODY, WARMEST]
        told = [m["params"]["value"] for m in page.messages if m.get("method") == "$/progress"]
        assert told[0]["title"].endswith("Fill all 3 holes")
        words = [value["message"] for value in told if value["kind"] == "report"]
        first = [w.removeprefix("hole 1 of 3: ") for w in words if w.startswith("hole 1 of 3: ")]
        assert len(first) >= 2
        assert all(MEAN.startswith(text) for text in first)
        assert "hole 2 of 3: return degrees + 32" in words
        assert told[-1]["kind"] == "end"


def test_two_pages_share_the_model_and_nothing_else(server):
    with opened(server) as first, opened(server) as second:
        first.initialize()
        second.initialize(enabled=False)
        for page, text in ((first, "x = 1\ndef mean(values):\n    return \n"), (second, "y = \n")):
            page.send(did_open(text))
        first.send(request("long", "workspace/executeCommand", {"command": "diffcode.reload"}))
        first.until(lambda m: m.get("id") == "long")
        assert second.complete(0, 4) == []  # switched off there
        assert len(first.complete(2, 11)) == 1
        status = second.request("workspace/executeCommand", {"command": "diffcode.status"})["result"]
        assert (status["loaded"], status["state"], status["asked"]) == (True, "inactive", 0)
        second.socket.close()
        assert len(first.complete(2, 11)) == 1


def test_what_is_no_message_is_answered(server):
    with opened(server) as page:
        for text in ("no JSON", "", framed(request(1, "initialize")).decode()):
            page.socket.send(text)
            assert page.until(lambda m: "error" in m)["error"]["code"] == -32700
        page.socket.send(json.dumps(request(1, "initialize", {"capabilities": {}})).encode())  # bytes do as well
        assert "result" in page.until(lambda m: m.get("id") == 1)


# ---- the process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it(number):
    with web() as running, opened(running) as page:
        page.initialize()
        idle = socket.create_connection(("127.0.0.1", running.port))  # browsers open some in advance
        began = time.monotonic()
        running.process.send_signal(number)
        with pytest.raises(ConnectionClosed) as ended:
            page.until(lambda m: False)
        assert ended.value.rcvd == Close(1001, "")
        assert running.ended() == ""
        assert running.process.returncode == 128 + number
        assert time.monotonic() - began < 5
        idle.close()


def test_only_this_machine_reaches_it(server):
    tables = [table for table in TCP_TABLES if table.exists()]
    if not tables:
        pytest.skip("no /proc/net here")
    rows = [line.split() for table in tables for line in table.read_text().splitlines()[1:]]
    wanted = f"{server.port:04X}"
    found = [row[1] for row in rows if row[3] == LISTENING and row[1].endswith(f":{wanted}")]
    assert found == [f"0100007F:{wanted}"]


def test_the_log_has_neither_the_token_nor_the_text(tmp_path):
    log = tmp_path / "log"
    with web("--no-open", "--log", str(log), "--log-level", "debug") as running, opened(running) as page:
        urllib.request.urlopen(running.address, timeout=10).close()
        page.initialize()
        page.send(did_open("secret_code = \n"))
        page.complete(0, 14)
        running.process.send_signal(signal.SIGINT)
        said = running.ended() + log.read_text()
    assert "textDocument/didOpen" in said
    assert "secret_code" not in said
    assert running.token not in said
    assert "Traceback" not in said


@pytest.mark.parametrize("opened", [True, False])
def test_a_browser_is_opened_if_there_is_one(tmp_path, opened):
    browser, seen = tmp_path / "browser", tmp_path / "seen"
    browser.write_text(f'#!/bin/sh\necho "$1" > {seen}.part && mv {seen}.part {seen}\n')
    browser.chmod(0o755)
    arguments = ["--port", "0"] if opened else ["--port", "0", "--no-open"]
    with web(*arguments, environment={"BROWSER": f"{browser} %s"}) as running:
        end = time.monotonic() + (10 if opened else 0.5)
        while time.monotonic() < end and not seen.exists():
            time.sleep(0.02)
        assert seen.exists() == opened
        assert not opened or seen.read_text() == f"{running.address}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--web", "--stdio"], "exclude each other"),
        (["--web", "--tcp", "127.0.0.1:0"], "exclude each other"),
        (["--port", "8000"], "add --web"),
        (["--no-open"], "add --web"),
        (["--web", "--port", "99999"], "99999"),
        (["--web", "--port", "{taken}"], "name another --port"),
    ],
)
def test_wrong_usage_is_one_line(server, arguments, said):
    given = [argument.format(taken=server.port) for argument in arguments]
    command = [sys.executable, "-P", "-m", "diffcode.lsp.command", *given]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


# ---- the outlet by itself


class Socket:
    """A browser that reads when it is let."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.sent: list[bytes] = []
        self.code = 0

    async def send(self, body: bytes, text: bool) -> None:
        assert text
        await self.reads.wait()
        self.sent.append(body)

    async def close(self, code: int) -> None:
        self.code = code


def test_the_outlet_counts_what_waits_and_sends_it_before_it_closes(monkeypatch):
    monkeypatch.setattr(sockets, "FULL", 10)

    async def run() -> None:
        link = Socket()
        outlet = sockets.SocketOutlet(link)
        outlet.write(framed(b"12345"))
        await asyncio.wait_for(outlet.drain(), 1)
        outlet.write(framed(b"678901"))
        assert outlet.waiting() == 11
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(outlet.drain(), 0.05)
        link.reads.set()
        await asyncio.wait_for(outlet.drain(), 1)
        outlet.write(framed(b"last"))
        await asyncio.wait_for(outlet.close(), 1)
        assert link.sent == [b"12345", b"678901", b"last"]
        assert (outlet.waiting(), link.code) == (0, 1001)
        outlet.write(framed(b"too late"))
        assert outlet.waiting() == 0

    asyncio.run(run())


def test_the_outlet_does_not_wait_for_ever_for_a_browser_that_does_not_read(monkeypatch):
    monkeypatch.setattr(sockets, "FLUSH_SECONDS", 0.05)

    async def run() -> None:
        link = Socket()
        outlet = sockets.SocketOutlet(link)
        outlet.write(framed(b"never"))
        await asyncio.wait_for(outlet.close(), 1)
        assert (link.sent, link.code) == ([], 1001)

    asyncio.run(run())
