"""Requests to every ability, valid ones and ones with something odd in them, while the text changes: each is answered
once, no handler fails, and the document stays what the independent model says it is.

`make fuzz` sends more of them. The frames' own flood is test_fuzz.py.
"""

import asyncio
import copy
import json
import logging
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest
from lsp_fake import ALL, FakeFiller, Loads
from lsp_kit import Wire, did_change, did_open, notice, request, served
from lsp_model import ENDS, Model, random_change

from diffcode.lsp import lens
from diffcode.lsp.abilities import abilities
from diffcode.lsp.session import Session

ROUNDS = 4_000 if os.environ.get("DIFFCODE_FUZZ") else 600  # a seed
URI = "file:///project/a"
INTERNAL = -32603
PIECES = {
    "python": [
        "def f(a, b):\n",
        "    return a + b\n",
        "    ...\n",
        "x = ???\n",
        "# TODO\n",
        "é😀 = f(1, 2)\n",
        "(",
        '"',
    ],
    "rust": ["fn f(a: u8) -> u8 {\n", "    todo!()\n", "}\n", "let x = f(1);\n", "// TODO\n", "???", "{", "'"],
    "typescript": ["function f(a: T) {\n", "  // TODO\n", "}\n", "const x = `${f(1)}`;\n", "???", "=> {", "\u2028"],
    "basic": ["let x be 1\n", "???", "\f", "(", "é😀\n"],
}
TEXTS = [
    "",
    "a",
    "return a + b",
    "\n    return 1",
    "(",
    ")))",
    "x = 1\nx = 1\n",
    "???",
    "# TODO",
    "<|im_end|>",
    "😀\r\n",
]
ODD = [None, True, -1, 0, 1, 10**9, 2**70, 1.5, "", "x", "\ud83d", [], {}, [{}], URI, "file:///b.py", {"line": 0}]
SETTINGS = [
    {}, {"enabled": False}, {"doubtLens": True}, {"multiLine": "always"}, {"debounce": 3}, {"maxFileSize": 1000},
    {"inlineCompletion": 5}, {"exclude": ["*"]}, {"strength": 1}, {"leastConfidence": 1.0}, {"completion": "on"},
]  # fmt: skip


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(lens, "REST_SECONDS", 0.001)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Client:
    """An editor that asks for anything at any place, and answers what it is asked somehow."""

    def __init__(self, seed: int, wire: Wire) -> None:
        self.chance, self.wire = random.Random(seed), wire
        self.model = Model("", "utf-16")
        self.language, self.version, self.ids = "python", 0, 0
        self.asked: list[str] = []
        self.offers: list[dict[str, Any]] = []
        self.seen = 0

    def act(self) -> None:
        kind = self.chance.choice([self.ask, self.ask, self.ask, self.edit, self.edit, self.cancel, self.tell])
        kind()

    # ---- what it sends

    def ask(self) -> None:
        method, params = self.chance.choice([
            ("textDocument/inlineCompletion", self.here() | {"context": self.context()}),
            ("textDocument/completion", self.here() | {"context": {"triggerKind": 1}}),
            ("textDocument/codeAction", self.there() | {"context": self.about()}),
            ("codeAction/resolve", self.chance.choice(self.offers) if self.offers else {"data": {}}),
            ("workspace/executeCommand", {"command": self.command(), "arguments": [self.argument()]}),
            ("textDocument/copilotInlineEdit", self.here()),
            ("textDocument/diagnostic", {"textDocument": {"uri": URI}}),
        ])  # fmt: skip
        self.send(method, self.perhaps_odd(params))

    def send(self, method: str, params: Any) -> None:
        self.ids += 1
        self.asked.append(f"r{self.ids}")
        self.wire.feed(request(self.asked[-1], method, params))

    def edit(self) -> None:
        if not self.version or self.chance.random() < 0.05:
            self.language = self.chance.choice(list(PIECES))
            self.model.text = "".join(self.chance.choices(PIECES[self.language], k=self.chance.randrange(12)))
            self.version = 1
            opened = did_open(self.model.text, 1, URI)
            opened["params"]["textDocument"]["languageId"] = self.language
            self.wire.feed(opened)
            return
        self.version += 1
        change = random_change(self.chance, self.model, ENDS)
        if self.chance.random() < 0.5:
            change["text"] = self.chance.choice(PIECES[self.language])
        self.model.change(change)
        self.wire.feed(did_change(self.version, change, uri=URI))

    def cancel(self) -> None:
        if self.asked:
            self.wire.feed(notice("$/cancelRequest", {"id": self.chance.choice(self.asked[-5:])}))

    def tell(self) -> None:
        settings = {"settings": {"diffcode": self.chance.choice(SETTINGS)}}
        told = self.chance.choice([
            ("workspace/didChangeConfiguration", settings),
            ("textDocument/didShowInlineEdit", {"item": {"command": {"arguments": []}}}),
            ("textDocument/didShowCompletion", {"item": {}}),
            ("textDocument/didPartiallyAcceptCompletion", {"item": {}, "acceptedLength": 3}),
            ("workspace/executeCommand", {"command": "diffcode.accepted", "arguments": []}),
            ("textDocument/didFocus", {"textDocument": {"uri": URI}}),
            ("window/workDoneProgress/cancel", {"token": f"diffcode-{self.chance.randrange(9)}"}),
        ])  # fmt: skip
        self.wire.feed(notice(told[0], self.perhaps_odd(told[1])))

    def answer(self) -> None:
        """To what the server asks; to some of it in a way that nobody should."""
        news, self.seen = self.wire.sent[self.seen :], len(self.wire.sent)
        for message in news:
            if "method" in message and "id" in message:
                result = self.chance.choice([{"applied": True}, {"applied": False}, None, [None], [{}], 7])
                self.wire.feed({"jsonrpc": "2.0", "id": message["id"], "result": result})
            elif isinstance(message.get("result"), list):
                self.offers = [one for one in message["result"] if isinstance(one, dict) and "data" in one][:9]
                for offer in self.offers[:3]:
                    self.send("codeAction/resolve", offer)

    # ---- parts of it

    def here(self) -> dict[str, Any]:
        return {"textDocument": {"uri": URI, "version": self.version}, "position": self.place()}

    def there(self) -> dict[str, Any]:
        return {"textDocument": {"uri": URI}, "range": {"start": self.place(), "end": self.place()}}

    def place(self) -> dict[str, int]:
        line, column = self.model.position(self.chance.randint(0, len(self.model.text)))
        return {"line": line, "character": column + self.chance.choice([0, 0, 0, 5])}

    def context(self) -> dict[str, Any]:
        picked = {"range": {"start": self.place(), "end": self.place()}, "text": self.chance.choice(TEXTS)}
        more = {"selectedCompletionInfo": picked} if self.chance.random() < 0.2 else {}
        return {"triggerKind": self.chance.randrange(3), **more}

    def about(self) -> dict[str, Any]:
        problem = {"range": {"start": self.place(), "end": self.place()}, "message": "no"}
        only = self.chance.choice([None, ["quickfix"], ["refactor"], ["source"], [7]])
        return {"diagnostics": self.chance.choice([[], [problem]]), "only": only}

    def command(self) -> str:
        names = ("fill", "rewrite", "vary", "repair", "ripple", "status", "reload", "accepted", "none")
        return f"diffcode.{self.chance.choice(names)}"

    def argument(self) -> Any:
        given = {"uri": URI, "version": self.version, "strength": self.chance.choice([0.3, 1, 7]), "seed": 3}
        return self.chance.choice([given | self.there(), given | self.here(), given, URI])

    def perhaps_odd(self, params: Any) -> Any:
        """Now and then one of its values is something else, or is missing."""
        if self.chance.random() < 0.7:
            return params
        whole = node = copy.deepcopy(params)
        while isinstance(node, dict | list) and node:
            key = self.chance.choice(list(node) if isinstance(node, dict) else range(len(node)))
            if not isinstance(node[key], dict | list) or self.chance.random() < 0.3:
                node[key] = copy.deepcopy(self.chance.choice(ODD))
                break
            node = node[key]
        return whole


@pytest.mark.parametrize("seed", range(4))
def test_every_ability_answers_whatever_it_is_asked(seed):
    chance = random.Random(seed + 100)
    filler = FakeFiller(lambda task: [chance.choice(TEXTS) for _ in task.holes], frames=["a"], least_likely="a")

    async def run() -> None:
        session = Session(Loads(filler))
        capabilities = ALL | {"window": {"workDoneProgress": True}, "general": {"positionEncodings": ["utf-16"]}}
        params = {"capabilities": capabilities, "initializationOptions": {"debounce": 0}}
        try:
            async with served(abilities(session), params) as (server, wire):
                client = Client(seed, wire)
                for number in range(ROUNDS):
                    for _ in range(client.chance.randrange(1, 6)):
                        client.act()
                    await asyncio.sleep(0)
                    client.answer()
                    if number % 50 == 49:
                        await settled(server, wire, client)
                await settled(server, wire, client)
        finally:
            assert session.close(5)

    asyncio.run(run())


async def answered(wire: Wire, client: Client) -> None:
    async with asyncio.timeout(30):
        while not set(client.asked) <= {m["id"] for m in wire.sent if "method" not in m and isinstance(m["id"], str)}:
            client.answer()
            await asyncio.sleep(0.002)


async def settled(server: Any, wire: Wire, client: Client) -> None:
    """Everything is answered, once; nothing failed; the text is the model's."""
    client.send("$/none", {})  # comes after the last change
    await answered(wire, client)
    client.send("textDocument/codeAction", client.there() | {"context": client.about()})
    await answered(wire, client)
    client.answer()  # what is offered now is made of the text as it is
    await answered(wire, client)
    answers = [m for m in wire.sent if "method" not in m and m["id"] != "init"]
    assert sorted(m["id"] for m in answers) == sorted(client.asked)
    failed = [m for m in answers if m.get("error", {}).get("code") == INTERNAL]
    assert failed == []
    json.dumps(answers)
    if client.version:
        document = server.documents.get(URI)
        assert str(document.text) == client.model.text
    wire.sent.clear()
    client.asked.clear()
    client.seen = 0
