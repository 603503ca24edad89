"""Weights in bf16 and in 8, 5 and 4 bits: the rounding, the layout, and the machine's linear map against both."""

import itertools
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rounded import rounded
from torch import Tensor

from diffcode.kernels.cpu import native
from diffcode.kernels.pack import (
    BF16,
    SHARE,
    Form,
    PackedLinear,
    group_of,
    pack_linear,
    pick_outputs,
    product,
    unpack_linear,
)

needs_engine = pytest.mark.skipif(native.library() is None, reason="the CPU engine was not built here")
SHAPES = ((1, 4), (31, 8), (32, 128), (33, 132), (64, 896), (97, 512), (128, 4864))
ROWS = (0, 1, 2, 3, 7, 11, 12, 13, 24, 25, 37)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


FORMS = [Form(), Form(8, 32), Form(5, 64), Form(5, 32), Form(4, 64), Form(4, 32)]
ALL = [*FORMS, BF16]


def scales_of(packed: PackedLinear) -> Tensor:
    """One for each weight, [E, D]."""
    scales = packed.scales.float().transpose(1, 2).reshape(packed.padded, -1).repeat_interleave(packed.group, 1)
    return scales[: packed.outputs]


@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_8_bits_are_within_half_a_step(outputs: int, inputs: int) -> None:
    weight = drawn(outputs, inputs)
    packed = pack_linear(weight)
    scales = scales_of(packed)
    least = weight.view(outputs, -1, packed.group).abs().amax(-1).repeat_interleave(packed.group, 1) / 127
    assert (scales >= least * 0.9999).all()
    assert (scales <= least * (1 + 2**-7)).all(), "the next bf16 number"
    assert ((unpack_linear(packed) - weight).abs() <= scales * 0.5001).all()
    assert (packed.outputs, packed.inputs, packed.padded % 32, packed.bits) == (outputs, inputs, 0, 8)


@pytest.mark.parametrize("form", FORMS[2:])
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_fewer_bits_are_within_half_a_step_but_for_the_largest(outputs: int, inputs: int, form: Form) -> None:
    weight = drawn(outputs, inputs)
    packed = pack_linear(weight, None, form)
    assert packed.bits == (form.bits if packed.group % 8 == 0 else 8)
    if packed.bits == 8:
        return
    scales, wrong = scales_of(packed).abs(), (unpack_linear(packed) - weight).abs()
    steps = 2 ** (form.bits - 1)
    least = weight.view(outputs, -1, packed.group).abs().amax(-1).repeat_interleave(packed.group, 1) / steps
    assert ((scales - least).abs() <= least * 2**-8).all(), "the nearest bf16 number"
    clipped = weight.abs() > scales * (steps - 0.5)  # the largest ones of the other sign, by half a step more
    assert (wrong <= scales * 0.5001)[~clipped].all()
    assert (wrong <= scales * 1.1).all()


@pytest.mark.parametrize("form", ALL)
def test_picked_outputs_are_those_of_the_whole(form: Form) -> None:
    packed = pack_linear(drawn(70, 64), None, form)
    wanted = torch.tensor([69, 0, 3, 3, 40, *range(10, 45)])
    picked = pick_outputs(packed, wanted)
    assert torch.equal(unpack_linear(picked), unpack_linear(packed)[wanted])
    assert picked.bits == packed.bits


def test_the_layout_is_what_the_engine_reads() -> None:
    weight = drawn(40, 12)
    packed = pack_linear(weight, None, Form(8, 4))
    for e, d in ((0, 0), (1, 5), (31, 11), (32, 3), (39, 8)):
        stored = int(packed.weights[e // 32, d // 4, e % 32, d % 4]) - 128
        scale = float(packed.scales[e // 32, d // 4, e % 32])
        assert stored * scale == pytest.approx(float(weight[e, d]), abs=scale)


def test_the_layout_of_bf16_is_what_the_engine_reads() -> None:
    weight = drawn(40, 12)
    packed = pack_linear(weight, None, BF16)
    assert (packed.bits, packed.group, packed.inputs, packed.outputs, packed.padded) == (16, 0, 12, 40, 64)
    for e, d in ((0, 0), (1, 5), (31, 11), (32, 3), (39, 8)):
        assert packed.weights[e // 32, d // 2, e % 32, d % 2] == weight[e, d].bfloat16()
    assert torch.equal(unpack_linear(packed), weight.bfloat16().float()), "nothing is lost of a model in bf16"


@pytest.mark.parametrize("bits", [4, 5])
def test_the_layout_of_fewer_bits_is_what_the_engine_reads(bits: int) -> None:
    weight = drawn(40, 24)
    packed = pack_linear(weight, None, Form(bits, 8))
    for e, d in ((0, 0), (1, 5), (31, 23), (32, 3), (39, 12)):
        eight, at, upper = packed.weights[e // 32, d // 8], e % 32 * 4 + d % 4, d // 4 % 2
        stored = int(eight[at]) >> 4 * upper & 15
        if bits == 5:
            stored |= (int(eight[128 + upper * 16 + at // 8]) >> at % 8 & 1) << 4
        scale = float(packed.scales[e // 32, d // 8, e % 32])
        assert (stored - 2 ** (bits - 1)) * scale == float(unpack_linear(packed)[e, d])
        assert (stored - 2 ** (bits - 1)) * scale == pytest.approx(float(weight[e, d]), abs=2.5 * abs(scale))


@pytest.mark.parametrize("form", ALL)
def test_zeros_stay_zeros(form: Form) -> None:
    assert torch.equal(unpack_linear(pack_linear(torch.zeros(5, 8), None, form)), torch.zeros(5, 8))


@given(st.integers(1, 2000).map(lambda n: 4 * n), st.integers(4, 256))
def test_groups_divide(inputs: int, most: int) -> None:
    size = group_of(inputs, most)
    assert inputs % size == 0
    assert size % 4 == 0
    assert size <= max(most, 4)


@pytest.mark.parametrize("outputs", [70, 300])
@pytest.mark.parametrize("form", ALL)
def test_a_product_of_two_maps_is_that_product(outputs: int, form: Form) -> None:
    packed, up_Dr = pack_linear(drawn(outputs, 64), None, form), drawn(64, 96, seed=1)
    narrow, turn = product(packed, up_Dr)
    wanted = unpack_linear(packed) @ up_Dr
    wrong = unpack_linear(narrow) @ unpack_linear(turn) - wanted
    assert wrong.norm() <= 0.02 * wanted.norm()
    assert (narrow.outputs, narrow.inputs, turn.outputs, turn.inputs) == (outputs, 64, 64, 96), "no more than needed"


def test_a_product_with_a_map_of_zeros_is_zero() -> None:
    """A span adapter begins with such a successor map, and may be filled with before it has learnt."""
    packed = pack_linear(torch.randn(64, 32))
    narrow, turn = product(packed, torch.zeros(32, 16))
    assert torch.equal(unpack_linear(narrow) @ unpack_linear(turn), torch.zeros(64, 16))


def test_a_product_leaves_out_what_hardly_matters() -> None:
    up_Dr = drawn(64, 128) * 0.5 ** (torch.arange(128) / 4)
    packed = pack_linear(drawn(512, 64))
    narrow, turn = product(packed, up_Dr)
    wanted = unpack_linear(packed) @ up_Dr
    assert narrow.inputs == 32
    assert (unpack_linear(narrow) @ unpack_linear(turn) - wanted).norm() <= (2 * (1 - SHARE)) ** 0.5 * wanted.norm()


def check_linear() -> None:
    """Every shape and row count against `x W^T` of the rounded numbers, in fp64."""
    from diffcode.kernels.cpu.engine import linear

    for (outputs, inputs), form in itertools.product(SHAPES, ALL):
        weight, bias = drawn(outputs, inputs), drawn(outputs, seed=1)
        for bias_E in (bias, None):
            packed = pack_linear(weight, bias_E, form)
            exact = unpack_linear(packed).double()
            for count in ROWS:
                x = drawn(count, inputs, seed=count)
                x[:, : inputs // 2] *= 30  # outliers in some groups
                wanted = rounded(x, packed.group).double() @ exact.T + (0 if bias_E is None else bias_E)
                got = linear(x, packed)
                assert got.shape == wanted.shape
                if count == 0:
                    continue
                assert ((got - wanted).abs() <= 1e-5 * (1 + wanted.abs().amax())).all(), (outputs, inputs, count)
                if count > 1:  # a row's result does not depend on the rows beside it
                    assert torch.equal(linear(x[1:2], packed), got[1:2])


@needs_engine
@pytest.mark.parametrize("isa", ["amx", "avx512bf16", "avx512", "avx2", "portable"])
def test_the_linear_map_of_every_instruction_set(isa: str) -> None:
    """In a process each, for the choice is made once."""
    code = (
        "import sys, test_pack\nfrom diffcode.kernels.cpu import native\n"
        "sys.exit(77) if native.library() is None else test_pack.check_linear()"
    )
    here = os.path.dirname(__file__)
    path = os.pathsep.join((here, os.path.dirname(here)))
    environment = os.environ | {"DIFFCODE_ISA": isa, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    if done.returncode == 77:
        pytest.skip(f"this processor has no {isa}")
    assert done.returncode == 0, done.stderr


@needs_engine
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 40), st.integers(0, 15), st.sampled_from(ALL), st.integers(0, 10**6))
def test_the_linear_map_of_any_size(outputs: int, quads: int, rows: int, form: Form, seed: int) -> None:
    from diffcode.kernels.cpu.engine import linear

    packed = pack_linear(drawn(outputs, 4 * quads, seed=seed), None, form)
    x = drawn(rows, 4 * quads, seed=seed + 1)
    wanted = rounded(x, packed.group).double() @ unpack_linear(packed).double().T
    assert torch.allclose(linear(x, packed).double(), wanted, rtol=0, atol=1e-4)
