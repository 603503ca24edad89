"""The Triton kernels compiled ahead of time for GPUs that are not here, in a process of their own: no spills, shared
memory within the limits, tensor cores where there is a product, 16-byte loads; and FACTS.md says what was found."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

aot = pytest.importorskip("diffcode.kernels.triton.aot", reason="Triton is not installed", exc_type=ImportError)
FACTS = Path(__file__).parents[2] / "kernels/triton/FACTS.md"
OPS = ("masked_head", "span_attention", "qkv_rope", "gated_mlp", "lora_linear", "commit")
TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")

RENEW = f"run python -m diffcode.kernels.triton.aot > {FACTS}"


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
    return f"Triton {importlib.metadata.version('triton')}, " in FACTS.read_text(encoding="utf8")


def table() -> list[str]:
    return [line for line in FACTS.read_text(encoding="utf8").splitlines() if line.startswith("| ")][1:]


def test_the_facts_are_of_these_kernels() -> None:
    """All that the compiler is given is in the digest, so nothing needs to be compiled to know it."""
    assert not same_compiler() or aot.digest() in FACTS.read_text(encoding="utf8"), RENEW


def test_every_kernel_on_every_target_is_as_it_must_be() -> None:
    """Every op and every tile that is shipped: no spills, what fits in, tensor cores, 16-byte loads."""
    found = [aot.facts_of(line) for line in table()]
    assert [aot.row(facts) for facts in found] == table()
    every = aot.specimens()
    assert [(f.name, f.target) for f in found] == [(s.name, target) for s in every for target in TARGETS]
    wanted = [specimen for specimen in every for _ in TARGETS]
    assert [facts.complaints(specimen) for facts, specimen in zip(found, wanted, strict=True)] == [[]] * len(found)
    assert {name for name, op in aot.OPS.items() if op.specimens()} == set(OPS)


def test_an_ops_first_kernel_is_as_the_facts_say(tmp_path: Path) -> None:
    rows = compile_ahead(tmp_path, "--first", "--target", "sm_90", "--target", "gfx942").splitlines()
    assert len(rows) == 2 * len(OPS)
    assert not (set(rows) - set(table()) and same_compiler()), RENEW


def test_no_number_of_rows_compiles_a_kernel_anew() -> None:
    """What was compiled ahead of time is what runs: the JIT makes another program where a number is 1 or divides by 16,
    so numbers that differ from step to step must not count for it."""
    for specimen in aot.specimens():
        for parameter in specimen.kernel.params:
            if specimen.types.get(parameter.name) == "i32":
                fixed = parameter.name in specimen.aligned
                assert fixed != parameter.do_not_specialize, f"{specimen.name}: {parameter.name}"


def test_what_must_not_be_is_noticed() -> None:
    specimen = aot.Specimen("op", None, {}, {}, (), {})
    good = {"registers": 128, "spilled": 0, "shared": 65_536, "warps": 4, "tensor_cores": "mma", "wide_loads": 1}
    assert aot.Facts("op", "gfx942", **good, narrow_loads=0).complaints(specimen) == []
    bad = {"spilled": 4, "shared": 65_540, "registers": 513, "tensor_cores": "", "wide_loads": 0}
    for name, value in bad.items():
        facts = aot.Facts("op", "gfx942", **(good | {name: value}), narrow_loads=0)
        assert len(facts.complaints(specimen)) == 1, name
