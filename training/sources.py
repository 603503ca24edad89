"""Where documents come from: folders and repositories, files of rows, the model hub.

A source yields items in a fixed order. A file's item holds its path and is read later, by whoever filters it.
"""

import json
import os
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffcode.errors import BadOption, DiffcodeError, UnreadableFile
from diffcode.syntax import language_of
from diffcode.training import licences

UNKNOWN = "unknown"
TEXT_COLUMNS = ("content", "text", "code")
_ROW_ENDINGS = {".jsonl": "json", ".jsonl.gz": "json", ".json": "json", ".parquet": "parquet"}
_HUB = "hub:"
_PATH_COLUMNS = ("path", "file_path", "max_stars_repo_path", "filename")
_PACKAGE_COLUMNS = ("repo_name", "repository_name", "max_stars_repo_name", "repo", "package")
_LANGUAGE_COLUMNS = ("language", "lang", "programming_language")
_LICENCE_COLUMNS = ("license", "licence", "licenses", "max_stars_repo_licenses", "detected_licenses")
_MANIFESTS = ("package.json", "pyproject.toml", "Cargo.toml", "go.mod", ".git")
_LICENCE_FILES = ("LICENSE", "LICENCE", "COPYING")
_SKIPPED_FOLDERS = frozenset(("node_modules", "__pycache__", "site-packages"))
_LANGUAGE_NAMES = {"c++": "cpp", "js": "javascript", "ts": "typescript", "py": "python", "golang": "go"}


@dataclass(frozen=True, slots=True)
class Item:
    """One file or row."""

    package: str  # package, repository or top folder: what is capped and held out as one
    name: str  # path in it, with forward slashes
    language: str | None
    licence: str  # an SPDX expression of permissive licences, or whatever else is known
    permissive: bool
    path: Path | None = None  # where the text is,
    text: str | None = None  # or the text itself


@dataclass(frozen=True, slots=True)
class RowOptions:
    """How to read sources that are tables."""

    text_column: str | None = None
    language: str | None = None  # of rows that name none


def items_of(source: str, rows: RowOptions) -> Iterator[Item]:
    """The items of one SOURCE argument. Raises UnreadableFile at once, not at the first item."""
    if source.startswith(_HUB):
        return _hub_rows(source.removeprefix(_HUB), rows)
    path = Path(source).expanduser()
    if path.is_dir():
        return folder_items(path)
    if not path.is_file():
        raise UnreadableFile(f"there is no {source}: give a folder, a .jsonl or .parquet file, or hub:OWNER/NAME")
    kind = next((kind for ending, kind in _ROW_ENDINGS.items() if path.name.endswith(ending)), None)
    if kind is None:
        raise UnreadableFile(f"{source} is no source: give its folder, a .jsonl or .parquet file, or hub:OWNER/NAME")
    return _rows(_load(kind, source, data_files=str(path)), path.name, rows)


def is_listed(source: str) -> bool:
    """True for a source whose files are listed before they are read: their order can be drawn."""
    return not source.startswith(_HUB) and Path(source).expanduser().is_dir()


# ---- folders


def folder_items(folder: Path) -> Iterator[Item]:
    """Every code file of a folder; of a git repository what git does not ignore. Links are not followed."""
    folder = folder.resolve()
    packages: dict[Path, tuple[str, str, bool]] = {}
    for path in _listed(folder):
        language = language_of(path)
        if language is None or path.is_symlink() or not path.is_file():
            continue
        root = _package_root(path, folder, packages)
        if root not in packages:
            packages[root] = (_package_name(root, folder), *_licence_of(root, folder))
        name, licence, permissive = packages[root]
        yield Item(name, path.relative_to(folder).as_posix(), language, licence, permissive, path)


def _listed(folder: Path) -> Iterator[Path]:
    inside = _git(folder, "rev-parse", "--is-inside-work-tree") == b"true\n"
    # whoever names an ignored folder means it
    if inside and _git(folder, "check-ignore", "-q", ".") is None:
        found = _git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        if found is not None:
            yield from sorted({folder / os.fsdecode(name) for name in found.split(b"\0") if name})
            return
    yield from _walked(folder)


def _walked(folder: Path) -> Iterator[Path]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        if entry.is_file(follow_symlinks=False):
            yield path
        elif entry.is_dir(follow_symlinks=False) and not _is_skipped(path):
            yield from _listed(path) if (path / ".git").exists() else _walked(path)


def _is_skipped(folder: Path) -> bool:
    return folder.name.startswith(".") or folder.name in _SKIPPED_FOLDERS or (folder / "pyvenv.cfg").exists()


def _git(folder: Path, *arguments: str) -> bytes | None:
    """What git says; None if it fails or is not there."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def _package_root(path: Path, folder: Path, known: dict[Path, Any]) -> Path:
    """The topmost folder below `folder` with a manifest of its own, else the first folder on the way."""
    parts = path.relative_to(folder).parts[:-1]
    roots = [folder.joinpath(*parts[: depth + 1]) for depth in range(len(parts))]
    for root in roots:
        if root in known or any((root / name).exists() for name in _MANIFESTS):
            return root
    return roots[0] if roots else folder


def _package_name(root: Path, folder: Path) -> str:
    return folder.name if root == folder else f"{folder.name}/{root.relative_to(folder).as_posix()}"


def _licence_of(root: Path, folder: Path) -> tuple[str, bool]:
    """The licence by the manifest or licence file of `root`, else of `folder`, and whether it is permissive."""
    for place in dict.fromkeys((root, folder)):
        for read in (_npm_licence, _python_licence, _rust_licence, _licence_text):
            try:
                said = read(place)
            except (OSError, ValueError, AttributeError):
                continue
            if isinstance(said, str) and said.strip():
                known = licences.of_wording(said)
                return known or " ".join(said.split())[:60], known is not None
    return UNKNOWN, False


def _npm_licence(root: Path) -> Any:
    said = json.loads((root / "package.json").read_text(encoding="utf8")).get("license")
    return said.get("type") if isinstance(said, dict) else said


def _python_licence(root: Path) -> Any:
    said = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf8")).get("project", {}).get("license")
    return said.get("text") if isinstance(said, dict) else said


def _rust_licence(root: Path) -> Any:
    said = tomllib.loads((root / "Cargo.toml").read_text(encoding="utf8")).get("package", {}).get("license")
    return said.replace("/", " OR ") if isinstance(said, str) else None


def _licence_text(root: Path) -> str | None:
    found = sorted(path for path in root.iterdir() if path.name.upper().startswith(_LICENCE_FILES) and path.is_file())
    return found[0].read_text(encoding="utf8") if len(found) == 1 else None


# ---- rows


def _hub_rows(name: str, rows: RowOptions) -> Iterator[Item]:
    """OWNER/NAME, or OWNER/NAME:FOLDER for one folder of it; streamed, with the token of the environment."""
    name, _, folder = name.partition(":")
    if name.count("/") != 1:
        raise BadOption(f"{_HUB}{name} names no data set: write {_HUB}OWNER/NAME or {_HUB}OWNER/NAME:FOLDER")
    return _rows(_load(name, f"{_HUB}{name}", **({"data_dir": folder} if folder else {})), name, rows)


def _load(kind: str, source: str, **where: Any) -> Any:
    """The rows of the training split, as they come."""
    import datasets

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(kind, split="train", streaming=True, **where)
    except Exception as error:  # the library and the hub below it raise dozens of kinds
        raise _unreadable(source, error) from error


def _rows(table: Any, source: str, options: RowOptions) -> Iterator[Item]:
    column, number = options.text_column, -1
    try:
        for number, row in enumerate(table):
            column = column or _first(row, TEXT_COLUMNS)
            if column is None or column not in row:
                raise BadOption(f"{source} has no such column: name one with --text-column out of {', '.join(row)}")
            if isinstance(row[column], str):
                yield _item(row, row[column], source, number, options)
    except (DiffcodeError, GeneratorExit):
        raise
    except Exception as error:  # damaged files, lost connections
        raise _unreadable(f"{source}, row {number + 2}", error) from error


def _item(row: dict[str, Any], text: str, source: str, number: int, options: RowOptions) -> Item:
    name = str(_value(row, _PATH_COLUMNS) or f"row {number}")
    named = str(_value(row, _LANGUAGE_COLUMNS) or "").lower()
    language = _LANGUAGE_NAMES.get(named, named) or language_of(name) or options.language
    said = _value(row, _LICENCE_COLUMNS)
    known = [licences.of_wording(str(one)) for one in (said if isinstance(said, list) else [said] if said else [])]
    permissive = bool(known) and None not in known
    licence = " AND ".join(sorted({one for one in known if one})) if permissive else str(said or UNKNOWN)[:60]
    # a row that names no repository is a relative of none
    package = str(_value(row, _PACKAGE_COLUMNS) or f"{source} row {number}")
    return Item(package, name, language, licence, permissive, text=text)


def _first(row: dict[str, Any], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in row), None)


def _value(row: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name)), None)


def _unreadable(source: str, error: Exception) -> UnreadableFile:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return UnreadableFile(
        f"cannot read {source} ({reason}): check the name, and for the hub the connection and HF_TOKEN"
    )
