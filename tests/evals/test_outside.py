"""Engines that are not diffcode's: a made-up server, and llama.cpp's interface over a made-up library."""

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from fake_evaluation import PROBLEMS
from fake_llama import Library

from diffcode.canvas import make_block
from diffcode.config import WindowOptions
from diffcode.errors import BadOption
from diffcode.evals import lineup, multihole, outside, tasks
from diffcode.evals.decoders import PolicyDecoder, Rules
from diffcode.evals.outside import CompletionServer, ServerFailed
from diffcode.evals.problems import Problem
from diffcode.evals.results import Settings
from diffcode.holes import Hole
from diffcode.infill import Infiller
from diffcode.stops import StopRule
from diffcode.tokens import Tokens

# ---- a completion server


class Server:
    """Answers with `texts` in turn, and notes what it was asked."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.reason, self.raw, self.status = "stop", b"", 200
        self.asked: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: list[str | None] = []

    def answer(self, body: dict[str, Any]) -> bytes:
        if self.raw:
            return self.raw
        text = self.texts[min(len(self.asked), len(self.texts)) - 1]
        choice = {"text": text, "index": 0, "finish_reason": self.reason}
        return json.dumps({"choices": [choice], "usage": {"completion_tokens": 7}}).encode()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.asked.append(body)
            state.paths.append(self.path)
            state.keys.append(self.headers.get("Authorization"))
            data = state.answer(body)
            self.send_response(state.status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_port}/v1"  # type: ignore[attr-defined]
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield state
    http.shutdown()
    http.server_close()


def decoder(server: Server, more: str = "") -> CompletionServer:
    return CompletionServer(f"openai:{server.url}{more}")  # type: ignore[attr-defined]


def test_server_gets_both_sides_and_the_rules(server: Server):
    server.texts = ["    m = n\n"]
    rules = Rules(max_tokens=32, stops=("\nclass",), temperature=0.5, seed=3)
    filled = decoder(server, "#tiny").fill(PROBLEMS[0], rules, 1)
    assert server.asked == [
        {
            "prompt": "def f(n):\n",
            "suffix": "    return m + 0\n",
            "max_tokens": 32,
            "temperature": 0.5,
            "seed": rules.seed_of(PROBLEMS[0], 1),
            "n": 1,
            "stream": False,
            "stop": ["\nclass"],
            "model": "tiny",
        }
    ]
    assert server.paths == ["/v1/completions"]
    assert (filled.completions, filled.tokens) == (("    m = n\n",), 7)
    assert (filled.forwards, filled.context_seconds) == (None, None)
    assert filled.seconds > 0


def test_greedy_without_stops_or_model(server: Server):
    server.texts = [""]
    decoder(server, "/completions/").fill(PROBLEMS[0], Rules(), 0)
    assert "stop" not in server.asked[0]
    assert "model" not in server.asked[0]
    assert server.asked[0]["temperature"] == 0.0
    assert (server.paths, server.keys) == (["/v1/completions"], [None])


def test_key_is_sent_where_there_is_one(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "made-up")
    server.texts = [""]
    decoder(server).fill(PROBLEMS[0], Rules(), 0)
    assert server.keys == ["Bearer made-up"]


@pytest.mark.parametrize(
    ("text", "reason", "completion", "finished"),
    [
        ("    m = n\n    k = 0\n", "stop", "    m = n\n    k = 0\n", "eos"),
        ("    m = n", "stop", "    m = n\n", "eos"),
        ("    m = ", "length", "    m = \n", "budget"),
        ("    m = '\ud800'", "stop", "    m = '?'\n", "eos"),  # half a character: no report could be written with it
    ],
)
def test_what_comes_is_cut_by_the_same_rule(server: Server, text: str, reason: str, completion: str, finished: str):
    server.texts, server.reason = [text], reason
    filled = decoder(server).fill(PROBLEMS[0], Rules(), 0)
    assert (filled.completions, filled.finished) == ((completion,), (finished,))


def test_text_is_cut_where_it_would_have_been_while_it_came():
    rule = StopRule("", ("\ndef", "\nclass"))
    assert outside.cut_from_left(rule, "    a\nclass B:\n    c\ndef d", "eos").text == "    a"
    assert outside.cut_from_left(rule, "    a\n", "eos").reason == "eos"


def test_several_holes_see_each_other(server: Server):
    problem = Problem("t", ("def f(n):\n    ", "\n    return ", "\n"), ("m = n", "[m]"), "", "f")
    server.texts = ["m = n", "[m]", "m = n", "[m]"]
    filled = decoder(server).fill(problem, Rules(), 0)
    assert filled.completions == ("m = n", "[m]")
    assert [(body["prompt"], body["suffix"]) for body in server.asked] == [
        ("def f(n):\n    ", "\n    return \n"),
        ("def f(n):\n    m = n\n    return ", "\n"),
        ("def f(n):\n    ", "\n    return [m]\n"),  # again, in the light of the other
        # the second is not asked again: nothing that it sees has changed
    ]
    assert filled.tokens == 14


def test_stop_rule_is_the_canvas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What diffcode's own decoders are stopped by, for holes of every kind."""
    tokens = Tokens.from_folder(tiny.write_tokenizer(tmp_path))
    rules: list[StopRule] = []
    monkeypatch.setattr(CompletionServer, "_ask", lambda *_: ("", "eos", 1))
    monkeypatch.setattr(
        outside, "cut_from_left", lambda rule, text, reason: rules.append(rule) or rule.finish("", reason)
    )
    some = [*tasks.load("infill-multi")[:200:9], *list(multihole.make())[:40:5], tasks.load("humaneval")[3]]
    for problem in some:
        rules.clear()
        filled = CompletionServer("openai:http://h").fill(problem, Rules(stops=("#",)), 0)
        holes = [Hole(*hole) for hole in problem.holes]
        for index, rule in enumerate(rules[: len(holes)]):
            fills = [*filled.completions[:index], *[""] * (len(holes) - index)]
            block = make_block(problem.text, holes, fills, index, tokens, WindowOptions(budget=4096))
            assert rule == StopRule(block.suffix, ("#",), head=block.head, **block.reach._asdict())


@pytest.mark.parametrize(
    ("raw", "status", "complaint"),
    [
        (b"not json", 200, "cannot be used"),
        (b"{}", 200, "is not OpenAI-compatible: its answer lacks 'choices'"),
        (b'{"choices": []}', 200, "lacks list index"),
        (b'{"choices": [{"text": "a"}]}', 200, "lacks 'usage'"),
        (b"no suffix\nhere", 400, "answered 400 Bad Request: no suffix here"),
    ],
)
def test_server_that_does_not_answer_as_it_should(server: Server, raw: bytes, status: int, complaint: str):
    server.raw, server.status = raw, status
    with pytest.raises(ServerFailed, match=complaint) as raised:
        decoder(server).fill(PROBLEMS[0], Rules(), 0)
    assert "\n" not in str(raised.value)


def test_server_that_is_not_there():
    with pytest.raises(ServerFailed, match="start the server"):
        CompletionServer("openai:http://127.0.0.1:9/v1").fill(PROBLEMS[0], Rules(), 0)


@pytest.mark.parametrize("name", ["openai:", "openai:localhost:80", "openai:file:///etc/passwd"])
def test_address_that_is_none(name: str):
    with pytest.raises(BadOption, match="names no server"):
        CompletionServer(name)


# ---- llama.cpp


@pytest.fixture(scope="module")
def infiller(tmp_path_factory: pytest.TempPathFactory) -> Infiller:
    folder = tiny.write_model(tmp_path_factory.mktemp("model"))
    return Infiller.from_pretrained(str(folder), adapter="none", dtype="float32")


SOME = [
    PROBLEMS[0],
    Problem("inside", ("def f(n):\n    return n.val", " + 1\n"), ("ue",), "", "f"),  # a token is healed
    Problem("two", ("def f(n):\n    ", "\n    return ", "\n"), ("m = n", "m"), "", "f"),
    Problem("open", ("def f(n):\n", ""), ("    return n\n",), "", "f"),
]


@pytest.mark.parametrize("problem", SOME, ids=lambda problem: problem.task_id)
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_llama_cpp_fills_as_leftmost_does(infiller: Infiller, problem: Problem, temperature: float):
    rules = Rules(max_tokens=12, stops=("\ndef",), temperature=temperature)
    other = outside.llama_cpp("llama-cpp", Library(infiller), "file.gguf", infiller, room=500)
    mine, theirs = PolicyDecoder("leftmost", infiller).fill(problem, rules, 0), other.fill(problem, rules, 0)
    assert theirs.completions == mine.completions
    assert (theirs.tokens, theirs.forwards, theirs.finished) == (mine.tokens, mine.forwards, mine.finished)
    assert other.name == "llama-cpp"


def test_llama_cpp_sees_the_same_ids_once(infiller: Infiller):
    library = Library(infiller)
    other = outside.llama_cpp("llama-cpp", library, "file.gguf", infiller, room=500)
    filled = other.fill(PROBLEMS[0], Rules(max_tokens=5), 0)
    hole = Hole(*PROBLEMS[0].holes[0])
    block = make_block(PROBLEMS[0].text, [hole], [""], 0, infiller.model.tokens, infiller.window)
    assert library.evaluated[0] == list(block.context)
    assert [len(ids) for ids in library.evaluated[1:]] == [1] * (filled.tokens - 1)
    loaded = library.loaded[0]
    assert (loaded["path"], loaded["n_ctx"] >= 500, loaded["n_threads"]) == ("file.gguf", True, torch.get_num_threads())


# ---- the line-up


def test_servers_alone_need_no_model():
    def load() -> Infiller:
        raise AssertionError("a model was loaded")

    (only,) = lineup.assemble(Settings("humaneval", decoders=("openai:http://h/v1",)), load)
    assert (only.name, only.in_process) == ("openai:http://h/v1", False)


def test_line_up_keeps_the_order(infiller: Infiller, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outside, "import_llama_cpp", lambda: Library(infiller))
    names = ("verified", "openai:http://h/v1", "llama-cpp", "leftmost")
    found = lineup.assemble(Settings("humaneval", decoders=names, model="some.gguf"), lambda: infiller)
    assert tuple(decoder.name for decoder in found) == names


def test_what_is_wrong_is_found_before_the_model(monkeypatch: pytest.MonkeyPatch, infiller: Infiller):
    def load() -> Infiller:
        raise AssertionError("a model was loaded")

    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(BadOption, match="pip install llama-cpp-python"):
        lineup.assemble(Settings("humaneval", decoders=("llama-cpp",)), load)
    monkeypatch.setattr(outside, "import_llama_cpp", lambda: Library(infiller))
    with pytest.raises(BadOption, match="GGUF files only"):
        lineup.assemble(Settings("humaneval", decoders=("llama-cpp",), model="folder"), load)
    for settings in (Settings("humaneval", ("llama-cpp",)), Settings("humaneval", ("llama-cpp",), infill="folder")):
        with pytest.raises(BadOption, match="add --infill none"):
            lineup.assemble(settings, load)
    with pytest.raises(BadOption, match="names no server"):
        lineup.assemble(Settings("humaneval", decoders=("leftmost", "openai:nowhere")), load)
