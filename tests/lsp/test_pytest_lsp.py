"""The server with a client that is not ours: pytest-lsp's, which checks results against the client's capabilities."""

import os
import sys

import pytest
from lsp_kit import DEMO, URI

pytest_lsp = pytest.importorskip("pytest_lsp")
from lsprotocol import types  # noqa: E402
from pytest_lsp import ClientServerConfig, LanguageClient, client_capabilities  # noqa: E402

ENVIRONMENT = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": str(DEMO.parent)}


@pytest_lsp.fixture(
    config=ClientServerConfig(server_command=[sys.executable, str(DEMO)], server_env=ENVIRONMENT),
    params=["visual-studio-code", "neovim", "emacs"],
)
async def client(lsp_client: LanguageClient, request: pytest.FixtureRequest):
    lsp_client.feature(types.CLIENT_REGISTER_CAPABILITY)(lambda _params: None)
    parameters = types.InitializeParams(capabilities=client_capabilities(request.param), process_id=os.getpid())
    lsp_client.initialized_with = await lsp_client.initialize_session(parameters)
    yield
    await lsp_client.shutdown_session()


@pytest.mark.asyncio
async def test_a_session(client: LanguageClient):
    assert client.initialized_with.server_info.name == "diffcode"
    assert client.initialized_with.capabilities.text_document_sync.change is types.TextDocumentSyncKind.Incremental
    item = types.TextDocumentItem(uri=URI, language_id="python", version=1, text="a\nb\n")
    client.text_document_did_open(types.DidOpenTextDocumentParams(item))
    place = types.Position(1, 1)
    change = types.TextDocumentContentChangePartial(text="😀", range=types.Range(place, place))
    identifier = types.VersionedTextDocumentIdentifier(version=2, uri=URI)
    client.text_document_did_change(types.DidChangeTextDocumentParams(identifier, [change]))
    result = await client.protocol.send_request_async("demo/text", {"textDocument": {"uri": URI}})
    assert (result.text, result.version, result.lines) == ("a\nb😀\n", 2, 3)
    command = types.ExecuteCommandParams(command="demo.count", arguments=[1, 2, 3])
    assert await client.workspace_execute_command_async(command) == 3
