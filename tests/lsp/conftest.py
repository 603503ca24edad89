"""Fixtures of the VS Code extension: Node with what it needs, the extension made in a copy, a workspace.

What Node needs (294 packages, 8 s) is installed once into pytest's cache folder.
"""

import hashlib
import shutil
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from lsp_vscode import EXTENSION, NO_NETWORK, ROOT, SCRIPTS, TEXT, program, run


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    if found is None or shutil.which("npm") is None:
        pytest.skip("there is no Node with npm here")
    version = run(found, "--version").stdout
    if int(version[1:].split(".")[0]) < 20:
        pytest.skip(f"Node 20 is needed, {version.strip()} is here")
    return found


@pytest.fixture(scope="module")
def modules(node: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder node_modules of what the lock file names."""
    cache = getattr(request.config, "cache", None)
    top = cache.mkdir("vscode") if cache is not None else tmp_path_factory.mktemp("modules")
    lock = (EXTENSION / "package-lock.json").read_bytes()
    place = top / hashlib.sha256(lock).hexdigest()[:12]
    with FileLock(f"{place}.lock", timeout=300):
        if not (place / "done").exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            for name in ("package.json", "package-lock.json", ".npmrc"):
                shutil.copy(EXTENSION / name, place)
            patience = ["--fetch-retries=1", "--fetch-timeout=20000"]
            done = run("npm", "ci", "--prefer-offline", *patience, cwd=place, seconds=240)
            away = [line for line in done.stderr.splitlines() if any(sign in line for sign in NO_NETWORK)]
            if done.returncode and away:
                pytest.skip(f"the npm registry is not to be reached: {away[0]}")
            assert done.returncode == 0, done.stderr
            (place / "done").touch()
    return place / "node_modules"


@pytest.fixture(scope="module")
def copy(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The extension in a copy of the checkout, its types checked and its bundle made."""
    root = tmp_path_factory.mktemp("checkout")
    place = root / "editors" / "vscode"
    shutil.copytree(EXTENSION, place, ignore=shutil.ignore_patterns("node_modules", "out", "*.vsix"))
    (root / "lsp").mkdir()
    shutil.copy(ROOT / "lsp" / "settings.schema.json", root / "lsp")
    (place / "node_modules").symlink_to(modules, target_is_directory=True)
    for script in ("check", "build"):
        done = run("npm", "run", script, cwd=place)
        assert done.returncode == 0, done.stdout + done.stderr
    return place


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder with a file of code and, in its virtual environment, a `diffcode` over a made-up model."""
    folder = tmp_path / "work space"
    program(folder / ".venv" / "bin" / "diffcode", f'exec "{sys.executable}" -P "{SCRIPTS / "fake_server.py"}" "$@"\n')
    (folder / "a.py").write_text(TEXT, encoding="utf-8")
    return folder
