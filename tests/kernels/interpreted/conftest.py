"""Guards round the memory of kernels in Triton's interpreter, where a stray store really hits the host's memory.

These files are run by `tests/kernels/test_interpreted.py`, in a process of their own with TRITON_INTERPRET=1.
"""

import os
from collections.abc import Iterator, Sequence

import pytest
import torch
from steps import load
from torch import Tensor

from diffcode.engine import Model, TorchSession

MODULES = ("commit", "gated_mlp", "lora_linear", "masked_head", "qkv_rope", "span_attention")
MARGIN = 96
SENTINEL = -77


class Guards:
    """Tensors with a margin on both sides that nobody may touch; the inside starts as unusable as the margin."""

    def __init__(self) -> None:
        self.buffers: list[tuple[Tensor, int]] = []

    def fresh(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        size = torch.Size(shape).numel()
        filler = torch.nan if dtype.is_floating_point else SENTINEL
        buffer = torch.full((size + 2 * MARGIN,), filler, dtype=dtype, device=device)
        self.buffers.append((buffer, size))
        return buffer[MARGIN : MARGIN + size].view(shape)

    def inside(self, tensor: Tensor) -> Tensor:
        """A copy with margins: whoever reads beyond its ends computes with NaN."""
        copy = self.fresh(tensor.shape, tensor.dtype, tensor.device)
        return copy.copy_(tensor)

    def check(self) -> None:
        for buffer, size in self.buffers:
            margins = torch.cat((buffer[:MARGIN], buffer[MARGIN + size :]))
            whole = margins.isnan() if buffer.is_floating_point() else margins == SENTINEL
            assert whole.all(), f"a kernel wrote {int((~whole).sum())} numbers beside its output of {size}"


@pytest.fixture(autouse=True)
def interpreter() -> None:
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("run tests/kernels/test_interpreted.py: without TRITON_INTERPRET=1 Triton wants a GPU")


@pytest.fixture
def guards(monkeypatch: pytest.MonkeyPatch) -> Iterator[Guards]:
    found = Guards()
    for name in MODULES:
        monkeypatch.setattr(f"diffcode.kernels.triton.{name}.fresh", found.fresh)
    yield found
    found.check()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(tmp_path_factory.mktemp("step"))


@pytest.fixture(scope="session")
def on_torch(tmp_path_factory: pytest.TempPathFactory) -> Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFCODE_KERNELS", "torch")
        found = load(tmp_path_factory.mktemp("torch"))
    assert isinstance(found.session(), TorchSession)
    return found


@pytest.fixture
def parts(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys split over programs take the interpreter twice as long: one policy's fills have them."""
    if policy != "verified":
        monkeypatch.setattr("diffcode.kernels.triton.span_attention.PROGRAMS", 1)
