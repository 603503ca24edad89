"""The CPU engine's own tests over a build that notices bad addresses and undefined behaviour."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GXX = shutil.which("g++")
CHECKS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-g1"]


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if GXX is None or sys.platform != "linux":
        pytest.skip("needs g++ on Linux")
    module = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"][0]
    target = tmp_path_factory.mktemp("engine") / "engine.so"
    flags = [flag for flag in module["extra-compile-args"] if flag != "-O3"]
    command = [GXX, *flags, "-O1", *CHECKS, "-shared", "-fPIC", "-o", str(target), *module["sources"]]
    subprocess.run(command, cwd=ROOT, check=True)
    return target


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["", "avx2", "portable"])
def test_nothing_is_read_or_written_out_of_place(checked: Path, isa: str) -> None:
    assert GXX is not None
    libraries = [
        subprocess.run([GXX, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so", "libstdc++.so")
    ]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            "tests/test_native.py",
            "-k",
            "not specification and not megabytes",
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "LD_PRELOAD": ":".join(libraries),
            "ASAN_OPTIONS": "detect_leaks=0:detect_odr_violation=0",  # of Python and torch there are many
            "DIFFCODE_ENGINE": str(checked),
            "DIFFCODE_ISA": isa,
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " passed" in done.stdout
