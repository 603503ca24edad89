"""Who runs an op where Triton does. (The ops put together: `check_step.py`.)"""

import pytest
import torch

from diffcode.kernels import dispatch


def test_triton_runs_here() -> None:
    assert dispatch.machine("lora_linear", torch.zeros(1, 8)) == "triton"
    assert dispatch.machine("span_attention", torch.zeros(1, 2, 24), 24) == "torch", "heads of 24"
    assert dispatch.machine("lora_linear", torch.zeros(1, 8, dtype=torch.float64)) == "torch"


def test_torch_runs_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFCODE_KERNELS", "torch")
    assert dispatch.machine("lora_linear", torch.zeros(1, 8)) == "torch"
