"""Memory over a long day: 10,000 requests at changing places of changing documents."""

import os
import sys
from pathlib import Path

import pytest

from diffcode.evals.editor import INVOKED, EditorProcess, items
from diffcode.evals.stress import anonymous

TESTS = Path(__file__).parent.parent
FAKE = (sys.executable, str(TESTS / "lsp" / "node" / "fake_server.py"), "lsp")
REQUESTS, WARM, BATCH = 10_000, 2_000, 20
MOST = 8  # MB that the other 8,000 may add; measured 2.2


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_ten_thousand_requests_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS / "lsp" / "node")]))
    shown, sizes = 0, {}
    with EditorProcess(FAKE) as editor:
        for first in range(0, REQUESTS, BATCH):
            uri = f"file:///project/{first % 700}.py"
            editor.open(uri, "def triple(x):\n    pass\n\nvalue = 3 * \n")
            asked = []
            for i in range(BATCH // 2):
                editor.insert(uri, 1, 8, f"\n    value_{first}_{i} = 1")
                asked.append(editor.begin_suggestion(uri, 3 + 1 + i, len("value = 3 * "), INVOKED))
                asked.append(editor.begin("textDocument/codeAction", action(uri)))
            replies = [editor.end(number) for number in asked]
            assert all(reply.error is None or reply.error["code"] in (-32800, -32801) for reply in replies)
            shown += sum(bool(items(reply)) for reply in replies[::2])
            editor.close(uri)
            if first + BATCH in (WARM, REQUESTS):
                sizes[first + BATCH] = anonymous(editor.server.pid)
    assert shown > REQUESTS / 40
    assert sizes[REQUESTS] - sizes[WARM] < MOST, sizes


def action(uri: str) -> dict:
    whole = {"start": {"line": 1, "character": 0}, "end": {"line": 1, "character": 8}}
    return {"textDocument": {"uri": uri}, "range": whole, "context": {"diagnostics": []}}
