"""Read a source file safely and write it back whole or not at all, with the bytes that nobody asked to change."""

import contextlib
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from diffcode.errors import UnreadableFile, UnwritableFile

MAX_BYTES = 5_000_000
STDIN = "-"
# Control characters, and the marks that make text run backwards: a file may not steer the terminal that shows it.
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class Source:
    """A file as it was read; `text` keeps a byte-order mark and every line end."""

    name: str  # as the caller wrote it
    path: Path | None  # links followed; None: standard input
    text: str
    mode: int = 0


def read_source(name: str, stdin: BinaryIO | None = None) -> Source:
    """Read a file, or standard input for `-`; raises UnreadableFile."""
    if name == STDIN:
        return Source(name, None, _decode(_read_stream(stdin), "standard input"))
    path = Path(os.path.realpath(name))
    data, mode = _read(path, name)
    return Source(name, path, _decode(data, name), mode)


def check_writable(source: Source) -> Path:
    """Where `write_source` would write; raises UnwritableFile, best before anybody has waited for a model."""
    if source.path is None:
        raise UnwritableFile("standard input cannot be written back: name a file, or leave --write out")
    # root passes every access check, yet whoever took the write bit away meant it
    if not source.mode & stat.S_IWUSR or not os.access(source.path, os.W_OK):
        raise UnwritableFile(f"{source.name} is read-only: make it writable (chmod u+w), or leave --write out")
    check_folder(source.path.parent, source.name)
    return source.path


def check_folder(folder: Path, name: str) -> None:
    """Files are replaced through a new one beside them, so the folder has to take one."""
    if not folder.is_dir():
        raise UnwritableFile(f"cannot write {name}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UnwritableFile(
            f"cannot write {name}: its folder {folder} takes no new files; make it writable (chmod u+w)"
        )


def write_source(source: Source, text: str) -> None:
    """Put `text` in the file's place at once; raises UnwritableFile, and then the file is as it was.

    Mode, owner, access lists and links to the file stay (a second hard link keeps the old text). Another program
    may save between the last look and the replacement; that gap is a few microseconds, the model's work is not.
    """
    path = check_writable(_unchanged(source))
    try:
        _replace(path, text.encode("utf-8"))
    except (OSError, UnicodeEncodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "the new text is not valid Unicode"
        raise UnwritableFile(f"cannot write {source.name}: {reason}; the file is as it was") from error


def write_new(path: Path, text: str) -> None:
    """Write a file that is made here; raises UnwritableFile."""
    try:
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise UnwritableFile(f"cannot write {path}: {error.strerror}; name another file") from error


def write_stdout(data: bytes) -> None:
    """Bytes to standard output: no encoding of the terminal's and no other line ends; raises UnwritableFile."""
    if sys.stdout is None:
        raise UnwritableFile("standard output is closed: send it somewhere")
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        with contextlib.suppress(OSError):  # else what is left in the buffer fails once more when Python exits
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise UnwritableFile(f"cannot write to standard output: {error.strerror}") from error


def visible(text: str) -> str:
    """The text with every character that could steer a terminal shown as a picture of itself; the length stays."""
    return _UNSAFE.sub(lambda match: _picture(ord(match[0])), text)


def _picture(code: int) -> str:
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else "\ufffd"


def _read_stream(stream: BinaryIO | None) -> bytes:
    if stream is None and sys.stdin is None:  # closed by the caller: diffcode fill - <&-
        raise UnreadableFile("standard input is closed: pipe a text in")
    try:
        return (stream or sys.stdin.buffer).read(MAX_BYTES + 1)
    except OSError as error:
        raise UnreadableFile(f"cannot read standard input: {error.strerror}; pipe a text in") from error


def _read(path: Path, name: str) -> tuple[bytes, int]:
    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind):  # looked at first: opening a pipe that nobody writes to waits for ever
            what = "a folder" if stat.S_ISDIR(kind) else "no regular file"
            raise UnreadableFile(f"{name} is {what}: name a file, or send text to `diffcode fill -`")
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1), stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except FileNotFoundError as error:
        raise UnreadableFile(f"{name} does not exist: check the name and the folder") from error
    except OSError as error:
        raise UnreadableFile(f"cannot read {name}: {error.strerror}; check the name and its permissions") from error


def _decode(data: bytes, name: str) -> str:
    if len(data) > MAX_BYTES:
        raise UnreadableFile(f"{name} is larger than {MAX_BYTES // 1_000_000} MB: fill a smaller file")
    if (zero := data.find(0)) >= 0:
        raise UnreadableFile(f"{name} is binary (a NUL byte at offset {zero}): name a text file in UTF-8")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        byte, line = data[error.start], data.count(b"\n", 0, error.start) + 1
        raise UnreadableFile(
            f"{name} is not UTF-8 (byte 0x{byte:02x} in line {line}): convert it first, for example with iconv"
        ) from error


def _unchanged(source: Source) -> Source:
    """The source with the rights it has now; raises UnwritableFile when it no longer holds what was read."""
    if source.path is None:
        return source
    try:
        data, mode = _read(source.path, source.name)
    except UnreadableFile as error:
        raise UnwritableFile(f"{source.name} went away while the model worked: nothing was written") from error
    # contents are compared, not times: a `touch` loses nothing, and a quick save may keep the time stamp
    if data != source.text.encode("utf-8"):
        raise UnwritableFile(f"{source.name} changed while the model worked: nothing was written, run it again")
    return replace(source, mode=mode)


def _replace(path: Path, data: bytes) -> None:
    with _beside(path) as (descriptor, new):
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            _copy_rights(path, new)
            os.fsync(file.fileno())
        os.replace(new, path)
    _sync_folder(path.parent)


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[tuple[int, Path]]:
    """A new file in the same folder, so on the same file system; it is gone afterwards unless it was renamed."""
    descriptor, name = tempfile.mkstemp(prefix=".diffcode-", suffix=".tmp", dir=path.parent)
    try:
        yield descriptor, Path(name)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _copy_rights(old: Path, new: Path) -> None:
    was = old.stat()
    for owner in (was.st_uid, -1):  # only root may give files away, but many may keep the group
        with contextlib.suppress(PermissionError):
            os.chown(new, owner, was.st_gid)
            break
    shutil.copystat(old, new)  # mode, access lists, attributes; after chown, which clears set-id bits
    os.utime(new)  # build tools must see that the file is new


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot; the file itself is safe
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
