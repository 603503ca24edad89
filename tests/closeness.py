"""How kernels are compared (DESIGN section 5): no farther from the fp32 result than torch in the same type.

`|gold - out| <= |gold - reference| + tolerance`, elementwise (as in ml-cross-entropy).
"""

import torch
from torch import Tensor

TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}


def check_close(out: Tensor, gold: Tensor, reference: Tensor, dtype: torch.dtype) -> None:
    """`gold`: the specification in fp32 on the same numbers; `reference`: the specification in `dtype`."""
    assert out.shape == gold.shape
    off, allowed = (gold.double() - out.double()).abs(), (gold.double() - reference.double()).abs() + TOLERANCE[dtype]
    assert out.isfinite().all(), "numbers are missing or were never written"
    worst = (off - allowed).max() if off.numel() else torch.tensor(-1.0)
    assert worst <= 0, f"off by {float(off.max()):.3g}, {float(worst):.3g} over what torch in {dtype} is off"


def normal(*shape: int, seed: int = 0, spread: float = 1.0) -> Tensor:
    return spread * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
