"""What `diffcode pull --clean` removes, and above all what it leaves alone."""

import json
import mmap
from pathlib import Path

import pytest
from filelock import FileLock

from diffcode import cli, hub, tidy
from diffcode.loading import unpacked_name
from diffcode.merge import merged_name
from diffcode.native import packed_name


def folder(path: Path) -> Path:
    """A folder of weights as `merge` leaves it."""
    path.mkdir(parents=True)
    (path / "merged.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"x" * 1000)
    return path


def file(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x" * 100)
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIFFCODE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def kept(home: Path) -> set[Path]:
    """What the default model needs, and what people keep there."""
    infill = tidy.shipped(None, None, tidy.INFILL)
    assert infill is not None
    plain = folder(unpacked_name(home / hub.DEFAULT.name))
    merged = folder(merged_name(plain, infill))
    made = {plain, merged, *(file(packed_name(model, form)) for model in (plain, merged) for form in ("int8", "int4"))}
    mine = {folder(home / "personal" / "mine"), file(home / "merged" / "notes.txt"), file(home / "packed" / "notes")}
    (home / "merged" / "adapter").mkdir()
    (home / "merged" / "adapter" / "adapter_model.safetensors").write_bytes(b"mine")
    return made | mine | {home / "merged" / "adapter", file(home / hub.DEFAULT.name)}


def test_what_nothing_needs_is_removed_and_all_else_stays(home: Path, kept: set[Path]) -> None:
    old = {
        folder(home / "merged" / "qwen.bf16-e18b7f3b+000000000000"),
        folder(home / "merged" / ".qwen.bf16-e18b7f3b+000000000000-k3j2"),  # of a killed process
        file(home / "packed" / "qwen-int8-000000000000.safetensors"),
        file(home / "packed" / "qwen-int8-000000000000.safetensors.k3j2"),
    }
    removed, freed = tidy.clean()
    assert set(removed) == old
    assert freed == 2 * 1002 + 2 * 100
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in kept)
    assert tidy.clean() == ((), 0)


def test_what_a_process_reads_stays(home: Path, kept: set[Path]) -> None:
    old, packed = folder(home / "merged" / "old-1+2"), file(home / "packed" / "old-int8-1.safetensors")
    with (old / "model.safetensors").open("rb") as one, packed.open("rb") as other:
        maps = [mmap.mmap(open_.fileno(), 0, access=mmap.ACCESS_READ) for open_ in (one, other)]
    assert tidy.clean() == ((), 0)
    for reader in maps:
        reader.close()
    assert set(tidy.clean()[0]) == {old, packed}


def test_what_a_process_writes_stays(home: Path, kept: set[Path]) -> None:
    staged = [folder(home / "merged" / ".old-1+2-k3j2"), file(home / "packed" / "old-int8-1.safetensors.k3j2")]
    locks = [FileLock(home / "merged" / "old-1+2.lock"), FileLock(home / "packed" / "old-int8-1.safetensors.lock")]
    with locks[0], locks[1]:
        assert tidy.clean() == ((), 0)
        assert all(path.exists() for path in staged)
    assert set(tidy.clean()[0]) == set(staged)


def test_a_cache_with_nothing_made_in_it(home: Path) -> None:
    assert tidy.clean() == ((), 0)
    assert list(home.iterdir()) == []


def test_the_command_says_what_it_removed(
    home: Path, kept: set[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = home / hub.DEFAULT.name
    monkeypatch.setattr(hub, "cached", lambda **_: weights)
    monkeypatch.setattr(hub, "pull", lambda *_, **__: weights)
    old = folder(home / "merged" / "old-1+2")
    assert cli.run(["pull"]) == 0
    assert old.exists()
    capsys.readouterr()
    assert cli.run(["pull", "--clean"]) == 0
    assert capsys.readouterr().out == f"already there: {weights}\nremoved: {old}\n0.0 GB freed\n"
    assert cli.run(["pull", "--clean", "--json"]) == 0
    said = {"path": str(weights), "already": True, "removed": [], "freed": 0}
    assert json.loads(capsys.readouterr().out) == said
