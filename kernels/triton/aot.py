"""The kernels compiled for GPUs that are not here, and what the machine code says: registers, spills, shared memory,
tensor-core instructions, 16-byte loads.

    python -m diffcode.kernels.triton.aot > kernels/triton/FACTS.md

Needs no GPU and no driver: Triton's wheel brings the assemblers. Not to be seen here: time, bank conflicts, races.
"""

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas, sm_arch_from_capability
from triton.compiler import ASTSource

from diffcode.kernels.triton import commit, gated_mlp, lora_linear, masked_head, qkv_rope, span_attention
from diffcode.kernels.triton.common import Specimen

OPS = {
    "masked_head": masked_head,
    "span_attention": span_attention,
    "qkv_rope": qkv_rope,
    "gated_mlp": gated_mlp,
    "lora_linear": lora_linear,
    "commit": commit,
}
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
# Bytes a program may have. The compiler does not check this: it would show when the binary is loaded.
SHARED_LIMIT = {"sm_80": 166_912, "sm_90": 232_448, "sm_100": 232_448, "gfx942": 65_536}
TENSOR_MEMORY = 512  # columns, of sm_100
REGISTERS = {"sm_80": 65_536, "sm_90": 65_536, "sm_100": 65_536, "gfx942": 131_072}  # of a multiprocessor, 4 bytes each
TENSOR_CORES = re.compile(r"mma\.sync|wgmma\.mma_async|tcgen05\.mma|v_mfma_\w+")
LOADS = re.compile(r"ld\.global\S*|cp\.async\.c[ag]\S*|(?:global|buffer)_load_\w+")
WIDE_LOADS = re.compile(
    r"ld\.global[\w.:]*\.v4\.b32|ld\.global[\w.:]*\.v8\.b16|cp\.async\.cg[^;]*, 0x10"
    r"|(?:global|buffer)_load_dwordx4"
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one kernel on one target."""

    name: str
    target: str
    registers: int  # a thread
    spilled: int  # bytes; on gfx942 registers
    shared: int  # bytes a program
    warps: int
    tensor_cores: str  # the instruction, "" if there is none
    wide_loads: int  # 16-byte loads in the code
    narrow_loads: int  # others

    def complaints(self, specimen: Specimen) -> list[str]:
        """What must not be."""
        lanes = TARGETS[self.target].warp_size
        found = {
            f"{self.spilled} spilled": self.spilled > 0,
            f"{self.shared} bytes shared": self.shared > SHARED_LIMIT[self.target],
            f"{self.registers} registers": self.registers * self.warps * lanes > REGISTERS[self.target],
            "no tensor cores": specimen.product and not self.tensor_cores,
            "no 16-byte loads": specimen.wide and not self.wide_loads,
        }
        return [text for text, wrong in found.items() if wrong]


def specimens(ops: Iterable[str] = OPS) -> list[Specimen]:
    """Everything that is shipped, op by op; an op's first one is its most used."""
    return [specimen for op in ops for specimen in OPS[op].specimens()]


def compiled(specimen: Specimen, target: str) -> Facts:
    """Compile and look. Raises Triton's own errors where it cannot."""
    names = specimen.kernel.arg_names
    types = {name: specimen.types.get(name, "constexpr") for name in names}
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in specimen.aligned}
    source = ASTSource(fn=specimen.kernel, signature=types, constexprs=dict(specimen.constants), attrs=attributes)
    kernel = triton.compile(source, target=TARGETS[target], options=dict(specimen.options))
    code = kernel.asm["amdgcn" if target.startswith("gfx") else "ptx"]
    registers, spilled = _amd(code) if target.startswith("gfx") else _nvidia(code, int(TARGETS[target].arch))
    core = TENSOR_CORES.search(code)
    wide = len(WIDE_LOADS.findall(code))
    narrow = len(LOADS.findall(code)) - wide
    shared, warps = kernel.metadata.shared, kernel.metadata.num_warps
    scratch, tensor_memory = (getattr(kernel.metadata, n, 0) or 0 for n in ("global_scratch_size", "tmem_size"))
    if scratch or tensor_memory > TENSOR_MEMORY:
        raise ValueError(f"{specimen.name} on {target}: it would not start, for want of scratch or tensor memory")
    return Facts(specimen.name, target, registers, spilled, shared, warps, core[0] if core else "", wide, narrow)


def _amd(code: str) -> tuple[int, int]:
    def number(key: str) -> int:
        found = re.search(rf"\.{key}:\s+(\d+)", code)
        assert found is not None, key
        return int(found[1])

    return number("vgpr_count"), number("vgpr_spill_count") + number("sgpr_spill_count")


def _nvidia(code: str, capability: int) -> tuple[int, int]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.ptx")
        file.write_text(code)
        command = [get_ptxas(capability).path, "-v", f"--gpu-name={sm_arch_from_capability(capability)}", str(file)]
        done = subprocess.run([*command, "-o", f"{file}.cubin"], capture_output=True, text=True, check=True)
    spills, used = re.findall(r"(\d+) bytes spill", done.stderr), re.search(r"Used (\d+) registers", done.stderr)
    assert used is not None, done.stderr
    return int(used[1]), sum(map(int, spills))


HEAD = """# What the compiler says of the kernels

Made by `python -m diffcode.kernels.triton.aot` with Triton {version}, from kernels and settings with the digest
{digest}: `tests/kernels/test_compiled.py` checks that it
is current. The shapes are those of the default model, the dtype is bf16 but where it says int8. Nothing here was timed,
and no tile was tuned. Spilled: bytes, on gfx942 registers. Wide: 16-byte loads in the code; narrow: other loads, of
sights, norms, scales, biases.

| kernel | target | registers | spilled | shared | warps | tensor cores | wide | narrow |
|---|---|---:|---:|---:|---:|---|---:|---:|
"""


def row(facts: Facts) -> str:
    """A line of FACTS.md."""
    return "| " + " | ".join(str(cell) for cell in astuple(facts)) + " |"


def facts_of(line: str) -> Facts:
    """What a `row` says."""
    name, target, *rest = line.strip("| ").split(" | ")
    registers, spilled, shared, warps, core, wide, narrow = (cell.strip() for cell in rest)
    return Facts(name, target, int(registers), int(spilled), int(shared), int(warps), core, int(wide), int(narrow))


def digest() -> str:
    """Of all that the compiler is given: the kernels' text, and how each is asked for."""
    found = hashlib.sha256()
    for s in specimens():
        asked = (sorted(part.items(), key=str) for part in (texts(s.kernel), s.types, s.constants, s.options))
        found.update(repr((s.name, *asked, sorted(s.aligned), s.targets)).encode())
    return found.hexdigest()


def texts(kernel: Any) -> dict[str, str]:
    """A kernel's own text, that of all our functions that it calls, and the constants that they name."""
    found = {kernel.__name__: kernel.src}
    for name in kernel.fn.__code__.co_names:
        named = kernel.fn.__globals__.get(name)
        if isinstance(named, triton.JITFunction) and named.__module__.startswith(__package__ or ""):
            found |= texts(named)
        elif isinstance(named, tl.constexpr):
            found[name] = repr(named.value)
    return found


def main(arguments: Sequence[str]) -> int:
    """Print FACTS.md, or some rows of it alone. Returns 1 if a kernel is not as it must be."""
    parser = argparse.ArgumentParser(description="What the compiler says of the kernels.")
    parser.add_argument("ops", nargs="*", help="these ops alone")
    parser.add_argument("--target", action="append", choices=tuple(TARGETS), help="this target alone")
    parser.add_argument("--first", action="store_true", help="an op's first kernel alone")
    asked = parser.parse_args(arguments)
    if not arguments:
        sys.stdout.write(HEAD.format(version=triton.__version__, digest=digest()))
    wrong = 0
    for op in asked.ops or OPS:
        for specimen in specimens([op])[: 1 if asked.first else None]:
            for target in asked.target or specimen.targets:
                facts = compiled(specimen, target)
                print(row(facts), flush=True)
                for complaint in facts.complaints(specimen):
                    wrong = 1
                    print(f"{facts.name} on {target}: {complaint}", file=sys.stderr, flush=True)
    return wrong


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("TRITON_CACHE_DIR", folder)
        sys.exit(main(sys.argv[1:]))
