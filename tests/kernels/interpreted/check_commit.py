"""`commit` in the interpreter, bit for bit."""

import pytest
import torch
from commits import BOUNDS, ENDS, EXACT, forwarded

from diffcode.kernels.reference_commit import commit as spec
from diffcode.kernels.triton.commit import commit, committed, flat

SHAPES = [(1, 0, 1, 1, 0), (7, 3, 5, 1, 4), (33, 8, 5, 2, 4), (20, 1, 9, 1, 8), (20, 6, 3, 3, 2)]
FIELDS = ("kept_B", "commit_B", "drafts_B", "place_BP", "probability_BP", "taken_B", "finished_B")


@pytest.mark.parametrize("policy", BOUNDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_commit_bit_for_bit(policy: str, shape: tuple[int, int, int, int, int], guards) -> None:
    seen = forwarded(*shape, seed=sum(shape))
    bound_B = torch.full((shape[0],), BOUNDS[policy], dtype=torch.float64)
    bound_B[::2] = EXACT[policy]
    left_B = torch.randint(1, 12, (shape[0],), generator=torch.Generator().manual_seed(shape[0]))
    wanted = spec(policy, seen, bound_B, left_B, ENDS)
    found = committed(*commit(*flat(policy, seen, bound_B, left_B, ENDS)))
    for name in FIELDS:
        assert torch.equal(getattr(found, name), getattr(wanted, name)), name


def test_no_fills() -> None:
    seen = forwarded(1, 3, 5, 1, 4, seed=1)
    arguments = [a[:0] if isinstance(a, torch.Tensor) and a is not ENDS else a for a in flat(
        "threshold", seen, torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.int64), ENDS
    )]  # fmt: skip
    counts, places, _ = commit(*arguments)
    assert (counts.shape, places.shape) == ((0, 5), (0, 8))


def test_wrong_types_are_refused() -> None:
    seen = forwarded(2, 3, 5, 1, 4, seed=1)
    with pytest.raises(ValueError, match="fp64"):
        commit(*flat("threshold", seen, torch.zeros(2), torch.ones(2, dtype=torch.int64), ENDS))
