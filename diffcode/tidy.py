"""What the cache holds that the default model has no use for: merged and packed weights, a gigabyte each.

Both kinds are made from other files on first use, and made again when somebody needs them. So whatever an older
adapter, an older form or a killed process left behind may go; but not what is being written, or what a running
process reads.
"""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from diffcode import hub
from diffcode.engine import INFILL, shipped
from diffcode.loading import unpacked_name
from diffcode.merge import merged_name
from diffcode.native import FORMS, packed_name

MERGED, PACKED = "merged", "packed"
WEIGHTS = ".safetensors"


def clean() -> tuple[tuple[Path, ...], int]:
    """Remove what is not needed; what was removed, and how many bytes that freed."""
    removed, freed = [], 0
    used = mapped()
    for path in spare():
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        if used.intersection(files):
            continue
        with suppress(Timeout, OSError), FileLock(f"{owner(path)}.lock", timeout=0):
            size = sum(file.stat().st_size for file in files)
            _remove(path)
            removed.append(path)
            freed += size
    return tuple(removed), freed


def spare() -> Iterator[Path]:
    """What was made here and is not needed by the default model."""
    home, keep = hub.cache_home().resolve(), needed()
    for path in sorted((home / MERGED).glob("*/")):
        if path not in keep and (path.name.startswith(".") or (path / "merged.json").is_file()):
            yield path
    for path in sorted((home / PACKED).glob(f"*{WEIGHTS}*")):
        if path not in keep and path.suffix != ".lock":
            yield path


def needed() -> set[Path]:
    """The default model's, with the shipped adapter merged in and as it was published, in every form."""
    home = hub.cache_home().resolve()
    plain = unpacked_name(home / hub.DEFAULT.name)
    infill = shipped(None, None, INFILL)
    models = [plain, merged_name(plain, infill).resolve()] if infill else [plain]
    packed = {packed_name(model, form).resolve() for model in models for form in FORMS}
    return {*models, *packed}


def owner(path: Path) -> Path:
    """Whose lock is held while this is written: a staged folder or file has its target's name with more round it."""
    if path.parent.name == MERGED:
        return path.with_name(path.name[1:].rpartition("-")[0]) if path.name.startswith(".") else path
    return path.with_name(path.name[: path.name.rindex(WEIGHTS) + len(WEIGHTS)])


def mapped() -> set[Path]:
    """Every file that a process of this machine reads as memory, as far as the kernel tells us."""
    found = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            for line in maps.read_text(encoding="utf8", errors="surrogateescape").splitlines():
                found.add(line.partition("/")[2])
    return {Path(f"/{name}") for name in found if name}


def _remove(path: Path) -> None:
    if path.is_dir():
        gone = path.with_name(f".{path.name}-gone")  # at once: nobody may find half of it
        path.rename(gone)
        shutil.rmtree(gone)
    else:
        path.unlink()
