"""The Python packages of an environment as a source of code: those whose metadata names a permissive licence."""

import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import Distribution, distributions
from pathlib import Path

from diffcode.errors import UnreadableFile
from diffcode.syntax import language_of
from diffcode.training import licences
from diffcode.training.sources import Item

_ASK = "import sysconfig; print(sysconfig.get_path('purelib')); print(sysconfig.get_path('platlib'))"


@dataclass(slots=True)
class Installed:
    """Packages of an environment, and why some of them are left out."""

    folders: tuple[Path, ...]
    left_out: dict[str, str] = field(default_factory=dict)  # package -> reason; filled while `items` runs

    @classmethod
    def of(cls, python: str | None) -> "Installed":
        """`python`: another interpreter, its environment's folder or a site-packages folder. UnreadableFile."""
        return cls(_site_folders(python))

    def items(self) -> Iterator[Item]:
        """Files by each package's own list, in the packages' alphabetical order."""
        found = {_name(one): one for one in distributions(path=[str(f) for f in reversed(self.folders)])}
        for name, one in sorted(found.items()):
            licence = _licence(one)
            if licence is None:
                self.left_out[name] = "licence unknown or not permissive"
            elif one.files is None:
                self.left_out[name] = "no list of files"
            else:
                yield from _files(name, one, licence)


def _files(name: str, one: Distribution, licence: str) -> Iterator[Item]:
    for file in sorted(one.files or ()):
        language = language_of(file)
        if language is None or ".." in file.parts:  # scripts and headers that lie outside
            continue
        path = Path(str(one.locate_file(file)))
        if path.is_file() and not path.is_symlink():
            yield Item(name, file.as_posix(), language, licence, True, path)


def _name(one: Distribution) -> str:
    return str((one.metadata.get_all("Name") or ["?"])[0]).lower().replace("_", "-").replace(".", "-")


def _licence(one: Distribution) -> str | None:
    data = one.metadata
    expression, field = ((data.get_all(name) or [None])[0] for name in ("License-Expression", "License"))
    return licences.of_metadata(expression, data.get_all("Classifier") or (), field)


def _site_folders(python: str | None) -> tuple[Path, ...]:
    if python is None:
        return tuple(dict.fromkeys(Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")))
    path = Path(python).expanduser()
    if path.is_dir():
        return tuple(sorted(path.glob("lib/python3*/site-packages"))) or (path,)
    try:
        said = subprocess.run([str(path), "-c", _ASK], capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise UnreadableFile(f"{python} is no Python: give an interpreter or a site-packages folder") from error
    return tuple(dict.fromkeys(map(Path, said.splitlines())))
