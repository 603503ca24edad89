"""The packaged extension in VS Code itself: the workbench of code-server in a headless Chromium, typed in as by hand.

`make vscode` (DIFFCODE_VSCODE=1); apart from `make test`, for it fetches 190 MB from the npm registry, once, into
pytest's cache folder. Pictures lie in the tests' temporary folder.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from filelock import FileLock
from lsp_browser import ALT, CONTROL, SHIFT, browser, find_browser
from lsp_vscode import ACCEPTED, FILLED, NO_NETWORK, TEXT, environment, run

from diffcode.version import VERSION

CODE = "code-server@4.96.4"  # VS Code 1.96.4; the last ones for Node 20
SETTINGS = {
    "security.workspace.trust.enabled": False,
    "workbench.startupEditor": "none",
    "editor.minimap.enabled": False,
    "telemetry.telemetryLevel": "off",
}
READY = "document.querySelector('.statusbar .codicon-wand') !== null"
GHOST = (
    "[...document.querySelectorAll('[class*=ghost-text-decoration]')].map((ghost) => ghost.textContent).join('')"
    + r".replace(/\u00a0/g, ' ')"
)
TOLD = "[...document.querySelectorAll('.notification-list-item-message')].map((one) => one.textContent).join()"

pytestmark = pytest.mark.skipif("DIFFCODE_VSCODE" not in os.environ, reason="`make vscode` fetches VS Code")


@pytest.fixture(scope="module")
def code(node: str, request: pytest.FixtureRequest) -> Path:
    """VS Code's server. Its native modules are left out: it logs without them, and needs no terminal."""
    place = request.config.cache.mkdir("vscode") / CODE
    inner = place / "node_modules" / "code-server" / "lib" / "vscode"
    with FileLock(f"{place}.lock", timeout=600):
        if not (place / "done").exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            (place / "package.json").write_text("{}")
            npm = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev"]
            for folder, names in ((place, [CODE]), (inner, [])):
                (folder / "npm-shrinkwrap.json").unlink(missing_ok=True)  # it names a repository beside the registry
                done = run(*npm, *names, cwd=folder, seconds=300)
                away = [line for line in done.stderr.splitlines() if any(sign in line for sign in NO_NETWORK)]
                if done.returncode and away:
                    pytest.skip(f"the npm registry is not to be reached: {away[0]}")
                assert done.returncode == 0, done.stderr
            (place / "done").touch()
    return inner / "out" / "server-main.js"


@pytest.fixture
def address(node: str, code: Path, copy: Path, workspace: Path, tmp_path: Path):
    """VS Code with the extension, as `npm run package` makes it, and the workspace open."""
    done = run("npm", "run", "package", cwd=copy)
    assert done.returncode == 0, done.stdout + done.stderr
    data, extensions = tmp_path / "data", tmp_path / "extensions"
    (data / "data" / "User").mkdir(parents=True)
    (data / "data" / "Machine").mkdir(parents=True)
    for kind in ("User", "Machine"):
        (data / "data" / kind / "settings.json").write_text(json.dumps(SETTINGS))
    folders = ["--accept-server-license-terms", "--server-data-dir", data, "--extensions-dir", extensions]
    done = run(node, code, *folders, "--install-extension", copy / f"diffcode-{VERSION}.vsix", env=environment())
    assert "successfully installed" in done.stdout, done.stdout + done.stderr
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    how = ["--host", "127.0.0.1", "--port", port, "--without-connection-token", "--telemetry-level", "off"]
    command = [node, *map(str, [code, *folders, *how])]
    with (tmp_path / "code.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment(), start_new_session=True)
    try:
        end = time.monotonic() + 60
        while b"agent started" not in (tmp_path / "code.log").read_bytes():
            assert time.monotonic() < end, (tmp_path / "code.log").read_text()
            time.sleep(0.1)
        open_it = json.dumps([["openFile", f"vscode-remote://127.0.0.1:{port}{workspace / 'a.py'}"]])
        yield f"http://127.0.0.1:{port}/?folder={workspace}&payload={open_it}".replace(" ", "%20")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


def test_a_suggestion_is_taken_holes_are_filled_and_undone(address: str, workspace: Path, tmp_path: Path):
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium: apt-get install chromium, or DIFFCODE_CHROMIUM")

    def saved(wanted: str) -> None:
        """The text, as VS Code writes it to the disk."""
        end = time.monotonic() + 20
        while (text := (workspace / "a.py").read_text(encoding="utf-8")) != wanted:
            assert time.monotonic() < end, text
            tab.press("s", CONTROL)
            time.sleep(0.1)

    with browser(program, tmp_path / "profile") as tab:
        tab.go(address)
        tab.until(READY)
        tab.until("document.querySelector('.view-line') !== null")
        tab.click(".view-lines")
        tab.press("End", CONTROL)
        tab.press("ArrowLeft")
        tab.press("Backspace")
        tab.type(" ")
        assert tab.until(GHOST) == "2 * x"
        tab.picture(tmp_path / "ghost.png")
        tab.press("Tab")
        saved(ACCEPTED)
        tab.press("d", ALT | SHIFT)
        tab.press("a")
        saved(FILLED)
        tab.picture(tmp_path / "filled.png")
        tab.press("z", CONTROL)
        saved(ACCEPTED)
        tab.press("z", CONTROL)
        saved(TEXT)
        tab.press("d", ALT | SHIFT)
        tab.press("s")
        assert "; 1 of " in tab.until(f"(told => told.includes('suggestions accepted') && told)({TOLD})")
        tab.picture(tmp_path / "status.png")
