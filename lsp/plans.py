"""What a code action or command is going to do: which holes to denoise and how, without a model yet.

A plan is made from the text and a range alone, so that it can be made again when the user has chosen the action.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from diffcode.holes import Hole
from diffcode.lsp.places import Place, Ripple
from diffcode.lsp.repair import Doubt, candidates, least_likely
from diffcode.lsp.spot import Spot
from diffcode.lsp.stubs import MARKER, Stub, find_stubs
from diffcode.lsp.vary import rewrite, vary
from diffcode.syntax import Code, faults

Kind = Literal["fill", "fillAll", "rewrite", "vary", "repair", "ripple"]
KINDS: dict[Kind, str] = {  # of the protocol
    "fill": "quickfix",
    "fillAll": "source.fillHoles",
    "rewrite": "refactor.rewrite",
    "vary": "refactor.rewrite",
    "repair": "quickfix",
    "ripple": "quickfix",
}
LIVELY = (0.8, 1.0, 1.2)  # temperatures of one try after the other, where the first choice stands there already
VARIED = ((0.8, 1), (1.0, 1), (1.2, 1), (1.2, 2), (1.5, 3))  # temperature, times as many tokens masked
LEAST_TOKENS, MOST_TOKENS = 64, 512
FEW_TOKENS = 12  # room in a hole of a few tokens: more is something else than what stood there


@dataclass(frozen=True, slots=True)
class Attempt:
    """Places to be changed together; where a place has no text the model says it."""

    places: tuple[Place, ...]
    temperature: float | None = None  # None: as the settings say
    seed: int = 0  # added to that of the settings
    cut: bool = False  # of what is broken at its end, what stands before is good enough


@dataclass(frozen=True, slots=True)
class Plan:
    """Attempts, of which the first that passes counts."""

    kind: Kind
    title: str
    attempts: tuple[Attempt, ...]
    max_tokens: int  # a hole
    mends: bool = False  # what comes out must have fewer syntax errors
    one_line: bool = False


def fill_here(text: str, start: int, end: int, code: Code | None, path: str, max_tokens: int) -> Plan | None:
    """The stub or marker nearest to a cursor on its line, or all that a selection touches."""
    first, last = (start, end) if start < end else Spot(text, start).line
    stubs = [stub for stub in stubs_of(text, code, path) if stub.start <= last and first <= stub.end]
    if start == end and stubs:
        stubs = [min(stubs, key=lambda stub: max(stub.start - end, start - stub.end, 0))]
    return _filling("fill", f"Fill {len(stubs)} holes", stubs, max_tokens)


def fill_all(text: str, code: Code | None, path: str, max_tokens: int) -> Plan | None:
    """Every stub and marker of the file, in one go: they see each other."""
    stubs = stubs_of(text, code, path)
    return _filling("fillAll", f"Fill all {len(stubs)} holes", stubs, max_tokens)


def _filling(kind: Kind, title: str, stubs: Sequence[Stub], max_tokens: int) -> Plan | None:
    """A hole that nothing fits into gets another chance beside those that are filled by then; at last less will do."""
    if not stubs:
        return None
    places = tuple(Place(stub.hole, None, before=stub.before) for stub in stubs)
    tries = (Attempt(places), Attempt(places, LIVELY[0], 1), Attempt(places, cut=True))
    one = stubs[0].title if len(stubs) == 1 else title
    return Plan(kind, one, tries, max(max_tokens, 2 * LEAST_TOKENS))


def stubs_of(text: str, code: Code | None, path: str) -> list[Stub]:
    """Where there is no grammar, the markers."""
    if code is not None:
        return find_stubs(code, path)
    return [Stub(*match.span(), "marker", False, "Fill ???", Hole(*match.span())) for match in MARKER.finditer(text)]


def rewrite_selection(text: str, start: int, end: int, code: Code | None) -> Plan | None:
    """The selection anew; with some chance where the first choice is what stands there."""
    hole = rewrite(text, start, end, code)
    if hole is None:
        return None
    places = (Place(hole, None),)
    tries = [Attempt(places), *(Attempt(places, warmth, n) for n, warmth in enumerate(LIVELY[:2], 1))]
    return Plan("rewrite", "Rewrite selection", tuple(tries), _tokens_for([hole]))


def vary_selection(text: str, start: int, end: int, strength: float, seed: int, code: Code | None) -> Plan | None:
    """A share of the selection's tokens anew; more of them where only what stood there comes again."""
    tries, holes = [], list[Hole]()
    for n, (warmth, times) in enumerate(VARIED):
        found = vary(text, start, end, min(1.0, times * strength), random.Random(seed + n), code)
        tries.append(Attempt(tuple(Place(hole, None) for hole in found), warmth, seed + n))
        holes += found
    if not holes:
        return None
    flat = not any("\n" in text[hole.start : hole.end] or "\r" in text[hole.start : hole.end] for hole in holes)
    most = _tokens_for(holes, FEW_TOKENS)
    return Plan("vary", f"Vary selection ({strength:.0%})", tuple(tries), most, one_line=flat)


def repair_here(
    text: str, start: int, end: int, code: Code | None, reported: bool, doubts: Sequence[Doubt] = ()
) -> Plan | None:
    """What is wrong at characters [start, end): a syntax error there, or a problem that somebody `reported`."""
    broken = code is not None and any(_touches(code, text, start, end))
    if not broken and not reported:
        return None
    holes: list[tuple[Hole, ...]] = [(c.hole,) for c in candidates(text, start, end, code)]
    if unlikely := least_likely(text, doubts, start, end, code=code):
        holes.insert(sum(hole.start == hole.end for (hole,) in holes), unlikely)  # behind what is missing
    tries = tuple(Attempt(tuple(Place(hole, None) for hole in group)) for group in holes)
    if not tries:
        return None
    most = max((_tokens_for(group) for group in holes), default=LEAST_TOKENS)
    return Plan("repair", "Repair here", tries, most, mends=broken)


def follow_up(ripple: Ripple, unsure: bool) -> Plan | None:
    """The places that must follow an edit; with those that only may be meant where `unsure`."""
    places = tuple(place for place in ripple.places if place.sure or unsure)
    plan = Plan("ripple", ripple.title, (Attempt(places),), LEAST_TOKENS, one_line=True)
    return plan if places else None


def _touches(code: Code, text: str, start: int, end: int) -> list[bool]:
    """Whether each syntax error touches the lines of the range."""
    first, last = Spot(text, start).line[0], Spot(text, end).line[1]
    spans = [code.span(node) for node in faults(code.root)]
    return [a <= last and first <= b and b - a < 2000 for a, b in spans]


def _tokens_for(holes: Sequence[Hole], least: int = LEAST_TOKENS) -> int:
    """Room for what stands in the holes and half as much again; code has some three characters a token."""
    longest = max((hole.end - hole.start for hole in holes), default=0)
    return min(max(longest // 2, least), MOST_TOKENS)
