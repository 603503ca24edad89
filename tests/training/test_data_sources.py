"""Folders, rows, the hub, and the packages around a Python."""

import gzip
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from diffcode.errors import BadOption, DiffcodeError, UnreadableFile
from diffcode.training.installed import Installed
from diffcode.training.sources import Item, RowOptions, folder_items, is_listed, items_of

ROWS = RowOptions()


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"# {name}\n")


def names(items: list[Item]) -> list[str]:
    return [item.name for item in items]


# ---- folders


def test_a_folder_gives_its_code(tmp_path: Path) -> None:
    write(
        tmp_path, "b/x.py", "b/notes.md", "a.go", "b/deep/y.rs", ".hidden/z.py", "node_modules/m/i.js", "env/pyvenv.cfg"
    )
    write(tmp_path, "env/lib/site.py", "b/__pycache__/x.py")
    (tmp_path / "link.py").symlink_to(tmp_path / "b/x.py")
    (tmp_path / "loop").symlink_to(tmp_path)
    items = list(folder_items(tmp_path))
    assert [(i.name, i.language, i.package) for i in items] == [
        ("a.go", "go", tmp_path.name),
        ("b/deep/y.rs", "rust", f"{tmp_path.name}/b"),
        ("b/x.py", "python", f"{tmp_path.name}/b"),
    ]


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True)


def test_a_repository_gives_what_git_does_not_ignore(tmp_path: Path) -> None:
    write(tmp_path, "src/a.py", "src/new.py", "build/made.py", ".github/tool.py", "src/gone.py")
    (tmp_path / ".gitignore").write_text("build/\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "src/a.py", "src/gone.py", ".github")
    (tmp_path / "src/gone.py").unlink()
    assert names(list(folder_items(tmp_path))) == [".github/tool.py", "src/a.py", "src/new.py"]
    assert names(list(folder_items(tmp_path / "src"))) == ["a.py", "new.py"]
    assert names(list(folder_items(tmp_path / "build"))) == ["made.py"]  # whoever names it means it


def test_a_folder_of_repositories_follows_each_ones_rules(tmp_path: Path) -> None:
    write(tmp_path, "one/a.py", "one/junk.py", "two/junk.py")
    (tmp_path / "one/.gitignore").write_text("junk.py\n")
    git(tmp_path / "one", "init", "-q")
    assert names(list(folder_items(tmp_path))) == ["one/a.py", "two/junk.py"]


def test_manifests_name_packages_and_licences(tmp_path: Path) -> None:
    write(
        tmp_path, "npm/@scope/lib/src/a.ts", "npm/@scope/lib/packages/inner/b.ts", "crate/src/c.rs", "mine/d.py", "e.py"
    )
    write(tmp_path, "text/f.go", "broken/g.js")
    (tmp_path / "npm/@scope/lib/package.json").write_text('{"license": "MIT"}')
    (tmp_path / "npm/@scope/lib/packages/inner/package.json").write_text('{"license": "GPL-3.0"}')
    (tmp_path / "crate/Cargo.toml").write_text('[package]\nlicense = "MIT/Apache-2.0"\n')
    (tmp_path / "mine/pyproject.toml").write_text('[project]\nlicense = {text = "GPL-3.0-only"}\n')
    (tmp_path / "text/LICENSE.txt").write_text("Apache License\nVersion 2.0")
    (tmp_path / "broken/package.json").write_text("{")
    found = {
        i.name: (i.package.removeprefix(f"{tmp_path.name}/"), i.licence, i.permissive) for i in folder_items(tmp_path)
    }
    assert found == {
        "npm/@scope/lib/src/a.ts": ("npm/@scope/lib", "MIT", True),
        "npm/@scope/lib/packages/inner/b.ts": ("npm/@scope/lib", "MIT", True),
        "crate/src/c.rs": ("crate", "MIT", True),
        "mine/d.py": ("mine", "GPL-3.0-only", False),
        "e.py": (tmp_path.name, "unknown", False),
        "text/f.go": ("text", "Apache-2.0", True),
        "broken/g.js": ("broken", "unknown", False),
    }


@pytest.mark.parametrize("source", ["nowhere", "notes.txt"])
def test_what_is_no_source_is_said_at_once(source: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UnreadableFile, match=r"give .*folder"):
        items_of(str(tmp_path / source), ROWS)


# ---- rows

TABLE = [
    {"content": "x = 1\n", "path": "a.py", "license": "MIT", "repo_name": "o/r"},
    {"content": "let y\n", "path": "b.js", "license": ["MIT", "GPL-3.0"], "repo_name": "o/r"},
    {"content": "int z;\n", "path": "c.c", "license": None, "repo_name": None},
    {"content": None, "path": "d.py", "license": None, "repo_name": None},
]


def check_table(items: list[Item]) -> None:
    assert [(i.text, i.language, i.licence, i.permissive) for i in items] == [
        ("x = 1\n", "python", "MIT", True),
        ("let y\n", "javascript", "['MIT', 'GPL-3.0']", False),
        ("int z;\n", "c", "unknown", False),
    ]
    assert items[0].package == items[1].package == "o/r" != items[2].package


def test_rows_of_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, [*TABLE[:1], *TABLE[2:]])).encode()))
    assert not is_listed(str(path))
    assert [i.text for i in items_of(str(path), ROWS)] == ["x = 1\n", "int z;\n"]


def test_rows_of_parquet(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    table = [
        row | {"license": [row["license"]] if isinstance(row["license"], str) else row["license"]} for row in TABLE
    ]
    parquet.write_table(pyarrow.Table.from_pylist(table), tmp_path / "rows.parquet")
    check_table(list(items_of(str(tmp_path / "rows.parquet"), ROWS)))


def test_columns_and_language_may_be_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"body": "x", "lang": "C++"}\n{"body": "y", "lang": ""}\n')
    items = list(items_of(str(path), RowOptions(text_column="body", language="go")))
    assert [(i.text, i.language) for i in items] == [("x", "cpp"), ("y", "go")]
    for options in (ROWS, RowOptions(text_column="boddy")):
        with pytest.raises(BadOption, match=r"--text-column out of body, lang"):
            list(items_of(str(path), options))


@pytest.mark.parametrize(
    ("name", "data"), [("rows.jsonl", b"{broken"), ("rows.parquet", b"no parquet"), ("r.jsonl.gz", b"no")]
)
def test_damaged_rows_are_one_line(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DiffcodeError, match=name) as caught:
        list(items_of(str(tmp_path / name), ROWS))
    assert "\n" not in str(caught.value)


def test_without_a_connection_the_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UnreadableFile, match="nobody/nothing") as caught:
        items_of("hub:nobody/nothing", ROWS)
    assert "\n" not in str(caught.value)
    assert "connection" in str(caught.value)


@pytest.mark.parametrize("source", ["hub:", "hub:name", "hub:a/b/c"])
def test_a_hub_name_has_two_parts(source: str) -> None:
    with pytest.raises(BadOption, match="OWNER/NAME"):
        items_of(source, ROWS)


def test_a_hub_folder_and_streaming_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load(name: str, **options: object) -> list[dict[str, str]]:
        asked.append((name, options))
        return [{"content": "x", "path": "a.py"}]

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert [i.text for i in items_of("hub:o/n:data/python", ROWS)] == ["x"]
    assert asked == [("o/n", {"split": "train", "streaming": True, "data_dir": "data/python"})]


# ---- installed packages


def install(site: Path, name: str, *metadata: str, files: tuple[str, ...] = (), record: bool = True) -> None:
    folder = site / f"{name}-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("\n".join(["Metadata-Version: 2.4", f"Name: {name}", *metadata]) + "\n")
    write(site, *files)
    if record:
        (folder / "RECORD").write_text("".join(f"{file},,\n" for file in files))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "lib/python3.11/site-packages"
    install(
        site, "Free_Thing", "License-Expression: MIT", files=("free/a.py", "free/b.js", "free/data.txt", "free/s.pyi")
    )
    install(site, "dual", "License-Expression: GPL-2.0-only OR BSD-3-Clause", files=("dual.py",))
    install(site, "old", "Classifier: License :: OSI Approved :: Apache Software License", files=("old/x.py",))
    install(site, "field", "License: BSD", files=("field.py", "../../../bin/field.py"))
    install(site, "copyleft", "License-Expression: GPL-3.0-only", files=("copyleft.py",))
    install(
        site, "weak", "Classifier: License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)", files=("weak.py",)
    )
    install(site, "silent", files=("silent.py",))
    install(site, "listless", "License-Expression: MIT", record=False)
    write(site, "stray.py")  # nobody's
    return site


def test_only_permissive_packages_count(site: Path) -> None:
    installed = Installed.of(str(site))
    found = {(i.package, i.name, i.licence) for i in installed.items()}
    assert found == {
        ("free-thing", "free/a.py", "MIT"),
        ("free-thing", "free/b.js", "MIT"),
        ("free-thing", "free/s.pyi", "MIT"),
        ("dual", "dual.py", "BSD-3-Clause"),
        ("old", "old/x.py", "Apache-2.0"),
        ("field", "field.py", "BSD"),
    }
    unknown = "licence unknown or not permissive"
    assert installed.left_out == {
        "copyleft": unknown,
        "weak": unknown,
        "silent": unknown,
        "listless": "no list of files",
    }


def test_an_environment_is_named_by_folder_or_interpreter(site: Path, tmp_path: Path) -> None:
    assert Installed.of(str(tmp_path)).folders == (site,)
    assert Installed.of(sys.executable).folders == Installed.of(None).folders
    venv.create(tmp_path / "other", with_pip=False)
    (folder,) = Installed.of(str(tmp_path / "other/bin/python")).folders
    assert folder.is_relative_to(tmp_path / "other")


@pytest.mark.parametrize("python", ["nowhere", os.devnull, "/bin/false"])
def test_no_python_is_said(python: str) -> None:
    with pytest.raises(UnreadableFile, match="interpreter"):
        Installed.of(python)
