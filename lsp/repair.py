"""Repair: where something is wrong, which characters to mask so that denoising can put them right."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from diffcode.holes import Hole
from diffcode.lsp.lexemes import lexemes, whole
from diffcode.lsp.spot import Spot
from diffcode.syntax import Code, Node, faults

STATEMENT = re.compile(r"(?<!compound)_(?:statement|declaration|definition|item|spec)$|^declaration$")
LONGEST = 600  # characters of a candidate: more is no repair but a rewrite
NEAR = 120  # characters round a range from which tokens are picked
DOUBTFUL = 0.1  # a token less likely than this is picked


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place to mask. `kind`: a missing token, an error node, the range itself, its line or the statement round it."""

    hole: Hole
    kind: Literal["missing", "error", "range", "line", "statement"]


@dataclass(frozen=True, slots=True)
class Doubt:
    """How likely the token at characters [start, end) is, given both its sides."""

    start: int
    end: int
    probability: float


def candidates(text: str, start: int, end: int, code: Code | None = None) -> tuple[Candidate, ...]:
    """What to mask for a diagnostic at characters [start, end), the smallest first; no hole twice."""
    found = list(_errors(text, start, end, code)) if code is not None else []
    first, last = whole(text, start, end)
    if first < last:
        found.append(Candidate(Hole(first, last), "range"))
    line = Spot(text, start).line
    found.append(Candidate(Hole(*_bare(text, *line)), "line"))
    if code is not None:
        found += _statements(text, start, end, code)
    ordered = sorted(found, key=lambda c: (c.kind != "missing", c.hole.end - c.hole.start))
    kept = {c.hole: c for c in reversed(ordered) if c.hole.end - c.hole.start <= LONGEST and _usable(text, c)}
    return tuple(c for c in ordered if kept.get(c.hole) is c)


def _usable(text: str, candidate: Candidate) -> bool:
    return candidate.kind == "missing" or bool(text[candidate.hole.start : candidate.hole.end].strip())


def _errors(text: str, start: int, end: int, code: Code) -> Iterator[Candidate]:
    """Error nodes that touch the lines of the range; of a large one, the part on these lines."""
    top, bottom = Spot(text, start).line[0], Spot(text, end).line[1]
    for node in faults(code.root):
        first, last = code.span(node)
        if last < top or first > bottom:
            continue
        if node.is_missing:
            yield Candidate(Hole(first, first), "missing")
            continue
        for at in (first, max(first, top)):  # a colon, a closing bracket: likelier than all else
            end = _bare(text, *Spot(text, at).line)[1]
            yield Candidate(Hole(end, end), "missing")
        if last - first <= LONGEST:
            yield Candidate(Hole(*_bare(text, first, last)), "error")
        else:
            yield Candidate(Hole(*_bare(text, max(first, top), min(last, bottom))), "error")


def _statements(text: str, start: int, end: int, code: Code) -> Iterator[Candidate]:
    first, last = whole(text, start, end)
    if first == last:  # at a place, what stands left of it is meant
        line = Spot(text, start).line[0]
        last = line + len(text[line:start].rstrip())
        first = max(line, last - 1)
    nodes: Iterator[Node] = code.round(first, last)
    statement = next((node for node in nodes if STATEMENT.search(node.type) and node.parent is not None), None)
    if statement is not None:
        yield Candidate(Hole(*_bare(text, *code.span(statement))), "statement")


def _bare(text: str, start: int, end: int) -> tuple[int, int]:
    inner = text[start:end]
    if not inner.strip():
        return start, start
    return start + len(inner) - len(inner.lstrip()), end - len(inner) + len(inner.rstrip())


def least_likely(
    text: str, doubts: Sequence[Doubt], start: int, end: int, most: int = 6, code: Code | None = None
) -> tuple[Hole, ...]:
    """The least likely tokens round characters [start, end) as holes, at most `most` tokens and at least one if any.

    A model's tokens cut words where the language does not: a hole is widened to the lexemes it touches. Neighbours
    with nothing but blanks between them are one hole. White space is never masked by itself.
    """
    near = [d for d in doubts if start - NEAR < d.end and d.start < end + NEAR and d.start < d.end]
    inked = [d for d in near if text[d.start : d.end].strip()]
    if not inked:
        return ()

    def rank(doubt: Doubt) -> tuple[float, int]:
        return doubt.probability, max(0, start - doubt.end, doubt.start - end)

    doubtful = [d for d in sorted(inked, key=rank) if d.probability < DOUBTFUL]
    picked = doubtful[:most] or [min(inked, key=rank)]
    low, high = min(d.start for d in picked), max(d.end for d in picked)
    words = lexemes(text, Spot(text, low).line[0], Spot(text, high).line[1], code)
    return _joined(text, [_widened(text, d, words) for d in picked])


def _widened(text: str, doubt: Doubt, words: Sequence[Hole]) -> Hole:
    start, end = whole(text, doubt.start, doubt.end)
    touched = [word for word in words if word.start < end and start < word.end]
    return Hole(min([start, *(w.start for w in touched)]), max([end, *(w.end for w in touched)]))


def _joined(text: str, holes: Sequence[Hole]) -> tuple[Hole, ...]:
    found: list[Hole] = []
    for hole in sorted(holes, key=lambda hole: (hole.start, hole.end)):
        if found and not text[found[-1].end : hole.start].strip(" \t"):
            found[-1] = Hole(found[-1].start, max(found[-1].end, hole.end))
        else:
            found.append(hole)
    return tuple(found)
