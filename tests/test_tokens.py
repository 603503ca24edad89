"""Text to ids and back over the real vocabulary: every byte returns, and no text turns into a control token."""

import inspect
import json
import random
import textwrap
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import NFC
from tokenizers.pre_tokenizers import ByteLevel

from diffcode.canvas import normalise
from diffcode.errors import ModelUnavailable
from diffcode.tokens import FimIds, Tokens

CONTROL_TEXTS = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>", "<|endoftext|>", "<|im_start|>")
CODE = (inspect.getsource(textwrap), inspect.getsource(json.decoder))
ATOMS = (
    *("\r\n", "\n", "\r", "\n\r", "\t", " ", "    ", "\v", "\f", "\0", "\x7f", "\x85", "\xa0", "\u2028", "\u3000"),
    *("\ufeff", "\ufffd", "\u200d", "e\u0301", "é", "\u1100\u1161", "가", "ﬁ", "\u212b", "²", "Ⅳ", "٣", "日本"),
    *("𝕏", "👩‍👩‍👧", "\U0010ffff", "don't", "I'LL", "'s", "def f(x):", "self.value", "==", "->", "-" * 40),
    *("0x1F", "# ", '"""', "Ġ", "Ċ", "<|", "|>", *CONTROL_TEXTS),
)
texts = st.lists(st.one_of(st.sampled_from(ATOMS), st.text(max_size=6)), max_size=30).map("".join)


def byte_ends(parts: list[bytes]) -> set[int]:
    return set(accumulate(map(len, parts)))


@given(text=texts)
@example("")
@example("\ufeffa\r\nb\rc\n\r\n  \r\n\td")
@example("no end of line \u2028 \f \0")
@settings(max_examples=400)
def test_text_comes_back_as_it_was(tokens: Tokens, text: str):
    ids = tokens.encode(text)
    assert tokens.decode_bytes(ids) == text.encode()
    assert tokens.decode(tuple(ids)) == text


def test_every_character_of_the_basic_plane_comes_back(tokens: Tokens):
    for first in range(0, 0x10000, 0x400):
        text = "".join(chr(n) for n in range(first, first + 0x400) if not 0xD800 <= n < 0xE000)
        assert tokens.decode(tokens.encode(text)) == text, hex(first)


@given(parts=st.lists(st.one_of(st.sampled_from(CONTROL_TEXTS), st.sampled_from(("<|", "|", ">", " ", "\n", "x")))))
@settings(max_examples=200)
def test_text_that_looks_like_control_tokens_stays_text(tokens: Tokens, parts: list[str]):
    text = "".join(parts)
    ids = tokens.encode(text)
    assert not [i for i in ids if tokens.is_end(i)]
    assert tokens.decode(ids) == text


def test_the_control_ids_are_those_of_the_model(tokens: Tokens):
    assert tokens.fim == FimIds(prefix=151659, suffix=151661, middle=151660, end=151643)
    assert all(tokens.is_end(i) for i in range(151643, len(tokens) + 9))
    assert all(tokens.bytes_of(i) == b"" for i in range(151643, len(tokens) + 9))


def test_an_id_is_an_end_if_and_only_if_it_has_no_bytes(tokens: Tokens):
    ends = [i for i in range(len(tokens)) if tokens.is_end(i)]
    assert [i for i in range(len(tokens)) if not tokens.bytes_of(i)] == ends
    assert 20 < len(ends) < 400  # control and padding ids only: a vocabulary has not lost its text
    assert {tokens.bytes_of(i) for i in range(256)} == {bytes([b]) for b in range(256)}


def test_every_text_token_stands_for_other_bytes(tokens: Tokens):
    spelt = [tokens.bytes_of(i) for i in range(len(tokens)) if not tokens.is_end(i)]
    assert len(set(spelt)) == len(spelt)


@given(text=texts)
@settings(max_examples=300)
def test_pieces_join_to_the_text_and_no_token_crosses_one(tokens: Tokens, text: str):
    pieces = tokens.pieces(text)
    assert "".join(pieces) == text
    assert "" not in pieces
    ends_of_tokens = byte_ends([tokens.bytes_of(i) for i in tokens.encode(text)])
    assert byte_ends([piece.encode() for piece in pieces]) <= ends_of_tokens


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("self.val", ["self", ".val"]),
        ("    return x", ["   ", " return", " x"]),
        ("f(a, 12)\n", ["f", "(a", ",", " ", "1", "2", ")\n"]),
        ("x = [\n\n    1]", ["x", " =", " [\n\n", "   ", " ", "1", "]"]),
        ("we're", ["we", "'re"]),
        ("𝕏y 👍z", ["𝕏y", " 👍", "z"]),
    ],
)
def test_pieces_of_concrete_lines(tokens: Tokens, text: str, pieces: list[str]):
    assert tokens.pieces(text) == pieces


@given(text=texts.map(normalise))
@settings(max_examples=300)
def test_a_line_end_is_always_the_end_of_a_token(tokens: Tokens, text: str):
    """What the canvas relies on where it cuts the context into whole lines."""
    for token in tokens.encode(text):
        data = tokens.bytes_of(token)
        assert b"\n" not in data or data.endswith(b"\n")


def test_a_published_tokenizer_is_kept_from_changing_or_reading_into_the_text(tmp_path: Path):
    """One that composes characters, knows control tokens by their text and also has them in its vocabulary."""
    vocab = {char: i for i, char in enumerate(sorted(ByteLevel.alphabet()))}
    published = Tokenizer(BPE(vocab | {"<|endoftext|>": 256}, []))
    published.normalizer, published.pre_tokenizer = NFC(), ByteLevel(add_prefix_space=False)
    published.add_special_tokens(["<|endoftext|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"])
    published.save(str(tmp_path / "tokenizer.json"))
    assert published.encode("e\u0301<|fim_middle|>").ids[-1] == 259
    own = Tokens.from_folder(tmp_path)
    assert own.fim == FimIds(prefix=257, suffix=258, middle=259, end=256)
    assert [i for i in range(261) if own.is_end(i)] == [256, 257, 258, 259, 260]
    text = "e\u0301<|fim_middle|> <|endoftext|>\n"
    assert own.decode(own.encode(text)) == text
    assert len(own.encode(text)) == len(text.encode())


@pytest.mark.parametrize("text", ["e\u0301", "\u212b", "\u1100\u1161", "ﬁ", "a\u0323\u0307", "\u0344"])
def test_characters_are_not_composed(tokens: Tokens, text: str):
    assert [*tokens.decode(tokens.encode(text))] == [*text]


@given(text=texts, cut=st.integers(min_value=0))
@settings(max_examples=200)
def test_half_a_character_at_the_end_is_left_out(tokens: Tokens, text: str, cut: int):
    text = text.replace("\ufffd", "")
    ids = tokens.encode(text)
    ids = ids[: cut % (len(ids) + 1)]
    assert text.startswith(tokens.decode(ids))
    assert "\ufffd" not in tokens.decode(ids)


def test_every_byte_of_a_character_may_be_the_last(tokens: Tokens):
    one_byte = {tokens.bytes_of(i): i for i in range(len(tokens)) if len(tokens.bytes_of(i)) == 1}
    for text, character in (("x = '", "é"), ("", "日"), ("a ", "👍")):
        data = character.encode()
        for n in range(1, len(data)):
            tail = [one_byte[data[i : i + 1]] for i in range(n)]
            assert tokens.decode([*tokens.encode(text), *tail]) == text


def test_compatible_is_what_comparing_every_token_finds(tokens: Tokens):
    table = [(i, tokens.bytes_of(i)) for i in range(len(tokens)) if not tokens.is_end(i)]
    dice = random.Random(7)
    code = "\n".join([*CODE, "größe = 'naïve 日本語 👍'\n" * 50]).encode()
    starts = [b" ", b"\n", b"\xff", b"\xf0\x9f", b"    ", b".val", b" return", "日".encode()[:2]]
    for _ in range(40):
        at = dice.randrange(len(code) - 40)
        starts.append(code[at : at + dice.choice((1, 1, 2, 3, 5, 8, 13, 32))])
    for start in starts:
        wanted = [i for i, data in table if data.startswith(start) or start.startswith(data)]
        assert sorted(tokens.compatible(start)) == wanted, start


@given(start=st.binary(min_size=1, max_size=12))
@settings(max_examples=100)
def test_any_bytes_can_be_spelt_from_compatible_tokens(tokens: Tokens, start: bytes):
    found = tokens.compatible(start)
    assert len(found) == len(set(found))
    assert start[:1] in {tokens.bytes_of(i) for i in found}
    assert all(a.startswith(b) or b.startswith(a) for a, b in ((tokens.bytes_of(i), start) for i in found))


def test_the_pieces_of_code_are_those_of_its_lines(tokens: Tokens):
    """A line is cut alike alone and inside its file: healing looks at the last line only."""
    for text in CODE:
        ends = byte_ends([piece.encode() for piece in tokens.pieces(text)])
        at = 0
        for line, after in pairwise([*text.splitlines(keepends=True), ""]):
            if line.strip() and after.strip():
                own = byte_ends([piece.encode() for piece in tokens.pieces(line)])
                assert {at + end for end in own} <= ends
            at += len(line.encode())


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"tokenizer.json": '{"model": {"type": "Unigram", "vocab": []}}'},
        {"tokenizer.json": '{"model": {"type": "BPE", "byte_fallback": true, "vocab": {}, "merges": []}}'},
        {"tokenizer.json": '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": []}'},
    ],
    ids=["no file", "unigram", "byte fallback", "no control tokens"],
)
def test_a_folder_that_cannot_serve_is_refused_in_one_line(tmp_path: Path, files: dict[str, str]):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ModelUnavailable) as caught:
        Tokens.from_folder(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
