"""What the user wants done to a part of a document; how it is said in a code action's data and in a command."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from diffcode.lsp.desk import path_of
from diffcode.lsp.document import Snapshot
from diffcode.lsp.messages import BadParams, Params
from diffcode.lsp.params import find, integer, position, range_, string
from diffcode.lsp.places import Ripple
from diffcode.lsp.plans import (
    Kind,
    Plan,
    fill_all,
    fill_here,
    follow_up,
    repair_here,
    rewrite_selection,
    vary_selection,
)
from diffcode.lsp.repair import Doubt
from diffcode.lsp.settings import Settings
from diffcode.syntax import Code


@dataclass(frozen=True, slots=True)
class Wish:
    """One plan to be, for characters [start, end) of the snapshot."""

    kind: Kind
    snapshot: Snapshot
    start: int = 0
    end: int = 0
    strength: float | None = None  # of vary; None: as the settings say
    seed: int = 0
    reported: bool = False  # of repair: somebody else's diagnostic lies here
    ripple: int = 0  # which one

    def data(self) -> dict[str, Any]:
        """As the data of a code action."""
        more = {"strength": self.strength, "seed": self.seed, "reported": self.reported, "ripple": self.ripple}
        place = {"uri": self.snapshot.uri, "version": self.snapshot.version, "start": self.start, "end": self.end}
        return {"diffcode": self.kind, **place, **more}

    def arguments(self) -> list[dict[str, Any]]:
        """As the arguments of a command."""
        where = self.snapshot.text.range(self.start, self.end).json()
        whole = {"uri": self.snapshot.uri, "version": self.snapshot.version, "range": where}
        more = {"strength": self.strength, "seed": self.seed, "reported": self.reported, "ripple": self.ripple}
        return [whole | {name: value for name, value in more.items() if value}]


def uri_in(data: Params) -> str:
    """The document that a code action's data or a command's argument is about."""
    return string(data, "uri") if "uri" in data else string(data, "textDocument.uri")


def of_data(data: Params, snapshot: Snapshot) -> Wish:
    """What `Wish.data` said, its version checked by whoever asks. Raises BadParams."""
    kind = find(data, "diffcode")
    if kind not in get_args(Kind):
        raise BadParams("data.diffcode is missing or unknown")
    start, end = integer(data, "start"), integer(data, "end")
    if not 0 <= start <= end <= len(snapshot.text):
        raise BadParams("data.start and data.end lie outside the document")
    return Wish(kind, snapshot, start, end, *_more(data))


def of_argument(kind: Kind, argument: Params, snapshot: Snapshot) -> Wish:
    """A command's argument `{uri, range or position, version, strength, seed}`. Without a place `fill` fills all of the
    file, and `ripple` needs none. Raises BadParams, BadPosition."""
    start, end = 0, len(snapshot.text)
    if "range" in argument:
        start, end = snapshot.text.span(range_(argument))
    elif "position" in argument:
        start = end = snapshot.text.offset(position(argument))
    elif kind == "fill":
        kind = "fillAll"
    elif kind != "ripple":
        raise BadParams("range is missing")
    return Wish(kind, snapshot, start, end, *_more(argument))


def _more(given: Params) -> tuple[float | None, int, bool, int]:
    strength = given.get("strength")
    if strength is not None and (type(strength) not in (int, float) or not 0 < strength <= 1):
        raise BadParams("strength is no share between 0 and 1")
    seed, ripple = (value if type(value) is int else 0 for value in (given.get("seed"), given.get("ripple")))
    return strength, seed, given.get("reported") is True, ripple


def plan_of(
    wish: Wish,
    settings: Settings,
    code: Code | None,
    ripples: Sequence[Ripple] = (),
    doubts: Sequence[Doubt] = (),
    unsure: bool = False,
) -> Plan | None:
    """How to do it; None where there is nothing to do."""
    text, span = str(wish.snapshot), (wish.start, wish.end)
    if wish.kind == "fill":
        return fill_here(text, *span, code, path_of(wish.snapshot.uri), settings.max_tokens)
    if wish.kind == "fillAll":
        return fill_all(text, code, path_of(wish.snapshot.uri), settings.max_tokens)
    if wish.kind == "rewrite":
        return rewrite_selection(text, *span, code)
    if wish.kind == "vary":
        return vary_selection(text, *span, wish.strength or settings.strength, settings.seed + wish.seed, code)
    if wish.kind == "repair":
        return repair_here(text, *span, code, wish.reported, doubts)
    return follow_up(ripples[wish.ripple], unsure) if 0 <= wish.ripple < len(ripples) else None
