"""Reading, writing, and places in a text."""

import errno
import io
import os
import stat
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd_texts import texts

from diffcode import files
from diffcode.errors import UnreadableFile, UnwritableFile
from diffcode.files import MAX_BYTES, check_writable, read_source, visible, write_source


@pytest.fixture
def source_file(tmp_path: Path) -> Path:
    path = tmp_path / "code.py"
    path.write_bytes(b"a = ???\n")
    return path


# ---- reading


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"a\0b", "binary.*offset 1"),
        ("a".encode("utf-16"), "binary"),
        (b"ok\nna\xefve", "0xef in line 2"),
        (b"\xed\xa0\x80", "not UTF-8"),
        (b"x" * (MAX_BYTES + 1), "larger than 5 MB"),
    ],
    ids=["nul", "utf-16", "latin-1", "surrogate", "large"],
)
def test_what_is_no_text_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(UnreadableFile, match=says):
        read_source(str(path))
    with pytest.raises(UnreadableFile, match=says):
        read_source("-", io.BytesIO(data))


def test_the_largest_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * MAX_BYTES)
    assert len(read_source(str(path)).text) == MAX_BYTES


def test_missing_folder_pipe_and_loop_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name, says in [("none", "does not exist"), ("", "is a folder"), ("pipe", "no regular file"), ("loop", "read")]:
        with pytest.raises(UnreadableFile, match=says):
            read_source(str(tmp_path / name))


def test_a_closed_standard_input_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UnreadableFile, match="closed"):
        read_source("-")


# ---- writing


@given(text=texts, mode=st.sampled_from([0o644, 0o600, 0o755, 0o640]))
def test_writing_what_was_read_changes_no_byte(tmp_path_factory: pytest.TempPathFactory, text: str, mode: int) -> None:
    folder = tmp_path_factory.getbasetemp() / "round-trip"
    folder.mkdir(exist_ok=True)
    path = folder / "file"
    path.write_bytes(text.encode())
    path.chmod(mode)
    source = read_source(str(path))
    assert source.text == text
    write_source(source, source.text)
    assert path.read_bytes() == text.encode()
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert os.listdir(folder) == ["file"]


def test_owner_attributes_and_time_after_a_write(source_file: Path) -> None:
    root = os.geteuid() == 0
    if root:
        os.chown(source_file, 1234, 2345)
    try:
        os.setxattr(source_file, "user.kept", b"yes")
    except (OSError, AttributeError):
        attributes = False  # this file system has none
    else:
        attributes = True
    os.utime(source_file, (1, 1))
    write_source(read_source(str(source_file)), "new\n")
    now = source_file.stat()
    assert now.st_mtime > 1_000_000
    assert not root or (now.st_uid, now.st_gid) == (1234, 2345)
    assert not attributes or os.getxattr(source_file, "user.kept") == b"yes"


def test_a_link_stays_and_its_target_is_written(tmp_path: Path, source_file: Path) -> None:
    link = tmp_path / "folder" / "link.py"
    link.parent.mkdir()
    link.symlink_to("../code.py")
    write_source(read_source(str(link)), "new\n")
    assert link.is_symlink()
    assert source_file.read_text() == "new\n"
    assert os.listdir(link.parent) == ["link.py"]


def test_a_read_only_file_is_refused_even_for_root(source_file: Path) -> None:
    source_file.chmod(0o444)
    source = read_source(str(source_file))
    for refused in (lambda: check_writable(source), lambda: write_source(source, "new")):
        with pytest.raises(UnwritableFile, match="read-only"):
            refused()
    assert source_file.read_text() == "a = ???\n"


def test_a_file_made_read_only_meanwhile_is_refused(source_file: Path) -> None:
    source = read_source(str(source_file))
    source_file.chmod(0o444)
    with pytest.raises(UnwritableFile, match="read-only"):
        write_source(source, "new")


@pytest.mark.parametrize("change", ["same size", "longer", "gone", "replaced by a folder"])
def test_a_file_changed_meanwhile_is_left_alone(source_file: Path, change: str) -> None:
    source, times = read_source(str(source_file)), source_file.stat()
    if change in ("gone", "replaced by a folder"):
        source_file.unlink()
    if change == "replaced by a folder":
        source_file.mkdir()
    if change in ("same size", "longer"):
        source_file.write_bytes(b"b = ???\n" + b"more" * (change == "longer"))
        os.utime(source_file, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(UnwritableFile, match="nothing was written"):
        write_source(source, "new")
    assert not source_file.is_file() or source_file.read_bytes().startswith(b"b = ???\n")


def test_a_touched_file_is_written(source_file: Path) -> None:
    source = read_source(str(source_file))
    os.utime(source_file, (5, 5))
    write_source(source, "new")
    assert source_file.read_text() == "new"


@pytest.mark.parametrize("call", ["fsync", "replace", "chown"])
def test_a_failing_disk_leaves_the_file_and_no_rubbish(
    source_file: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    source = read_source(str(source_file))
    monkeypatch.setattr(files.os, call, fail)
    with pytest.raises(UnwritableFile, match="No space left on device; the file is as it was"):
        write_source(source, "new")
    assert source_file.read_text() == "a = ???\n"
    assert os.listdir(source_file.parent) == ["code.py"]


def test_an_interrupt_leaves_the_file_and_no_rubbish(source_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_source(read_source(str(source_file)), "new")
    assert source_file.read_text() == "a = ???\n"
    assert os.listdir(source_file.parent) == ["code.py"]


def test_half_a_character_is_refused(source_file: Path) -> None:
    with pytest.raises(UnwritableFile, match="not valid Unicode"):
        write_source(read_source(str(source_file)), "\ud800")
    assert source_file.read_text() == "a = ???\n"


def test_whoever_reads_meanwhile_sees_the_old_or_the_new_text(source_file: Path) -> None:
    small, large = b"a" * 200_000, b"b" * 300_000
    source_file.write_bytes(small)
    seen: set[bytes] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.add(source_file.read_bytes())

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for data in (large, small) * 5:
            write_source(read_source(str(source_file)), data.decode())
    finally:
        done.set()
        reader.join()
    assert seen <= {small, large}


def test_a_folder_that_takes_no_files_is_refused(source_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.os, "access", lambda path, mode: Path(path) != source_file.parent)
    with pytest.raises(UnwritableFile, match="takes no new files"):
        check_writable(read_source(str(source_file)))


# ---- what may reach a terminal


@given(st.text())
def test_visible_text_has_its_length_and_no_controls(text: str) -> None:
    shown = visible(text)
    assert len(shown) == len(text)
    assert not any((ord(char) < 32 and char not in "\t\n") or 0x7F <= ord(char) < 0xA0 for char in shown)
    assert not any(char in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069" for char in shown)


def test_visible_shows_what_was_there() -> None:
    assert visible("a\x1b[31m\r\x7f\x9b\u202e\tb\n") == "a␛[31m␍␡��\tb\n"
