"""Every real editor's `initialize` is answered, and what is sent holds against the protocol's own model."""

import asyncio
import json

import pytest
from lsp_demo import Demo
from lsp_kit import CLIENTS, URI, did_open, request, served

from diffcode.lsp.client import Client

lsprotocol = pytest.importorskip("lsprotocol")
from lsprotocol import converters, types  # noqa: E402

NAMES = sorted(path.stem for path in CLIENTS.glob("*.json"))
ENCODING = {"eglot": "utf-32", "lsp-mode": "utf-32", "helix": "utf-8", "neovim-0.11": "utf-8", "neovim-0.12": "utf-8"}
INLINE = {"vscode-9", "vscode-10", "neovim-0.12", "lsp-mode"}
RESOLVE = {"vscode-9", "vscode-10", "neovim-0.11", "neovim-0.12", "helix", "eglot", "lsp-mode", "zed", "sublime"}
NO_FOLDER = {"kate", "sublime"}
MODELS = {
    "window/logMessage": types.LogMessageParams,
    "workspace/configuration": types.ConfigurationParams,
    "client/registerCapability": types.RegistrationParams,
    "window/workDoneProgress/create": types.WorkDoneProgressCreateParams,
    "window/showMessage": types.ShowMessageParams,
}


def params_of(name: str) -> dict:
    return json.loads((CLIENTS / f"{name}.json").read_text(encoding="utf-8")) | {"processId": None}


def test_all_clients_are_there():
    wanted = {
        "vscode-9",
        "vscode-10",
        "neovim-0.11",
        "neovim-0.12",
        "helix",
        "eglot",
        "lsp-mode",
        "kate",
        "zed",
        "sublime",
    }
    assert set(NAMES) == wanted
    readme = (CLIENTS / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}.json`" in readme for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_initialize_is_answered_within_what_the_client_supports(name):
    async def run():
        async with served([Demo()], params_of(name)) as (server, wire):
            wire.feed(did_open("x"), request(1, "demo/text", {"textDocument": {"uri": URI}}))
            progress = server.progress.start("Loading")
            server.progress.start("Filling", "token").end()
            assert (await wire.answer(1))["result"]["text"] == "x"
            progress.end()
            return (await wire.answer("init"))["result"], wire.sent

    result, sent = asyncio.run(run())
    converter = converters.get_converter()
    known = converter.structure(result, types.InitializeResult)
    again = json.loads(json.dumps(converter.unstructure(known), default=vars))
    assert again == result  # the model knows every field
    capabilities = result["capabilities"]
    assert capabilities.get("positionEncoding", "utf-16") == ENCODING.get(name, "utf-16")
    assert ("positionEncoding" in capabilities) == ("general" in params_of(name)["capabilities"] and name != "sublime")
    assert ("inlineCompletionProvider" in capabilities) == (name in INLINE)
    assert capabilities["codeActionProvider"]["resolveProvider"] == (name in RESOLVE)
    for message in sent:
        if message.get("method") in MODELS:
            converter.structure(message["params"], MODELS[message["method"]])
    asked = {m["method"] for m in sent if "method" in m and "id" in m}
    assert ("workspace/configuration" in asked) == (name != "kate")


@pytest.mark.parametrize("name", NAMES)
def test_the_client_is_understood(name):
    client = Client.of(params_of(name))
    assert (client.name == "") == (name == "kate")
    assert (client.folders == ()) == (name in NO_FOLDER)
    assert client.supports("textDocument.inlineCompletion") == (name in INLINE)
    assert client.supports("textDocument.codeAction.tagSupport") == (name == "vscode-10")
    assert not client.supports("textDocument.nothing.at.all")


def test_null_means_no_for_all_but_lsp_mode():
    capabilities = {"a": {"yes": {}, "no": None, "off": False, "on": True}}
    other, lsp_mode = (Client(name=name, capabilities=capabilities) for name in ("helix", "emacs"))
    assert [other.supports(f"a.{key}") for key in capabilities["a"]] == [True, False, False, True]
    assert [lsp_mode.supports(f"a.{key}") for key in capabilities["a"]] == [True, True, False, True]
    assert not lsp_mode.supports("a.missing")
