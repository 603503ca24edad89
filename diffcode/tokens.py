"""Text to token ids and back, byte-exact, with control tokens out of reach of any text.

The tokenizer is built without its special tokens and without a normaliser (Qwen's would apply NFC): `encode` of a
document that contains `<|fim_middle|>` gives the ids of those characters, and bytes come back as they were.
"""

import bisect
import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from diffcode.errors import ModelUnavailable

# Pre-tokenisation of Qwen2 (the `pattern` of its published tokenizer.json).
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# (prefix, suffix, middle, end) by the names that model families give them.
FIM_NAMES = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|endoftext|>"),  # Qwen2.5-Coder, CodeGemma-like
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<|endoftext|>"),  # StarCoder, SmolLM
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>", "<｜end▁of▁sentence｜>"),  # DeepSeek-Coder
)


@dataclass(frozen=True, slots=True)
class FimIds:
    """Ids of the control tokens that frame a canvas."""

    prefix: int
    suffix: int
    middle: int
    end: int

    def canvas(self, suffix: Sequence[int], prefix: Sequence[int]) -> tuple[int, ...]:
        """Suffix first: the prefix runs straight into the span, and typing only appends (DESIGN 2.1)."""
        return (self.prefix, self.suffix, *suffix, self.middle, *prefix)


class Tokens:
    """A byte-level vocabulary: `encode`, `bytes_of`, `decode`, and which tokens may stand for given first bytes."""

    def __init__(self, text_tokenizer: Tokenizer, fim: FimIds, token_bytes: list[bytes | None]):
        self._tokenizer = text_tokenizer
        self.fim = fim
        self._bytes = token_bytes

    @classmethod
    def from_folder(cls, folder: Path) -> "Tokens":
        """Read a Hugging Face `tokenizer.json` of a byte-level BPE."""
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelUnavailable(f"{folder} has no tokenizer.json: save the tokenizer in its fast form there")
        try:
            data = json.loads(path.read_text(encoding="utf8"))
            kind = data["model"].get("type", "BPE"), data["model"].get("byte_fallback")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelUnavailable(f"{path} is damaged ({error!r}): fetch it again") from error
        if kind[0] != "BPE" or kind[1]:
            raise ModelUnavailable(
                f"{path} is no byte-level BPE: diffcode runs models with that kind of tokenizer only"
            )
        special = {t["content"]: t["id"] for t in data.get("added_tokens", [])}
        plain: dict[str, Any] = data | {"added_tokens": [], "normalizer": None, "post_processor": None}
        return cls(Tokenizer.from_str(json.dumps(plain)), _fim_ids(special, path), _token_bytes(data, special))

    def __len__(self) -> int:
        return len(self._bytes)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; never a control token."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def pieces(self, text: str) -> list[str]:
        """`text` cut where no token may cross (words with their space, runs of punctuation, line ends)."""
        cuts = self._tokenizer.pre_tokenizer.pre_tokenize_str(text)
        return [text[start:end] for _, (start, end) in cuts]

    def is_end(self, token: int) -> bool:
        """True for every id that is no text: the end of text, but also any other control or padding id."""
        return token >= len(self._bytes) or self._bytes[token] is None

    def bytes_of(self, token: int) -> bytes:
        """The bytes that a token stands for; nothing for a control token."""
        return b"" if self.is_end(token) else self._bytes[token] or b""

    def decode_bytes(self, ids: "list[int] | tuple[int, ...]") -> bytes:
        return b"".join(map(self.bytes_of, ids))

    def decode(self, ids: "list[int] | tuple[int, ...]") -> str:
        """Text of the ids; bytes that form no character (a model may stop inside one) are left out."""
        return self.decode_bytes(ids).decode("utf8", errors="ignore")

    @cached_property
    def text_ids(self) -> list[int]:
        """Ids of all tokens that are text."""
        return [token for token in range(len(self._bytes)) if not self.is_end(token)]

    def compatible(self, start: bytes) -> list[int]:
        """Ids of the tokens that begin with `start`, and of those that `start` begins with (token healing)."""
        low, high = (bisect.bisect_left(self._sorted, key, key=self.bytes_of) for key in (start, start + b"\xff" * 8))
        shorter = [token for n in range(1, len(start)) if (token := self._spelt(start[:n])) is not None]
        return shorter + list(self._sorted[low:high])

    def _spelt(self, text: bytes) -> int | None:
        """The first token that is exactly `text`."""
        at = bisect.bisect_left(self._sorted, text, key=self.bytes_of)
        return self._sorted[at] if at < len(self._sorted) and self.bytes_of(self._sorted[at]) == text else None

    @cached_property
    def _sorted(self) -> "array[int]":
        """Ids by their bytes: a list of pairs would take 20 MB."""
        return array("i", sorted((i for i, b in enumerate(self._bytes) if b), key=lambda i: (self._bytes[i], i)))


def bpe_tokenizer(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    """A Qwen2 tokenizer from the tables that a GGUF file carries."""
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _fim_ids(special: dict[str, int], path: Path) -> FimIds:
    for names in FIM_NAMES:
        if all(name in special for name in names):
            return FimIds(*(special[name] for name in names))
    raise ModelUnavailable(
        f"{path} names no fill-in-the-middle tokens: take a code model trained to fill in the middle"
    )


def _token_bytes(data: dict[str, Any], special: dict[str, int]) -> list[bytes | None]:
    """Bytes of each id, None for control tokens. The vocabulary writes bytes as the GPT-2 alphabet of characters."""
    byte_of = {char: byte for byte, char in _gpt2_alphabet().items()}
    vocab = data["model"]["vocab"]
    size = max([*vocab.values(), *special.values()], default=-1) + 1
    table: list[bytes | None] = [None] * size
    for text, token in vocab.items():
        if text not in special and all(char in byte_of for char in text):
            table[token] = bytes(byte_of[char] for char in text)
    return table


def _gpt2_alphabet() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte: visible Latin-1 as itself, the rest from U+0100 on, in order."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + n) for n, byte in enumerate(hidden)}
