"""What gates look at and what they say: a moment of an editing session, a verdict."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import unquote, urlsplit

from diffcode.canvas import normalise
from diffcode.holes import Hole
from diffcode.lsp.spot import Spot
from diffcode.lsp.tidy import Style

Trigger = Literal["automatic", "invoked"]


@dataclass(frozen=True, slots=True)
class GateOptions:
    longest_file: int = 1_000_000  # characters
    longest_line: int = 2_000
    least_confidence: float = 0.6  # geometric mean of the tokens' probabilities (evals/calibration.py)
    style: Style | None = None  # the editor's formatting options


@dataclass(frozen=True, slots=True)
class RecentEdit:
    """Characters `removed` at `start` of the text as it was then, `inserted` in their place. The last is the newest."""

    start: int
    removed: str
    inserted: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """`ok`: ask, or show. Else `reason` says in a few words why not, and `gate` which gate it was."""

    ok: bool
    multi_line: bool = False
    text: str = ""  # to be shown, tidied
    reason: str = ""
    gate: str = ""


@dataclass(frozen=True)
class Moment:
    """What the gates look at: a place in a text, and for those before showing what is to be put there."""

    spot: Spot
    hole: Hole
    new: str = ""
    uri: str = ""
    edits: tuple[RecentEdit, ...] = ()
    confidence: tuple[float, ...] = ()
    options: GateOptions = field(default_factory=GateOptions)

    @cached_property
    def lines(self) -> list[str]:
        """The suggestion's lines that are not blank."""
        return [line for line in normalise(self.new).split("\n") if line.strip()]

    @cached_property
    def name(self) -> PurePosixPath:
        return PurePosixPath(unquote(urlsplit(self.uri).path))


Gate = Callable[[Moment], str]
