"""What metadata says of a licence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcode.training.licences import PERMISSIVE, of_metadata, of_wording, permissive

SPDX = sorted(name for name in PERMISSIVE if " " not in name)
COPYLEFT = ["GPL-3.0-only", "LGPL-2.1-or-later", "AGPL-3.0", "MPL-2.0", "EPL-2.0", "LicenseRef-Ours"]
good, bad = st.sampled_from(SPDX), st.sampled_from(COPYLEFT)


def grown(leaves: st.SearchStrategy[tuple[str, bool]]) -> st.SearchStrategy[tuple[str, bool]]:
    """(expression, whether a permissive choice exists) of random expressions."""
    joined = st.tuples(leaves, st.sampled_from(("OR", "AND", "or", "and")), leaves)
    return joined.map(
        lambda t: (f"({t[0][0]} {t[1]} {t[2][0]})", t[0][1] or t[2][1] if t[1].upper() == "OR" else t[0][1] and t[2][1])
    )


leaf = st.tuples(good, st.just(True)) | st.tuples(bad, st.just(False))


@given(st.recursive(leaf, grown, max_leaves=8))
def test_an_expression_is_permissive_if_a_choice_of_its_sides_is(case: tuple[str, bool]) -> None:
    expression, expected = case
    found = permissive(expression)
    assert (found is not None) == expected
    assert found is None or set(found.split(" AND ")) <= PERMISSIVE


@given(good, bad)
def test_and_binds_before_or(one: str, other: str) -> None:
    assert permissive(f"{one} OR {other} AND {other}") == one
    assert permissive(f"{other} AND {one} OR {one}") == one
    assert permissive(f"({other} OR {one}) AND {other}") is None


def test_with_keeps_the_licence() -> None:
    assert permissive("Apache-2.0 WITH LLVM-exception OR GPL-3.0-only") == "Apache-2.0"
    assert permissive("GPL-2.0-only WITH Classpath-exception-2.0") is None


@given(st.text(alphabet="()ANDORWITHmit apache-2.0", max_size=40))
def test_no_text_is_an_error(text: str) -> None:
    permissive(text)
    of_wording(text)


@pytest.mark.parametrize("broken", ["", "MIT AND", "OR MIT", "(MIT", "MIT)", "MIT MIT", "MIT WITH", "()", "MIT (ISC)"])
def test_a_malformed_expression_is_no_licence(broken: str) -> None:
    assert permissive(broken) is None


@pytest.mark.parametrize(
    ("expression", "classifiers", "field", "expected"),
    [
        ("MIT", [], None, "MIT"),
        ("mit or GPL-3.0-only", [], None, "MIT"),
        ("GPL-3.0-or-later", ["MIT License"], "MIT", None),  # the expression alone decides
        (None, ["OSI Approved :: MIT License"], None, "MIT"),
        (None, ["OSI Approved :: BSD License", "OSI Approved :: Apache Software License"], "", "Apache-2.0 AND BSD"),
        (None, ["OSI Approved :: MIT License", "OSI Approved :: GNU General Public License v3 (GPLv3)"], "", None),
        (None, ["OSI Approved :: BSD License"], "GPLv2+", None),  # they do not agree
        (None, ["OSI Approved"], "MIT", "MIT"),
        (None, ["Other/Proprietary License"], "BSD", None),
        (None, [], "Apache License, Version 2.0", "Apache-2.0"),
        (None, [], "Apache 2.0 License", "Apache-2.0"),
        (None, [], "BSD 3-Clause License", "BSD-3-Clause"),
        (None, [], "3-clause BSD", "BSD-3-Clause"),
        (None, [], "MIT OR Apache-2.0", "MIT"),
        (None, [], "PSF", "PSF-2.0"),
        (None, [], "Public Domain", "Public domain"),
        (None, [], "see LICENSE", None),
        (None, [], "UNKNOWN", None),
        (None, [], "Free for non-commercial use", None),
        (None, [], "LGPL with exceptions", None),
        (None, [], None, None),
    ],
)
def test_metadata(expression: str | None, classifiers: list[str], field: str | None, expected: str | None) -> None:
    assert of_metadata(expression, [f"License :: {name}" for name in classifiers], field) == expected


def test_a_whole_text_in_the_field() -> None:
    mit = (
        "Copyright (c) A\n\nPermission is hereby granted, free of charge, to any\nperson obtaining a copy " + "x " * 100
    )
    assert of_wording(mit) == "MIT"
    assert of_wording(mit + " under the GNU General Public License") is None
