"""The whole step out of the kernels: a tiny model fills holes with them as it does with torch, token for token."""

import pytest
import torch
from steps import BOUNDS, FEW_TOKENS, POLICIES, TEXT, with_stepper

from diffcode.engine import Model, TorchSession
from diffcode.fused import FusedSession
from diffcode.infill import Infiller
from diffcode.kernels import dispatch, tiles
from diffcode.kernels.tiles import Shape, Tile


def test_a_model_takes_the_kernels_where_they_run(model: Model) -> None:
    assert isinstance(model.session(), FusedSession)
    assert isinstance(model.session(noise=model.noise(1), temperature=0.5), TorchSession), "draws are torch's"


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_tokens_as_torch(policy: str, model: Model, on_torch: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    monkeypatch.setattr(dispatch, "_op", lambda name, op=dispatch._op: ran.append(name) or op(name))
    asked = {"marker": "???", "policy": policy, "max_tokens": FEW_TOKENS, "threshold": BOUNDS[policy]}
    found = Infiller(model).fill(TEXT, **asked)
    assert {"qkv_rope", "span_attention", "lora_linear", "gated_mlp", "masked_head"} <= set(ran), "the kernels ran"
    wanted = Infiller(on_torch).fill(TEXT, **asked)
    assert found.text == wanted.text
    for mine, torchs in zip(found.spans, wanted.spans, strict=True):
        assert (mine.tokens, mine.steps, mine.drafts) == (torchs.tokens, torchs.steps, torchs.drafts)


def test_a_tuned_tile_is_used(model: Model) -> None:
    """And gives the same rows; fp32 weights, which it was not tuned for, keep the shipped tile."""
    x, linear = torch.randn(3, 64).half(), dispatch.Map(torch.randn(40, 64).half())
    wanted = dispatch.lora_linear(x, linear)
    wide = dispatch.Map(linear.weight_ED.float())
    tiles.use({Shape("lora_linear", 40, 64, 16): Tile(16, 3, 32, 4, 2)})  # 3 rows are no power of 2
    try:
        with pytest.raises(Exception, match="power of 2"):
            dispatch.lora_linear(x, linear)
        dispatch.lora_linear(x.float(), wide)
        tiles.use({Shape("lora_linear", 40, 64, 16): Tile(16, 16, 32, 4, 2)})
        assert torch.allclose(dispatch.lora_linear(x, linear), wanted, atol=2e-2)
    finally:
        tiles.use({})


def test_a_step_compiles_without_a_break(model: Model) -> None:
    from diffcode.kernels.step import Asked, Table, forward, layout_for, table_of

    stepper = with_stepper(model).stepper
    asked = Asked([5, 6, 7, -1, -1], range(5), [(1, 0, 0), (2, 0, 0), (3, 0, 0), (3, 3, 5), (3, 3, 5)], (0,), 2, 1)
    layout = layout_for(asked, 0)
    table = Table.of(torch.tensor(table_of(asked, layout, 16, 0)), layout)

    def step() -> torch.Tensor:
        return forward(stepper.weights, stepper.arena.caches, table, layout).numbers()

    with torch.inference_mode():
        wanted = step()  # the first one loads the kernels
        found = torch.compile(step, fullgraph=True, backend="aot_eager")()
    assert torch.equal(found, wanted)
