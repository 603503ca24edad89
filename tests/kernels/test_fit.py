"""Rounding by what a map reads, against the plain form of it: invert, round one input, make up for it, go on."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffcode.kernels.fit import Moments, best_scales, fit
from diffcode.kernels.pack import Form, pack_linear, unpack_linear


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def related(rows: int, inputs: int, seed: int = 1) -> Tensor:
    """Rows that live in few directions mostly, as those of a real model do."""
    few = inputs // 8
    return drawn(rows, few, seed=seed) @ drawn(few, inputs, seed=seed + 1) + 0.1 * drawn(rows, inputs, seed=seed + 2)


def moments_of(x_RD: Tensor, group: int) -> Moments:
    moments = Moments(x_RD.shape[1], group)
    moments.add(x_RD)
    return moments


def values_of(numbers_ED: Tensor, scales: Tensor, bits: int) -> Tensor:
    wide = scales.float().repeat_interleave(numbers_ED.shape[1] // scales.shape[1], 1)
    return (numbers_ED.float() - (1 << bits - 1)) * wide


def plainly(weight_ED: Tensor, moments_DD: Tensor, bits: int, group: int) -> Tensor:
    """GPTQ as it is told: the inverse is made anew for the inputs that are left."""
    open_ED, done_ED = weight_ED.double().clone(), torch.zeros_like(weight_ED, dtype=torch.double)
    for i in range(weight_ED.shape[1]):
        if i % group == 0:
            weights_nG = moments_DD.diagonal()[None, i : i + group]
            scale_E = best_scales(open_ED[:, i : i + group].T[None].float(), weights_nG, bits)[0].double()
        least = -(1 << bits - 1)
        done_ED[:, i] = (open_ED[:, i] / scale_E).round().clamp(least, -least - 1) * scale_E
        inverse = torch.linalg.inv(moments_DD[i:, i:].double())
        error_E = (open_ED[:, i] - done_ED[:, i]) / inverse[0, 0]
        open_ED[:, i + 1 :] -= torch.outer(error_E, inverse[0, 1:])
    return done_ED


@pytest.mark.parametrize("bits", [5, 4])
def test_it_is_what_the_plain_form_gives(bits: int) -> None:
    weight, x_RD = drawn(7, 64), related(200, 64)
    moments = moments_of(x_RD, 16)
    found = values_of(*fit(weight, moments, bits, 16), bits)
    wanted = plainly(weight, moments.damped()[0], bits, 16)
    # A number that lies on the border may fall to either side, and everything behind it in that output differs.
    same = (found - wanted).abs().amax(1) < 1e-3
    assert same.sum() >= 6


@pytest.mark.parametrize(("bits", "share"), [(5, 0.6), (4, 0.6)])
def test_what_the_map_computes_changes_less(bits: int, share: float) -> None:
    weight, x_RD = drawn(96, 256), related(500, 256)
    fresh_RD = x_RD[400:]
    fitted = values_of(*fit(weight, moments_of(x_RD[:400], 32), bits, 32), bits)
    nearest = unpack_linear(pack_linear(weight, None, Form(bits, 32)))
    lost, before = (((other - weight) @ fresh_RD.T).square().mean() for other in (fitted, nearest))
    assert lost < share * before


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.sampled_from([8, 24, 64]), st.sampled_from([4, 5]), st.integers(0, 99))
def test_unrelated_inputs_are_rounded_to_the_nearest(outputs: int, inputs: int, bits: int, seed: int) -> None:
    weight = drawn(outputs, inputs, seed=seed)
    moments = Moments(inputs, 8)
    moments.sums_nKK += torch.eye(inputs)
    numbers, scales = fit(weight, moments, bits, 8)
    values, wide = values_of(numbers, scales, bits), scales.float().repeat_interleave(8, 1)
    clipped = (numbers == 0) | (numbers == (1 << bits) - 1)
    assert ((values - weight).abs() <= wide.abs() * 0.5001)[~clipped].all()


def test_inputs_of_two_blocks_count_as_unrelated(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, x_RD = drawn(20, 96), related(300, 96)
    monkeypatch.setattr("diffcode.kernels.fit.WIDEST", 50)
    moments = moments_of(x_RD, 16)
    assert moments.sums_nKK.shape == (2, 48, 48)
    numbers, scales = fit(weight, moments, 4, 16)
    halves = [fit(weight[:, part], moments_of(x_RD[:, part], 16), 4, 16) for part in (slice(48), slice(48, 96))]
    assert (numbers == torch.cat([half[0] for half in halves], 1)).float().mean() > 0.99
    assert scales.shape == (20, 6)


def test_outputs_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, moments = drawn(50, 64), moments_of(related(200, 64), 32)
    whole = fit(weight, moments, 4, 32)
    monkeypatch.setattr("diffcode.kernels.fit.CHUNK", 16)
    parts = fit(weight, moments, 4, 32)
    assert (whole[0] == parts[0]).float().mean() > 0.99
    assert whole[1].shape == parts[1].shape == (50, 2)


def test_an_input_that_was_always_zero_and_a_weight_of_zeros() -> None:
    x_RD, weight = related(100, 32), drawn(4, 32)
    x_RD[:, 5], weight[2] = 0, 0
    numbers, scales = fit(weight, moments_of(x_RD, 32), 4, 32)
    values = values_of(numbers, scales, 4)
    assert torch.isfinite(values).all()
    assert (values[2] == 0).all()
