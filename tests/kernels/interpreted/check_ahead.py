"""Several steps between two looks of the host, the kernels deciding: a tiny model's tokens are those of torch."""

import pytest
import steps
from steps import FEW_TOKENS, POLICIES, denoised

from diffcode.engine import Model


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("policy", POLICIES)
def test_decided_by_the_kernels(policy: str, model: Model, on_torch: Model) -> None:
    """`commit` and the next step's table too: the host sees nothing before the fills are over."""
    prompts = steps.contexts(2)
    wanted = [denoised(on_torch, prompt, policy, FEW_TOKENS) for prompt in prompts]
    found = steps.ahead(model, policy, prompts, steps=2, tokens=FEW_TOKENS)
    assert found.tokens() == [list(w.tokens) for w in wanted]
    assert found.state.steps_B.tolist() == [w.steps for w in wanted]
