"""The wheel holds all of diffcode and nothing else. An editable install works with a forgotten subpackage, a wheel
does not: so the wheel is built here and its list of files compared with the disk."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAPPED = ("kernels", "evals", "lsp", "training")
FILES = ("pyproject.toml", "README.md", "LICENSE", "NOTICE")
INSTALLED_NAMES = """
import importlib.util, json, sys
sys.path.insert(0, sys.argv[1])
print(json.dumps([name for name in sys.argv[2:] if importlib.util.find_spec(name) is not None]))
"""
LOADED_MODULES = (
    "import importlib, json, sys; importlib.import_module(sys.argv[1]); print(json.dumps(list(sys.modules)))"
)


def packages() -> dict[str, str]:
    """Folders that are packages, and the names they are installed under."""
    mapped = {folder: f"diffcode/{folder}" for folder in MAPPED if (ROOT / folder / "__init__.py").exists()}
    return {"diffcode": "diffcode", **mapped}


def on_disk(suffixes: set[str]) -> set[str]:
    """The packages' files with these suffixes, as they should be called in the wheel."""
    return {
        str(PurePosixPath(name, path.relative_to(ROOT / folder).as_posix()))
        for folder, name in packages().items()
        for path in (ROOT / folder).rglob("*")
        if path.suffix in suffixes and path.is_file()
    }


def run(*command: str, **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the checkout stays clean and no old build/ folder helps out."""
    tree = tmp_path_factory.mktemp("tree")
    for name in FILES:
        shutil.copy(ROOT / name, tree)
    for folder in packages():
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(tree))
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-compile")
    run(*pip, "--no-deps", "--no-index", "--target", str(target), str(wheel))
    return target


def test_wheel_holds_every_module(names: set[str]):
    assert {name for name in names if name.endswith(".py")} == on_disk({".py"})


def test_wheel_holds_the_data_files(names: set[str]):
    data = on_disk({".safetensors", ".json", ".md"})
    adapter = "diffcode/adapters/qwen2.5-coder-0.5b/"
    assert {adapter + "adapter_model.safetensors", adapter + "adapter_config.json"} <= data
    assert {name for name in data if name.startswith("diffcode/adapters/")} <= names
    assert {"diffcode/py.typed", "diffcode/lsp/settings.schema.json"} <= names
    assert {f"diffcode/lsp/page/{name}" for name in ("index.html", "page.css", "page.js", "licences.txt")} <= names


def test_wheel_has_one_top_level_name(names: set[str]):
    tops = {name.partition("/")[0] for name in names}
    (info,) = tops - {"diffcode"}
    assert info.endswith(".dist-info")


@pytest.mark.parametrize("name", ["LICENSE", "NOTICE"])
def test_licence_files_are_in_the_metadata(name: str, wheel: Path, names: set[str]):
    (path,) = (path for path in names if path.endswith(f".dist-info/licenses/{name}"))
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(path) == (ROOT / name).read_bytes()


def test_bare_folder_names_are_not_installed(installed: Path):
    wanted = [name.replace("/", ".") for name in packages().values()]
    out = run(sys.executable, "-I", "-S", "-c", INSTALLED_NAMES, str(installed), *MAPPED, *wanted, cwd=installed)
    assert json.loads(out) == wanted


def test_command_is_installed(names: set[str], wheel: Path):
    (path,) = (path for path in names if path.endswith("entry_points.txt"))
    with zipfile.ZipFile(wheel) as archive:
        assert "diffcode = diffcode.cli:main" in archive.read(path).decode()


@pytest.mark.parametrize("module", ["diffcode", "diffcode.cli", "diffcode.evals.command", "diffcode.lsp.command"])
def test_import_loads_no_torch(module: str):
    # `diffcode --help` and shell completion answer at once only without it.
    out = run(sys.executable, "-P", "-c", LOADED_MODULES, module, env={**os.environ, "PYTHONSAFEPATH": "1"})
    assert module in (modules := json.loads(out))
    assert not {"torch", "transformers", "gguf"} & set(modules)
