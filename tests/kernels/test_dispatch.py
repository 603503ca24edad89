"""Without a GPU, or without Triton, the specification runs: same results, no complaint."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from closeness import normal
from commits import ENDS, forwarded

from diffcode.kernels import dispatch, reference, reference_commit
from diffcode.kernels.reference import Cache, Map, Norm

PROGRAM = """
import sys
if sys.argv[1:]: sys.path.insert(0, sys.argv[1])
else: sys.modules["triton"] = None
import torch
from diffcode.kernels import dispatch
x, w = torch.ones(2, 4), torch.ones(3, 4)
print(dispatch.machine("lora_linear", x), dispatch.lora_linear(x, dispatch.Map(w)).tolist())
"""


@pytest.mark.parametrize("kind", ["missing", "broken"])
def test_triton_is_not_needed(kind: str, tmp_path: Path) -> None:
    (tmp_path / "triton.py").write_text("raise ImportError('of another build')")
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONSAFEPATH": "1"}  # where it would be used, if it could be had
    command = [sys.executable, "-c", PROGRAM, *([str(tmp_path)] if kind == "broken" else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
    assert done.stdout == "torch [[4.0, 4.0, 4.0], [4.0, 4.0, 4.0]]\n", done.stderr
    assert ("of another build" in done.stderr) == (kind == "broken"), "who installed it wants to know"


def test_importing_it_loads_no_triton() -> None:
    program = "import sys, diffcode.kernels.dispatch; print('triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"


def test_on_a_gpu_triton_runs_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(dispatch, "_runs", lambda op: True)
    there = {t: SimpleNamespace(is_cuda=True, dtype=t) for t in (torch.bfloat16, torch.float16, torch.float32)}
    machines = [dispatch.machine("lora_linear", x) for x in there.values()]
    assert machines == ["triton", "triton", "torch"], "fp32 needs twice the memory, and no tensor core takes it"
    assert dispatch.machine("span_attention", there[torch.bfloat16], 96) == "torch", "no power of 2"


def test_on_a_cpu_torch_runs() -> None:
    assert dispatch.machine("lora_linear", normal(2, 4)) == "torch"
    x, norm = normal(3, 16), Norm(1 + normal(16, seed=1, spread=0.1), 1e-6)
    linear = Map(normal(32, 16, seed=2))
    assert torch.equal(dispatch.lora_linear(x, linear, norm=norm), reference.lora_linear(x, linear, norm=norm))
    assert torch.equal(dispatch.gated_mlp(x, linear, norm=norm), reference.gated_mlp(x, linear, norm=norm))
    caches = [Cache(torch.zeros(1, 4, 8), torch.zeros(1, 4, 8)) for _ in range(2)]
    turn, slot = normal(3, 8), torch.arange(3)
    q, gold = (
        module.qkv_rope(x, linear, turn, turn, slot, cache, norm=norm)
        for module, cache in zip((dispatch, reference), caches, strict=True)
    )
    assert torch.equal(q, gold)
    assert torch.equal(caches[0].k_GPK, caches[1].k_GPK)
    sights = torch.tensor([(0, 2, 0, 0), (0, 0, 0, 0), (0, 1, 2, 3)], dtype=torch.int32)
    mixed = dispatch.span_attention(q, caches[0], sights, 4)
    assert mixed.isfinite().all()
    assert not mixed[1].any(), "it sees nothing"


def test_the_head_draws_with_the_counted_noise_and_returns_ids() -> None:
    x, head = normal(9, 16), Map(normal(40, 16, seed=1))
    ids = torch.arange(40, dtype=torch.int32) * 5
    draw = torch.stack((torch.full((9,), 3), torch.arange(9)), 1)
    found = dispatch.masked_head(x, head, ids_V=ids, draw_R2=draw, temperature=1.5)
    noise = reference.counted_gumbel(draw, 40, ids)
    gold = reference.masked_head(x, head.weight_ED, gumbel_RV=noise, temperature=1.5)
    assert torch.equal(found.token_R, gold.token_R * 5)
    assert torch.equal(found.entropy_R, gold.entropy_R)


def test_commit_is_the_specifications() -> None:
    arguments = ("edit", forwarded(5, 3, 4, 1, 3, 1), torch.full((5,), 0.5).double(), torch.full((5,), 9), ENDS)
    found, gold = dispatch.commit(*arguments), reference_commit.commit(*arguments)
    assert torch.equal(found.place_BP, gold.place_BP)
