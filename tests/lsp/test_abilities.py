"""Every ability at once: for each real editor, and as a process with a tiny model or the real one."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
from lsp_fake import FakeFiller, Loads, applied, ask, place, span
from lsp_kit import CLIENTS, URI, did_change, did_open, request, served, shut_down, start

from diffcode.lsp import lens
from diffcode.lsp.abilities import abilities
from diffcode.lsp.session import Session
from diffcode.syntax import Code, faults

types = pytest.importorskip("lsprotocol").types
from lsprotocol import converters  # noqa: E402

NAMES = sorted(path.stem for path in CLIENTS.glob("*.json"))
INLINE = {"vscode-9", "vscode-10", "neovim-0.12", "lsp-mode"}
TEXT = 'import math\n\n\ndef area(radius):\n    """Area of a circle."""\n    return ???\n\n\nprint(area(2))\n'
HOLE = TEXT.index("???")


@pytest.mark.parametrize("name", NAMES)
def test_every_editor_gets_what_it_knows(name, monkeypatch):
    monkeypatch.setattr(lens, "REST_SECONDS", 0.01)
    params = json.loads((CLIENTS / f"{name}.json").read_text(encoding="utf-8")) | {"processId": None}
    params["initializationOptions"] = {"debounce": 0, "doubtLens": True}

    async def run():
        session = Session(Loads(FakeFiller("math.pi", least_likely="area")))
        async with served(abilities(session), params) as (server, wire):
            known = (await wire.answer("init"))["result"]
            encoding, text = server.documents.encoding, TEXT.replace("???", "")
            wire.feed(did_open(text))
            inline = {"textDocument": {"uri": URI}, "position": place(text, HOLE, encoding), "context": {}}
            method = "inlineCompletion" if name in INLINE else "completion"
            found = await ask(wire, 1, f"textDocument/{method}", inline)
            wire.feed(did_change(2, {"text": TEXT}))
            where = span(TEXT, HOLE, HOLE, encoding)
            context = {"diagnostics": []}
            offers = {"textDocument": {"uri": URI}, "range": where, "context": context}
            actions = await ask(wire, 2, "textDocument/codeAction", offers)
            if known["capabilities"]["codeActionProvider"]["resolveProvider"]:
                actions[0] = await ask(wire, 3, "codeAction/resolve", actions[0])
            wire.feed(request(4, "textDocument/diagnostic", {"textDocument": {"uri": URI}}))
            await wire.answer(4)
        assert session.close(5)
        return known, method, found, actions, wire.sent

    known, method, found, actions, sent = asyncio.run(run())
    converter = converters.get_converter()
    result = converter.structure(known, types.InitializeResult)
    assert json.loads(json.dumps(converter.unstructure(result), default=vars)) == known
    assert ("inlineCompletionProvider" in known["capabilities"]) == (name in INLINE)
    assert ("completionProvider" in known["capabilities"]) == (name not in INLINE)
    kind = types.InlineCompletionList if method == "inlineCompletion" else types.CompletionList
    assert len(converter.structure(found, kind).items) == 1
    assert converter.structure(actions[0], types.CodeAction).title == "Fill ???"
    if known["capabilities"]["codeActionProvider"]["resolveProvider"]:
        (one,) = actions[0]["edit"]["documentChanges"]
        assert one["textDocument"]["version"] == 2
        annotated = "annotationId" in one["edits"][0]
        assert annotated == (name in ("vscode-9", "vscode-10", "neovim-0.12"))
    for message in sent:
        if message.get("method") == "textDocument/publishDiagnostics":
            converter.structure(message["params"], types.PublishDiagnosticsParams)


# ---- as a process


def test_the_abilities_load_no_torch():
    code = "import sys; from diffcode.lsp.abilities import abilities; abilities(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n", done.stderr


def test_a_process_with_a_tiny_model(tmp_path: Path):
    """Loading with progress and status, suggestions, an action through a command, memory of the last model's thread."""
    model = tiny.write_model(tmp_path / "model")
    environment = {**os.environ, "DIFFCODE_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    process, editor = start(env=environment)
    capabilities = {
        "textDocument": {"inlineCompletion": {}},
        "window": {"workDoneProgress": True},
        "experimental": {"diffcodeStatus": True},
    }
    options = {"model": str(model), "device": "cpu", "debounce": 0, "maxTokens": 12, "leastConfidence": 0}
    editor.initialize({"capabilities": capabilities, "initializationOptions": options})
    text = "one two ??? three\n"
    opened = did_open(text)
    opened["params"]["textDocument"] |= {"languageId": "basic", "uri": "file:///a.bas"}
    editor.send(opened)
    inline = {"textDocument": {"uri": "file:///a.bas"}, "position": place(text, 8), "context": {"triggerKind": 1}}
    editor.send(request("first", "textDocument/inlineCompletion", inline))
    created = editor.until(lambda m: m.get("method") == "window/workDoneProgress/create")
    editor.send({"jsonrpc": "2.0", "id": created["id"], "result": None})
    answer = editor.until(lambda m: m.get("id") == "first" and "method" not in m, 60)
    assert isinstance(answer["result"]["items"], list)
    states = [m["params"]["state"] for m in editor.messages if m.get("method") == "diffcode/status"]
    assert states[:2] == ["normal", "busy"]
    status = editor.request("workspace/executeCommand", {"command": "diffcode.status", "arguments": []})["result"]
    assert (status["loaded"], status["state"]) == (True, "normal")
    fill = {"command": "diffcode.fill", "arguments": ["file:///a.bas"]}
    editor.send(request("fill", "workspace/executeCommand", fill))
    got = editor.until(lambda m: m.get("method") == "workspace/applyEdit" or m.get("id") == "fill", 60)
    if "method" in got:  # a random model may also have nothing to say that passes
        editor.send({"jsonrpc": "2.0", "id": got["id"], "result": {"applied": True}})
        got = editor.until(lambda m: m.get("id") == "fill" and "method" not in m)
        assert got["result"] == {"applied": True}
    else:
        assert "nothing that fits" in got["error"]["message"]
    assert shut_down(process, editor) == ""
    assert process.returncode == 0


def test_a_process_without_a_model_says_why(tmp_path: Path):
    process, editor = start(env={**os.environ, "DIFFCODE_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"})
    options = {"model": str(tmp_path / "no such.gguf"), "debounce": 0}
    capabilities = {"textDocument": {"inlineCompletion": {}}, "experimental": {"diffcodeStatus": True}}
    editor.initialize({"capabilities": capabilities, "initializationOptions": options})
    text = TEXT.replace("???", "")
    inline = {"textDocument": {"uri": URI}, "position": place(text, HOLE), "context": {"triggerKind": 1}}
    editor.send(did_open(text))
    assert editor.request("textDocument/inlineCompletion", inline)["result"] == {"items": []}
    status = editor.request("workspace/executeCommand", {"command": "diffcode.status"})["result"]
    assert status["state"] == "inactive"
    assert "there is no model" in status["reason"]
    shut_down(process, editor)
    assert process.returncode == 0


def test_leaving_while_the_model_is_loaded_takes_no_time(tmp_path: Path):
    model = tiny.write_model(tmp_path / "model")
    process, editor = start(env={**os.environ, "DIFFCODE_HOME": str(tmp_path / "home")})
    editor.initialize({"capabilities": {}, "initializationOptions": {"model": str(model), "debounce": 0}})
    text = TEXT.replace("???", "")
    inline = {"textDocument": {"uri": URI}, "position": place(text, HOLE), "context": {"triggerKind": 1}}
    editor.send(did_open(text), request("never", "textDocument/inlineCompletion", inline))
    time.sleep(0.3)  # torch is being imported
    began = time.monotonic()
    shut_down(process, editor)
    assert process.returncode == 0
    assert time.monotonic() - began < 6
    assert any(m.get("id") == "never" and m["error"]["code"] == -32800 for m in editor.messages)


# ---- the real model


@pytest.fixture(scope="module")
def real():
    """One process, one load."""
    process, editor = start(env={**os.environ, "HF_HUB_OFFLINE": "1"})
    workspace = {"workspaceEdit": {"documentChanges": True}}
    action = {"codeActionLiteralSupport": {}, "resolveSupport": {"properties": ["edit"]}, "dataSupport": True}
    document = {"inlineCompletion": {}, "codeAction": action, "diagnostic": {}}
    options = {"debounce": 0, "doubtLens": True, "doubtBelow": 0.05}
    editor.initialize(
        {"capabilities": {"textDocument": document, "workspace": workspace}, "initializationOptions": options}
    )
    editor.request("workspace/executeCommand", {"command": "diffcode.reload"})
    yield editor
    shut_down(process, editor)


@pytest.mark.slow
def test_the_real_model_suggests_in_a_real_file(real):
    source = (Path(__file__).parents[2] / "diffcode" / "holes.py").read_text(encoding="utf-8")
    line = "        at = text.find(marker, at + len(marker))\n"
    cursor = source.index(line) + line.index("at + len")
    text = source[:cursor] + source[source.index("\n", cursor) :]
    real.send(did_open(text))
    inline = {"textDocument": {"uri": URI}, "position": place(text, cursor), "context": {"triggerKind": 2}}
    (item,) = real.request("textDocument/inlineCompletion", inline)["result"]["items"]
    print(f"\n{item['insertText']!r}")
    assert item["insertText"].startswith("at + ")
    assert faults(Code(applied(text, [item]), "python").root) == []


@pytest.mark.slow
def test_the_real_model_fills_all_holes_in_one_edit(real):
    uri = "file:///project/b.py"
    code = TEXT + '\n\ndef largest(numbers):\n    """The largest of some numbers."""\n    ...\n'
    real.send(did_open(code, uri=uri))
    offers = {"textDocument": {"uri": uri}, "range": span(code, 0, 0), "context": {"diagnostics": []}}
    chosen = next(a for a in real.request("textDocument/codeAction", offers)["result"] if "all 2" in a["title"])
    edit = real.request("codeAction/resolve", chosen)["result"]["edit"]
    (document,) = edit["documentChanges"]
    assert len(document["edits"]) == 2, "one edit of two places: one undo"
    done = applied(code, document["edits"])
    print(f"\n{re.sub('(?s).*def largest', 'def largest', done)}")
    assert faults(Code(done, "python").root) == []
    names: dict = {}
    exec(done, names)
    assert abs(names["area"](2) - 12.566) < 0.01
    assert names["largest"]([3, 7, 5]) == 7


@pytest.mark.slow
def test_the_real_model_doubts_a_misspelt_name_and_repairs_it(real):
    uri = "file:///project/c.py"
    body = "    total = sum(numbers)\n    return totel / len(numbers)\n"
    text = f'def mean(numbers):\n    """The mean of some numbers."""\n{body}'
    real.send(did_open(text, uri=uri))
    at = text.index("totel")
    hints = real.request("textDocument/diagnostic", {"textDocument": {"uri": uri}})["result"]["items"]
    assert any(hint["range"]["start"]["line"] == 3 and "`total`" in hint["message"] for hint in hints)
    problem = {"range": span(text, at, at + 5), "message": "totel is not defined"}
    offers = {"textDocument": {"uri": uri}, "range": span(text, at, at), "context": {"diagnostics": [problem]}}
    chosen = next(a for a in real.request("textDocument/codeAction", offers)["result"] if "Repair" in a["title"])
    edit = real.request("codeAction/resolve", chosen)["result"]["edit"]
    assert applied(text, edit["documentChanges"][0]["edits"]) == text.replace("totel", "total")
