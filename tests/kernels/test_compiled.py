"""The Triton kernels compiled ahead of time for GPUs that are not here, in a process of their own: no spills, shared
memory within the limits, tensor cores where there is a product, 16-byte loads; and FACTS.md says what was found."""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

FACTS = Path(__file__).parents[2] / "kernels/triton/FACTS.md"
OPS = ("masked_head", "span_attention", "qkv_rope", "gated_mlp", "lora_linear", "commit")
TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


def compile_ahead(cache: Path, *arguments: str) -> str:
    plain = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "diffcode.kernels.triton.aot", *arguments],
        env={**plain, "TRITON_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def same_compiler() -> bool:
    """Registers differ from version to version."""
    return f"Triton {importlib.metadata.version('triton')};" in FACTS.read_text(encoding="utf8")


def test_facts_hold_every_op_on_every_target() -> None:
    rows = [line.split(" | ") for line in FACTS.read_text(encoding="utf8").splitlines() if line.startswith("| ")]
    for op in OPS:
        assert {row[1] for row in rows if row[0].startswith(f"| {op} ")} == set(TARGETS)


def test_an_ops_first_kernel_is_as_the_facts_say(tmp_path: Path) -> None:
    rows = compile_ahead(tmp_path, "--first", "--target", "sm_90", "--target", "gfx942").splitlines()
    assert len(rows) == 2 * len(OPS)
    missing = set(rows) - set(FACTS.read_text(encoding="utf8").splitlines())
    assert not (missing and same_compiler()), f"run python -m diffcode.kernels.triton.aot > {FACTS}"


@pytest.mark.slow
def test_every_kernel_is_as_the_facts_say(tmp_path: Path) -> None:
    found = compile_ahead(tmp_path)
    assert found == FACTS.read_text(encoding="utf8") or not same_compiler()


def test_what_must_not_be_is_noticed() -> None:
    from diffcode.kernels.triton.aot import Facts
    from diffcode.kernels.triton.common import Specimen

    specimen = Specimen("op", None, {}, {}, (), {})
    good = {"registers": 128, "spilled": 0, "shared": 65_536, "warps": 4, "tensor_cores": "mma", "wide_loads": 1}
    assert Facts("op", "gfx942", **good, narrow_loads=0).complaints(specimen) == []
    bad = {"spilled": 4, "shared": 65_540, "registers": 513, "tensor_cores": "", "wide_loads": 0}
    for name, value in bad.items():
        facts = Facts("op", "gfx942", **(good | {name: value}), narrow_loads=0)
        assert len(facts.complaints(specimen)) == 1, name
