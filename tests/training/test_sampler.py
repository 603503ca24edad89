"""Examples: nothing of the text is lost or added, and the canvas is the one that a hole would get."""

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from odd_texts import texts
from training_kit import SHORT, repetitive, write_corpus

from diffcode.canvas import make_block, normalise
from diffcode.errors import UnreadableFile
from diffcode.holes import Hole
from diffcode.syntax import LANGUAGES, parse, pieces
from diffcode.tokens import Tokens
from diffcode.training.dataset import Dataset
from diffcode.training.options import KINDS, SpanOptions
from diffcode.training.sampler import PLACES, WHOLE, Example, Sampler, cut, preview

CODE = (
    'import os\n\n\ndef area(r, pi=3):\n    """é😀 <|fim_middle|>"""\n    if r > 0:\n        return pi * r ** 2\n'
    "    return max(0, r)\n\n\nclass A:\n    x = area(1)  # ünï\n\n    def f(self):\n        return self.x\n"
)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    return Tokens.from_folder(tiny.write_tokenizer(tmp_path_factory.mktemp("tokens")))


def only(kind: str, **changes: object) -> SpanOptions:
    shares = {name: float(name == kind) for name in KINDS}
    return replace(SHORT, **{"no_suffix": 0.0, "no_prefix": 0.0} | shares | changes)


def parts(example: Example, tokens: Tokens) -> tuple[bytes, bytes, bytes]:
    """(prefix, middle, suffix) as they are spelt in an example; the middle begins with the healed bytes."""
    prefix_mark, suffix_mark, *rest = example.context
    assert (prefix_mark, suffix_mark) == (tiny.PREFIX, tiny.SUFFIX)
    at = rest.index(tiny.MIDDLE)
    suffix, prefix, (*middle, end) = rest[:at], rest[at + 1 :], example.middle
    assert end == tiny.END
    assert all(token < len(tiny.TEXTS) for token in (*suffix, *prefix, *middle)), "a control token within text"
    return tokens.decode_bytes(prefix), tokens.decode_bytes(middle), tokens.decode_bytes(suffix)


def examples(
    text: str, options: SpanOptions, tokens: Tokens, count: int, language: str = "python"
) -> Iterator[Example]:
    found = (cut(text, language, random.Random(i), options, tokens) for i in range(count))
    return (e for e in found if e is not None)


# ---- nothing lost


@settings(max_examples=150)
@given(texts, st.sampled_from(KINDS), st.sampled_from(LANGUAGES), st.integers(0, 99))
def test_prefix_middle_and_suffix_spell_the_text(
    tokens: Tokens, text: str, kind: str, language: str, seed: int
) -> None:
    """A byte-order mark is no part of the context, so it is left out here."""
    text = normalise(text.replace("\ufeff", ""))
    e = cut(text, language, random.Random(seed), only(kind), tokens)
    if e is not None:
        prefix, middle, suffix = parts(e, tokens)
        assert (prefix + middle + suffix).decode() == text
        assert (e.kind, e.language) == (kind, language)


@settings(max_examples=100)
@given(texts, st.sampled_from(KINDS), st.booleans(), st.booleans(), st.integers(0, 99))
def test_a_side_that_is_not_shown_is_missing_whole(
    tokens: Tokens, text: str, kind: str, prefix_shown: bool, suffix_shown: bool, seed: int
) -> None:
    text = normalise(text.replace("\ufeff", ""))
    options = only(kind, no_prefix=float(not prefix_shown), no_suffix=float(not suffix_shown))
    e = cut(text, "python", random.Random(seed), options, tokens)
    assume(e is not None)
    assert e is not None
    prefix, middle, suffix = parts(e, tokens)
    spelt = (prefix + middle + suffix).decode()
    assert spelt in text
    assert prefix_shown or prefix == b""
    assert suffix_shown or suffix == b""
    assert not prefix_shown or text.startswith(spelt)
    assert text.endswith(spelt), "where no suffix is shown the middle goes on to the end"


@settings(max_examples=60)
@given(texts, st.sampled_from(KINDS), st.integers(0, 99))
def test_the_canvas_is_that_of_a_hole(tokens: Tokens, text: str, kind: str, seed: int) -> None:
    """As `Infiller` builds it. Which hole, is searched for: an example does not say."""
    text = normalise(text.replace("\ufeff", ""))
    e = cut(text, "python", random.Random(seed), only(kind), tokens)
    assume(e is not None)
    assert e is not None
    _, middle, suffix = parts(e, tokens)
    end = len(text) - len(suffix.decode())
    fitting = []
    for start in range(end, -1, -1):
        block = make_block(text, [Hole(start, end)], [""], 0, tokens, WHOLE)
        if block.context == e.context and block.heal + text[start:end].encode() == middle:
            fitting.append(start)
    assert fitting


def test_the_middle_is_written_in_the_models_own_tokens(tokens: Tokens) -> None:
    """What decoding would emit: the healed bytes and the text as one stretch."""
    for e in examples(CODE, only("characters"), tokens, 200):
        assert list(e.middle[:-1]) == tokens.encode(tokens.decode(e.middle))


def test_words_are_cut_and_healed(tokens: Tokens) -> None:
    """`self.x|` and `re|turn`: the model gets back what stands before the cursor on its piece."""
    text = "def f(self):\n    return self.value\n"
    at = text.index("lue")
    found = set()
    for e in examples(text, only("rest_of_line"), tokens, 300):
        prefix, middle, _ = parts(e, tokens)
        if prefix + middle == text[:-1].encode():
            found.add(middle.decode())
    assert ".value" in found
    assert not any(m and text[: len(text) - 1 - len(m)].endswith("va") for m in found), at


# ---- control tokens


def test_text_that_names_control_tokens_is_text(tokens: Tokens) -> None:
    text = "x = '<|fim_middle|>'\ny = '<|endoftext|><|fim_prefix|><|fim_suffix|>'\n" * 3
    for e in examples(text, SHORT, tokens, 300):
        parts(e, tokens)
        assert e.context.count(tiny.MIDDLE) == 1
        assert tiny.END not in e.middle[:-1]


# ---- places


def node_texts(text: str) -> set[str]:
    raw = text.encode()
    return {raw[p.start : p.end].decode() for p in pieces(parse(text, "python"))}


def test_nodes_are_nodes_also_behind_astral_characters(tokens: Tokens) -> None:
    known, seen = node_texts(CODE), set()
    for seed in range(200):
        place = PLACES["nodes"](CODE, "python", random.Random(seed), SHORT)
        assert place is not None
        seen.add(CODE[slice(*place)])
    assert seen <= known
    assert {"(self)", "pi * r ** 2", "max(0, r)", "return self.x", "area(1)"} <= seen


def test_texts_without_a_grammar_have_no_nodes(tokens: Tokens) -> None:
    assert list(examples(CODE, only("nodes"), tokens, 20, "other")) == []


def test_lines_are_whole_lines(tokens: Tokens) -> None:
    starts = {0, *(i + 1 for i, c in enumerate(CODE) if c == "\n")}
    counts: Counter[int] = Counter()
    indents = ends = 0
    for seed in range(600):
        place = PLACES["lines"](CODE, "python", random.Random(seed), replace(SHORT, most_lines=3))
        if place is None:
            continue
        start, end = place
        line = max(s for s in starts if s <= start)
        assert CODE[line:start].strip(" \t") == ""
        indents += start > line
        ends += CODE[end - 1] != "\n"
        assert end in starts or CODE[end : end + 1] == "\n"
        assert CODE[start:end].strip()
        counts[
            CODE[line:end].rstrip("\n").count("\n") + 1 if CODE[end - 1] != "\n" else CODE[line:end].count("\n")
        ] += 1
    assert set(counts) >= {1, 2, 3}
    assert max(counts) <= 3
    assert counts[1] > 100
    assert indents > 50
    assert ends > 100


def test_characters_are_of_all_lengths_up_to_the_most(tokens: Tokens) -> None:
    options = replace(SHORT, most_characters=20)
    lengths = Counter(
        end - start
        for seed in range(800)
        for start, end in [PLACES["characters"](CODE, "python", random.Random(seed), options) or (0, 0)]
    )
    assert set(lengths) == set(range(1, 21))
    assert lengths[1] > 2 * lengths[10], "drawn log-uniformly: short ones are frequent"


def test_the_rest_of_a_line_ends_before_its_end(tokens: Tokens) -> None:
    for seed in range(200):
        place = PLACES["rest_of_line"](CODE, "python", random.Random(seed), SHORT)
        if place is not None:
            assert "\n" not in CODE[slice(*place)] != ""
            assert CODE[place[1] : place[1] + 1] in ("\n", "")


def test_words_are_whole_and_of_one_line(tokens: Tokens) -> None:
    found = [PLACES["words"](CODE, "python", random.Random(seed), SHORT) or (0, 0) for seed in range(300)]
    middles = [CODE[start:end] for start, end in found]
    assert all("\n" not in m and (m[0].isalnum() or m[0] == "_") and not m[-1].isspace() for m in middles)
    whole = [
        re.search(r"\w$", CODE[:s]) is None and re.match(r"\w", CODE[e:]) is None
        for s, e in found
        if CODE[e - 1].isalnum()
    ]
    assert all(whole)
    single = sum(re.fullmatch(r"\w+", m) is not None for m in middles) / len(middles)
    assert 0.4 < single < 0.8, "half of the draws are one name"


def test_long_middles_are_drawn_anew(tokens: Tokens) -> None:
    for e in examples(CODE, replace(SHORT, most_tokens=5, most_characters=400), tokens, 300):
        assert len(e.middle) <= 6


def test_nothing_missing_is_nothing_but_the_healed_bytes(tokens: Tokens) -> None:
    whole = 0
    for e in examples(CODE, only("empty"), tokens, 200):
        prefix, middle, suffix = parts(e, tokens)
        assert (prefix + middle).decode() + suffix.decode() == CODE
        whole += middle == b""
    assert whole > 5, "behind a line end nothing is healed, and the end comes at once"


# ---- shares


def test_every_kind_and_every_side_has_its_share(tokens: Tokens) -> None:
    options = SpanOptions(most_tokens=10_000, no_suffix=0.2, no_prefix=0.1)
    text = "\n".join(f"value_{i} = call(a, {i})" for i in range(40)) + "\n"
    found = list(examples(text, options, tokens, 1500))
    assert len(found) > 1400
    kinds = Counter(e.kind for e in found)
    total = sum(getattr(options, kind) for kind in KINDS)
    for kind in KINDS:
        assert kinds[kind] / len(found) == pytest.approx(getattr(options, kind) / total, abs=0.04)
    without_suffix = sum(e.context[2] == tiny.MIDDLE for e in found) / len(found)
    without_prefix = sum(e.context[-1] == tiny.MIDDLE for e in found) / len(found)
    assert 0.16 < without_suffix < 0.30
    assert 0.08 < without_prefix < 0.16


# ---- from a set


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, tokens: Tokens) -> Dataset:
    documents = [CODE, "x = 1\r\n" * 30, "", "no line end at all " * 20, CODE * 4, *repetitive(3)]
    return Dataset.open(write_corpus(tmp_path_factory.mktemp("sampler") / "set", documents, tokens, validation=2))


def test_an_example_depends_on_seed_and_number_alone(corpus: Dataset, tokens: Tokens) -> None:
    first = [Sampler(corpus, corpus.training, tokens, SHORT, 5).example(i) for i in range(30)]
    again = Sampler(corpus, corpus.training, tokens, SHORT, 5)
    random.seed(1)
    assert [again.example(i) for i in reversed(range(30))][::-1] == first
    assert len(set(first)) > 25
    other = Sampler(corpus, corpus.training, tokens, SHORT, 6)
    assert [other.example(i) for i in range(30)] != first


def test_windows_are_whole_lines_of_one_document(corpus: Dataset, tokens: Tokens) -> None:
    sampler = Sampler(corpus, corpus.training, tokens, SHORT, 0)
    documents = [normalise(tokens.decode(corpus.ids(d).tolist())) for d in corpus.training]
    seen: Counter[int] = Counter()
    for i in range(400):
        text, language = sampler._window(random.Random(i))
        assert language == "python"
        assert "\r" not in text
        assert len(tokens.encode(text)) <= SHORT.window[1] + 2
        if "\n" not in text:  # of a document without line ends
            continue
        homes = [d for d, document in enumerate(documents) if f"\n{text}" in f"\n{document}"]
        assert homes
        assert text.endswith("\n") or any(documents[d].endswith(text) for d in homes)
        seen.update(homes)
    assert seen.keys() >= {0, 1, 4}, "every long document is drawn from"


def test_where_nothing_follows_the_document_ends(corpus: Dataset, tokens: Tokens) -> None:
    """A middle that stopped anywhere would teach to stop anywhere."""
    sampler = Sampler(corpus, corpus.training, tokens, replace(SHORT, no_suffix=1.0), 0)
    documents = [normalise(tokens.decode(corpus.ids(d).tolist())) for d in corpus.training]
    for i in range(60):
        _, middle, suffix = parts(sampler.example(i), tokens)
        assert suffix == b""
        assert any(document.endswith(middle.decode()) for document in documents)


def test_documents_are_drawn_by_their_length(tmp_path: Path, tokens: Tokens) -> None:
    write_corpus(tmp_path / "set", ["a\n" * 900, "b\n" * 100, "c\n" * 50], tokens)
    dataset = Dataset.open(tmp_path / "set")
    sampler = Sampler(dataset, dataset.training, tokens, replace(SHORT, window=(10, 12)), 0)
    seen = Counter(text[0] for i in range(600) for text, _ in [sampler._window(random.Random(i))] if text)
    assert seen["a"] / seen.total() == pytest.approx(0.9, abs=0.04)
    assert seen["c"] == 0, "held out"


def test_short_and_long_windows_are_drawn(tmp_path: Path, tokens: Tokens) -> None:
    write_corpus(tmp_path / "set", ["a\n" * 5000, "b\n" * 50], tokens)
    dataset = Dataset.open(tmp_path / "set")
    sampler = Sampler(dataset, dataset.training, tokens, replace(SHORT, window=(10, 200)), 0)
    sizes = sorted(len(sampler._window(random.Random(i))[0]) for i in range(400))
    assert sizes[0] < 14
    assert sizes[-1] > 180
    assert 25 < sizes[200] < 70, "log-uniform: half of them lie below the geometric mean, 45"


def test_too_little_text_is_said(tmp_path: Path, tokens: Tokens) -> None:
    write_corpus(tmp_path / "set", ["x = 1\n", "y = 2\n"], tokens)
    dataset = Dataset.open(tmp_path / "set")
    with pytest.raises(UnreadableFile, match="too little text"):
        Sampler(dataset, dataset.training, tokens, SHORT, 0)
    with pytest.raises(UnreadableFile, match="too little text"):
        Sampler(dataset, range(0), tokens, SHORT, 0)


def test_text_without_a_place_for_a_hole_is_said(tmp_path: Path, tokens: Tokens) -> None:
    write_corpus(tmp_path / "set", ["\n" * 500, "\n" * 500], tokens)
    dataset = Dataset.open(tmp_path / "set")
    sampler = Sampler(dataset, dataset.training, tokens, only("lines"), 0)
    with pytest.raises(UnreadableFile, match="inspect"):
        sampler.example(0)


def test_the_preview_names_its_parts(corpus: Dataset, tokens: Tokens) -> None:
    shown = list(preview(corpus, tokens, 1, 5))
    assert len(shown) == 5
    for text in shown:
        assert text.count("<prefix><suffix>") == 1
        assert text.endswith("⟧<end>")
        assert text.startswith("[")
