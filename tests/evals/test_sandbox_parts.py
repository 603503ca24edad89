"""The sandbox's parts by themselves: the plain data between guest and tester, and the filter of system calls."""

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcode.evals import guest, seccomp, tester

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    st.text(st.characters()),
    st.binary(),
    st.fractions(),
    st.decimals(allow_nan=False),
)


KEYS = st.one_of(SCALARS, st.lists(SCALARS, max_size=3).map(tuple), st.frozensets(SCALARS, max_size=3))
PLAIN = st.recursive(
    KEYS,
    lambda inner: st.lists(inner, max_size=5).flatmap(lambda parts: st.sampled_from([parts, tuple(parts)])),
    max_leaves=10,
) | st.dictionaries(KEYS, st.lists(KEYS, max_size=3), max_size=5)


def received(value: object) -> Any:
    return json.loads(guest.pack(value).encode("ascii").decode("ascii"), object_hook=tester.untag)


def types(value: Any) -> Any:
    """The value with every part's type beside it: 1 and True and 1.0 differ, and so do 0.0 and -0.0."""
    if isinstance(value, dict):
        return dict, [(types(key), types(inner)) for key, inner in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [types(inner) for inner in value]
    if isinstance(value, set | frozenset):
        return type(value), sorted(repr(types(inner)) for inner in value)
    return type(value), repr(value) if isinstance(value, float | complex) else value


@given(PLAIN)
def test_plain_data_arrives_as_it_was(value: object):
    assert received(value) == value
    assert types(received(value)) == types(value)


def test_not_a_number_and_infinities_arrive():
    assert str(received([float("nan"), float("inf"), -float("inf")])) == "[nan, inf, -inf]"


def test_numbers_of_any_length_arrive():
    # Python refuses to write the longer ones in decimal.
    for number in (2**53 - 1, 2**53, 2**53 + 1, 10**5000):
        assert received([number, -number]) == [number, -number]


@pytest.mark.parametrize("value", [object(), len, type, json, [{}, (object(),)], {1: len}])
def test_what_is_not_plain_is_not_sent(value: object):
    with pytest.raises(guest.NotPlain):
        guest.pack(value)


@pytest.mark.parametrize(
    "names", [["passed"], [], [1, None, ["ValueError"]], ["len"], ["object"], ["BaseExceptionGroup"], ["__import__"]]
)
def test_exception_has_no_name_of_the_programs_choice(names: list[object]):
    assert type(tester.exception(names)) is Exception


@pytest.mark.parametrize("kind", [KeyError, UnicodeDecodeError, SystemExit, OSError])
def test_exception_keeps_its_nearest_builtin_class(kind: type[BaseException]):
    own = type("Own", (kind,), {})
    assert type(tester.exception([base.__name__ for base in own.__mro__])) is kind


def run_filter(steps: bytes, number: int, first: int, architecture: int) -> int:
    """What the kernel does with a filter for a system call (linux/bpf_common.h, for the five codes used)."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, first, *[0] * 5)
    place = value = 0
    while True:
        code, yes, no, operand = struct.unpack_from("=HBBI", steps, 8 * place)
        place += 1
        if code == 0x06:
            return operand
        if code == 0x20:
            (value,) = struct.unpack_from("=I", data, operand)
            continue
        place += yes if {0x15: value == operand, 0x35: value >= operand, 0x45: value & operand}[code] else no


ALLOW, NOT_PERMITTED, NO_SUCH_CALL = 0x7FFF0000, 0x50001, 0x50026
# Number of clone, its bits of a fork by the C library, of a thread, and of a new user namespace.
CLONES = {"x86_64": 56, "aarch64": 220}
FORK, THREAD, NEW_USER = 0x01200011, 0x003D0F00, 0x10000000


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
def test_filter_refuses_what_it_should_and_nothing_else(machine: str):
    architecture = seccomp.ARCHITECTURES[machine]
    column = list(seccomp.ARCHITECTURES).index(machine)
    steps = seccomp.build(machine)
    refused = {numbers[column] for numbers in seccomp.REFUSED.values()}
    for number in range(500):
        wanted = NOT_PERMITTED if number in refused else NO_SUCH_CALL if number == 435 else ALLOW
        assert run_filter(steps, number, 0, architecture) == wanted
        assert run_filter(steps, number, 0, architecture ^ 1) == NOT_PERMITTED
        assert run_filter(steps, number | 0x40000000, 0, architecture) == NOT_PERMITTED
    assert run_filter(steps, CLONES[machine], FORK, architecture) == ALLOW
    assert run_filter(steps, CLONES[machine], THREAD, architecture) == ALLOW
    assert run_filter(steps, CLONES[machine], FORK | NEW_USER, architecture) == NOT_PERMITTED


def test_machine_without_known_numbers_has_no_filter():
    assert seccomp.build("vax") == b""
