"""Code as a stream of hashed tokens, and windows over it: what near-duplicate and contamination filters look at.

A token is a run of letters, digits and underscores, or one other character. White space only separates, and case does
not count, so a text says the same whatever its layout.
"""

import keyword
import re

import numpy as np
import numpy.typing as npt
import xxhash

Hashes = npt.NDArray[np.uint64]
Bits = npt.NDArray[np.bool_]

_TOKEN = re.compile(r"[a-z0-9_]+|[^\sa-z0-9_]")
_WORD, _NUMBER, _SHORT = 1, 2, 4  # the low bits of a token's hash say what it is
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_KEPT_TOKENS = 500_000  # about 60 MB; code has ever more names, and common ones come early


class _Table(dict[str, int]):
    """Token -> hash. One look-up a token: 200 MB of code have 60 million tokens and a million different ones."""

    def __missing__(self, token: str) -> int:
        kind = (
            _WORD * (token[0].isalnum() or token[0] == "_") | _NUMBER * token[0].isdigit() | _SHORT * (len(token) == 1)
        )
        value = xxhash.xxh64_intdigest(token.encode("utf8", errors="surrogatepass")) & ~7 | kind
        if len(self) < _KEPT_TOKENS:
            self[token] = value
        return value


_TABLE = _Table()
# What keeps its meaning when names change: the words of the language and of its most common built-ins.
_FIXED_WORDS = (*keyword.kwlist, "len", "range", "int", "str", "list", "dict", "set", "sorted", "append", "sum", "join")


def tokens_of(text: str) -> Hashes:
    """One hash a token."""
    found = _TOKEN.findall(text.lower())
    return np.fromiter(map(_TABLE.__getitem__, found), dtype=np.uint64, count=len(found))


_FIXED = np.sort(np.unique(np.concatenate([tokens_of(word) for word in _FIXED_WORDS])))
_NAME = np.uint64(_TABLE["a name"])


def words_of(tokens: Hashes) -> Hashes:
    """Words and numbers, without what stands between them."""
    return np.asarray(tokens[(tokens & np.uint64(_WORD)) != 0])


def is_number(tokens: Hashes) -> Bits:
    return np.asarray((tokens & np.uint64(_NUMBER)) != 0)


def is_slight(tokens: Hashes) -> Bits:
    """Numbers and single characters."""
    return np.asarray((tokens & np.uint64(_NUMBER | _SHORT)) != 0)


def shape_of(tokens: Hashes) -> Hashes:
    """The stream with every run of names (words that are neither keyword nor number) made one stand-in.

    A copy under other names has the same shape; prose is a name between its commas.
    """
    word = (tokens & np.uint64(_WORD | _NUMBER)) == _WORD
    name = word & ~np.isin(tokens, _FIXED)
    shape = np.where(name, _NAME, tokens)
    again = np.zeros(len(shape), dtype=bool)
    again[1:] = name[1:] & name[:-1]
    return shape[~again]


def windows(tokens: Hashes, width: int) -> Hashes:
    """A hash of every `width` tokens in a row, in order; one of all of them where there are fewer, none of none."""
    width = min(width, len(tokens))
    if width == 0:
        return tokens
    count = len(tokens) - width + 1
    total = np.zeros(count, dtype=np.uint64)
    for k in range(width):
        total = total * _MULTIPLIER + tokens[k : k + count]  # wraps on purpose
    return total ^ (total >> np.uint64(29))
