"""Texts that were seen already, exactly or nearly.

Near: the Jaccard similarity of the sets of 5 tokens in a row, estimated by MinHash (datasketch). Of a group of
relatives the first one stays.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import xxhash
from datasketch import MinHash, MinHashLSH

from diffcode.training.grams import Hashes, windows

Signature = npt.NDArray[np.uint32]

SHINGLE = 5
PERMUTATIONS = 64  # standard error of a similarity of 0.7: 0.06
_SCHEME = "affine32"
_TABLE = MinHash(
    num_perm=PERMUTATIONS, scheme=_SCHEME
).permutations  # from a fixed seed: making it costs more than a small file


def exact_key(text: str) -> bytes:
    """The same for texts that differ in white space only."""
    return xxhash.xxh128_digest(" ".join(text.split()).encode("utf8", errors="surrogatepass"))


def signature(tokens: Hashes) -> Signature:
    """MinHash of the distinct shingles, uint32 [PERMUTATIONS]."""
    sketch = _sketch()
    shingles = np.unique(windows(tokens, SHINGLE))
    sketch.update_batch((shingles >> np.uint64(32)).tolist())  # ready hashes: datasketch's own are one Python call each
    return np.asarray(sketch.hashvalues, dtype=np.uint32)


def similarity(one: Signature, other: Signature) -> float:
    """Estimated Jaccard similarity, 0 to 1."""
    return float(np.mean(one == other))


@dataclass(slots=True)
class Seen:
    """What was kept so far; about 2.5 KB a document."""

    threshold: float = 0.7
    _keys: set[bytes] = field(default_factory=set)
    _signatures: list[Signature] = field(default_factory=list)
    _lookup: MinHashLSH = field(init=False)

    def __post_init__(self) -> None:
        # false negatives weigh more: candidates are compared below anyway
        self._lookup = MinHashLSH(threshold=self.threshold, num_perm=PERMUTATIONS, weights=(0.3, 0.7))

    def duplicate(self, key: bytes, sketch: Signature | None) -> str | None:
        """Why a document is one too many; None, and it is remembered, if it is new. No sketch: exact ones only."""
        if key in self._keys:
            return "exact duplicate"
        if sketch is None:
            self._keys.add(key)
            return None
        hashes = _sketch(sketch)
        for number in self._lookup.query(hashes):
            if similarity(self._signatures[number], sketch) >= self.threshold:
                return "near duplicate"
        self._keys.add(key)
        self._lookup.insert(len(self._signatures), hashes, check_duplication=False)
        self._signatures.append(sketch)
        return None


def _sketch(values: Signature | None = None) -> MinHash:
    return MinHash(num_perm=PERMUTATIONS, permutations=_TABLE, hashvalues=values, scheme=_SCHEME, hashfunc=int)
