"""The order of a set's documents, and which of them are held out."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Split:
    """Numbers of the documents in their final order; the last `validation` of them are held out."""

    order: tuple[int, ...]
    validation: int
    by: str  # "package": held-out packages are held out whole; "document": all were too large for that
    packages: tuple[str, ...]  # held out


def split(packages: Sequence[str], share: float, seed: int) -> Split:
    """Shuffle documents and hold out `share` of them (at least one if it is over 0), by whole packages.

    `packages[i]` is the package of document i. Of packages in a seeded order each is held out that still fits; where
    none does, the smallest one is, if it is at most twice what was asked or a tenth of everything (and no more than
    half). Else documents are: in a repository with two folders half of the text would be lost to learning.
    """
    rng = random.Random(seed)
    order = list(range(len(packages)))
    rng.shuffle(order)
    if share == 0 or len(packages) < 2:
        return Split(tuple(order), 0, "package", ())
    target = max(1, round(share * len(packages)))
    held = _held_out(packages, target, rng)
    if held is None:
        return Split(tuple(order), target, "document", ())
    last = [number for number in order if family(packages[number]) in held]
    first = [number for number in order if family(packages[number]) not in held]
    return Split(tuple(first + last), len(last), "package", tuple(sorted({packages[number] for number in last})))


def family(package: str) -> str:
    """Packages whose names begin alike (google-auth, google-genai) are often one project's, and share code."""
    return package.split("-")[0].rstrip("0123456789")


def _held_out(packages: Sequence[str], target: int, rng: random.Random) -> set[str] | None:
    sizes = Counter(map(family, packages))
    names = sorted(sizes)
    rng.shuffle(names)
    held, count = set(), 0
    for name in names:
        if count + sizes[name] <= target:
            held.add(name)
            count += sizes[name]
    if held:
        return held
    smallest = min(names, key=lambda name: (sizes[name], name))
    most = min(max(2 * target, len(packages) // 10), len(packages) // 2)
    return {smallest} if sizes[smallest] <= most else None
