"""A flood of frames, valid, damaged and made up: no crash, no hang, no lost answer, no document that differs.

`make fuzz` sends 200,000. The default is a few seconds of the same; CI goes on for DIFFCODE_FUZZ_SECONDS.
"""

import asyncio
import copy
import json
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from lsp_demo import Demo
from lsp_kit import did_change, did_open, framed, notice, request, served
from lsp_model import ENDS, Model, random_change, random_text

FRAMES = 50_000 if os.environ.get("DIFFCODE_FUZZ") else 8_000  # a seed
SEEDS = range(4)
SECONDS = float(os.environ.get("DIFFCODE_FUZZ_SECONDS", "0")) / len(SEEDS)  # a seed, at least
TRACKED = "file:///tracked.py"
LONGEST = 400  # characters of the tracked document
METHODS = [
    "demo/echo", "demo/text", "demo/fail", "demo/bad", "demo/noJson", "demo/unavailable", "demo/unknown", "$/odd",
    "workspace/executeCommand", "initialize", "textDocument/didOpen", "textDocument/didChange", "initialized",
    "textDocument/didClose", "workspace/didChangeConfiguration", "window/workDoneProgress/cancel", "$/setTrace",
]  # fmt: skip
SCALARS = [None, True, 0, -1, 1, 1.5, 2**70, "", "x", "\ud83d", "é😀", TRACKED + "x", [], {}, [{}], {"line": 0}]
NAMES = [
    "textDocument", "uri", "version", "position", "line", "character", "contentChanges", "text", "range", "id",
    "settings", "token", "value", "command", "arguments", "languageId", "diffcode", "maxTokens",
]  # fmt: skip


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A flood of log lines would be the slowest part of it."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def anything(chance: random.Random, depth: int = 0) -> Any:
    if depth > 3 or chance.random() < 0.4:
        return copy.deepcopy(chance.choice(SCALARS))
    if chance.random() < 0.3:
        return [anything(chance, depth + 1) for _ in range(chance.randrange(3))]
    return {chance.choice(NAMES): anything(chance, depth + 1) for _ in range(chance.randrange(4))}


class Flood:
    """Makes messages and keeps account of what must come back."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.expected: Counter[Any] = Counter()
        self.model = Model("", "utf-16")
        self.version = 0
        self.ids = 0

    def frame(self) -> bytes:
        kinds = [self.ask, self.edit, self.edit, self.cancel, self.made_up, self.damaged, self.noise]
        return self.chance.choice(kinds)()

    def ask(self) -> bytes:
        method = self.chance.choice(METHODS)
        params = self.chance.choice([{}, {"textDocument": {"uri": TRACKED}}, anything(self.chance)])
        return self.body(json.dumps(request(self.next_id(), method, params)).encode())

    def edit(self) -> bytes:
        if not self.version or len(self.model.text) > LONGEST:
            self.version = 1
            self.model.text = random_text(self.chance, ENDS, 80)
            return self.body(json.dumps(did_open(self.model.text, 1, TRACKED)).encode())
        self.version += self.chance.choice([1, 1, 5])
        changes = []
        for _ in range(self.chance.choice([1, 1, 3])):
            changes.append(random_change(self.chance, self.model, ENDS))
            self.model.change(changes[-1])
        return self.body(json.dumps(did_change(self.version, *changes, uri=TRACKED)).encode())

    def cancel(self) -> bytes:
        """A request and its cancel: one answer, whichever way it ends."""
        id_ = self.next_id()
        begun = request(id_, "demo/sleep", {"seconds": 60})
        return self.body(json.dumps(begun).encode()) + framed(notice("$/cancelRequest", {"id": id_}))

    def made_up(self) -> bytes:
        message = self.chance.choice([anything(self.chance), {"method": "demo/echo", "id": anything(self.chance)}])
        return self.body(json.dumps(message).encode())

    def damaged(self) -> bytes:
        """Valid traffic with some bytes changed, or cut off; never about the tracked document."""
        params = {"textDocument": {"uri": "file:///other.py", "version": 3}, "contentChanges": [{"text": "x"}]}
        body = bytearray(json.dumps(request(self.next_id(), self.chance.choice(METHODS), params)).encode())
        for _ in range(self.chance.choice([1, 1, 2, 8])):
            at = self.chance.randrange(len(body))
            if self.chance.random() < 0.2:
                del body[at:]
                break
            body[at] = self.chance.choice([self.chance.randrange(256), *b'{}[]",:0'])
            if not body:
                break
        return self.body(bytes(body))

    def noise(self) -> bytes:
        """Bytes between frames that announce no frame."""
        data = bytes(self.chance.choice(b"\r\n\x00\xff{}:x7 ") for _ in range(self.chance.randrange(60)))
        return data + self.chance.choice([b"", b"Content-Length: x\r\n\r\n", b"content-type: a\r\n"])

    def next_id(self) -> int | str:
        self.ids += 1
        return self.chance.choice([self.ids, f"id {self.ids}"])

    def body(self, body: bytes) -> bytes:
        self.account(body)
        return framed(body)

    def account(self, body: bytes) -> None:
        """What JSON-RPC wants back for a message, decided apart from the server's own reading."""
        try:
            value = json.loads(body.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            self.expected[None] += 1
            return
        if not isinstance(value, dict):
            self.expected[None] += 1
            return
        id_ = value.get("id")
        good_id = isinstance(id_, str | int | float) and not isinstance(id_, bool) and id_ == id_
        if "method" in value:
            if "id" in value or not isinstance(value["method"], str):
                self.expected[_key(id_) if good_id else None] += 1
        elif not good_id and "result" not in value and "error" not in value:
            self.expected[None] += 1


def _key(id_: Any) -> Any:
    """Ids as they look on the wire: 1 and "1" and 1.0 are different."""
    return json.dumps(id_)


def test_damage_is_noticed():
    """The account itself: it does expect answers."""
    flood = Flood(0)
    for _ in range(300):
        flood.frame()
    assert flood.expected[None] > 10
    assert sum(flood.expected.values()) > 100
    assert flood.version


@pytest.mark.parametrize("seed", SEEDS)
def test_a_flood_of_frames(seed):
    async def run() -> None:
        flood = Flood(seed)
        async with served([demo := Demo()]) as (server, wire):
            sent: Counter[Any] = Counter()
            count, until = 0, time.monotonic() + SECONDS
            while count < FRAMES or time.monotonic() < until:
                frames = [flood.frame() for _ in range(flood.chance.randrange(1, 20))]
                count += len(frames)
                data = b"".join(frames)
                while data:  # cut anywhere
                    size = flood.chance.choice([1, 10, 100, 10_000])
                    wire.feed(data[:size])
                    data = data[size:]
                mark = f"mark {count}"
                wire.feed(b"\n", request(mark, "demo/text", {"textDocument": {"uri": TRACKED}}))
                answer = await wire.answer(mark)
                told = answer["result"]
                assert (told["text"] if told else "") == flood.model.text
                answers = [m for m in wire.sent if "method" not in m and m["id"] not in (mark, "init")]
                sent.update(None if m["id"] is None else _key(m["id"]) for m in answers)
                wire.sent.clear()
                assert sent == flood.expected, (sent - flood.expected, flood.expected - sent)
                demo.calls.clear()
            await asyncio.sleep(0.01)
            assert not server.endpoint._running
            assert not server.endpoint._tasks
            print(f"seed {seed}: {count:,} frames, {sum(sent.values()):,} answers, each the one expected")

    asyncio.run(run())


@pytest.mark.parametrize("seed", SEEDS)
def test_random_bytes_end_nothing(seed):
    async def run() -> None:
        chance = random.Random(seed)
        async with served([Demo()]) as (server, wire):
            for _ in range(FRAMES // 10):
                data = bytearray(framed(request(1, "demo/echo", anything(chance))))
                for _ in range(chance.randrange(6)):
                    data[chance.randrange(len(data))] = chance.randrange(256)
                wire.feed(bytes(data))
                await asyncio.sleep(0)
            await asyncio.sleep(0.05)
            assert not server.endpoint.closed
            # Whatever a damaged header still waits for comes now, and then a frame that counts.
            wire.feed(b" " * 10_000_000, b"\r\n", request("end", "$/ping"))
            wire.feed(request("end", "$/ping"))
            assert "error" in await wire.answer("end")

    asyncio.run(run())
