"""Holes that depend on each other: what is found in made-up code, and what all problems have in common."""

import pytest

from diffcode.evals import derive, multihole
from diffcode.evals.multihole import groups
from diffcode.evals.problems import Problem
from diffcode.holes import check_holes

CODE = '''\
def half(n):
    """Half of n."""
    return n // 2


def f(xs, limit):
    """Sum of half the xs, é."""
    total = 0
    best, last = 1, 2
    for x in xs:
        step = half(x)
        total += step
    for x in [1]:
        print(x.total, key=best)
    if total > limit and last:
        return sorted(xs, key=lambda total: total)
    return [y for y in xs if y > last]
'''


@pytest.fixture(scope="module")
def made() -> list[Problem]:
    return list(multihole.make())


def found(code: str = CODE) -> dict[str, list[str]]:
    data = code.encode()
    return {
        group.name: [data[span.start : span.end].decode() for span in (group.origin, *group.uses)]
        for group in groups(code, "f")
    }


def test_groups_of_a_function():
    assert found() == {
        # a helper's body behind its docstring, and the calls
        "half": ["return n // 2", "half(x)"],
        # an assignment, and the whole expressions round its uses; not `x.total`, not the keyword of that name
        "best": ["best, last = 1, 2", "print(x.total, key=best)"],
        "last": ["best, last = 1, 2", "total > limit and last", "[y for y in xs if y > last]"],
        # the head of a loop, and its uses up to the next loop over the same name
        "x": ["x in xs", "half(x)"],
        # not: total (a lambda's as well), step (used as nothing but itself), y (a comprehension's), xs (a parameter)
    }


def test_kind_is_told():
    assert {group.name: group.kind for group in groups(CODE, "f")} == {
        "half": "helper",
        "best": "variable",
        "last": "variable",
        "x": "variable",
    }


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("a = 1\n    a += 2\n    return -a", {"a": ["a = 1", "a += 2", "-a"]}),
        ("a = b = n\n    return a + b", {"a": ["a = b = n", "a + b"], "b": ["b = n", "a + b"]}),
        ("a: int = n\n    if n: a = 2\n    return [a]", {"a": ["a: int = n", "a = 2", "[a]"]}),
        ("for i, (j, k) in n:\n        n[j] = 1", {"j": ["i, (j, k) in n", "n[j] = 1"]}),
        ("print(a)\n    a = 1\n    return [a]", {}),  # used before it is bound: not this binding's
        ("def g(a):\n        return a\n    a = 1\n    return [a]", {}),  # two names that look the same
        ("def g():\n        'Only words.'\n    return [g()]", {}),
        ("a = [" + "1, " * 80 + "]\n    return a[n]", {}),  # too long for a hole
        ("global a\n    a = 1\n    return [a]", {}),
        ("a = 1\n    return (lambda b: b)(n)", {}),
        ("a = f(a=2)\n    return n.a", {}),
    ],
)
def test_groups_of_a_body(body: str, wanted: dict[str, list[str]]):
    assert found(f"def f(n):\n    {body}\n") == wanted


def test_problems_are_humaneval_with_holes(made: list[Problem]):
    whole = {problem.task_id: problem for problem in derive.human_eval()}
    for problem in made:
        origin = whole["/".join(problem.task_id.split("/")[1:3])]
        assert problem.filled(problem.solutions) == origin.filled(origin.solutions)
        assert (problem.test, problem.entry_point) == (origin.test, origin.entry_point)


def test_two_to_four_holes_that_the_engine_accepts(made: list[Problem]):
    assert {len(problem.solutions) for problem in made} == {2, 3, 4}
    for problem in made:
        assert len(check_holes(problem.text, problem.holes)) == len(problem.solutions)
        assert all(text.strip() == text != "" for text in problem.solutions)


def test_holes_share_a_name(made: list[Problem]):
    for problem in made:
        name = problem.task_id.split("/")[3]
        with_name = [name in text for text in problem.solutions]
        # a helper's body need not say its name
        assert sum(with_name) >= len(with_name) - 1
        assert all(with_name) or f"def {name}" in problem.text


def test_enough_of_them_and_no_two_alike(made: list[Problem]):
    assert len(made) == 268
    assert len({problem.task_id for problem in made}) == len({problem.fixed for problem in made}) == len(made)


def test_seed_decides(made: list[Problem]):
    assert list(multihole.make()) == made
    other = {problem.task_id: problem for problem in multihole.make(seed=1)}
    same = [problem == other.get(problem.task_id) for problem in made]
    assert 0 < sum(same) < len(same)
