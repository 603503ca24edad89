"""Text and holes to what the model reads, and what it wrote back to text.

The canvas of DESIGN 2.1: `<prefix><suffix> SUFFIX <middle> PREFIX` and then the span. The context is a view: line ends
become "\\n" and a byte-order mark is dropped in it, while the document's own characters outside the holes are never
touched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from diffcode.config import WindowOptions
from diffcode.holes import Hole, apply_edits, line_start
from diffcode.tokens import FimIds, Tokens

CHARACTERS_A_TOKEN = 8  # cut this much text before tokenising: more than code ever needs, little enough to be quick
# The window's ends move in jumps, of a 16th of it if nothing else is said: while somebody types, the canvas mostly is
# what it was but for what is typed, and what was read before need not be read again (contexts.py).
JUMPS = 16
WIDEST_LINE = 4096  # characters of a line that the rules for its end look at
HEAL_BYTES = 32  # a longer last piece (a run of spaces, a banner of dashes) is re-opened by one token only


@dataclass(frozen=True, slots=True)
class Block:
    """One hole as the model meets it."""

    context: tuple[int, ...]  # ids of the context rows, control tokens included
    heal: bytes  # the re-opened end of the prefix: the span must begin with it
    head: str  # what stands left of the hole on its line
    suffix: str  # what follows, line ends as "\n"
    reach: "Reach"

    def prefix(self, fim: FimIds) -> tuple[int, ...]:
        """What the context shows of what stands before, without the re-opened end."""
        return self.context[self.context.index(fim.middle) + 1 :] if fim.middle in self.context else self.context

    @property
    def open_ended(self) -> bool:
        """Nothing follows the hole."""
        return not self.suffix.strip()


class Reach(NamedTuple):
    """How far a fill may reach, from what stands in the hole and round it on its line."""

    inserts_line: bool  # before the first column of a line that has text: the line end belongs to the fill
    one_line: bool  # the hole is a part of one line, and so is the fill
    one_block: bool  # the fill ends with the block that it begins
    whole_lines: bool = False  # the hole held whole lines, and so does the fill


def line_end_of(text: str) -> str:
    """The line end that the document uses most; "\\n" where it has none."""
    crlf = text.count("\r\n")
    counts = {"\n": text.count("\n") - crlf, "\r\n": crlf, "\r": text.count("\r") - crlf}
    return max(counts, key=lambda end: counts[end])


def normalise(text: str) -> str:
    """The model's view of text: every line end as "\\n"."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def make_block(
    text: str, holes: Sequence[Hole], fills: Sequence[str], index: int, tokens: Tokens, window: WindowOptions
) -> Block:
    """The canvas of hole `index`, the other holes showing their current `fills` (at first nothing)."""
    hole = holes[index]
    visible = window.budget * CHARACTERS_A_TOKEN
    before = apply_edits(text[: hole.start], holes[:index], fills[:index]).removeprefix("\ufeff")
    shifted = [Hole(h.start - hole.end, h.end - hole.end) for h in holes[index + 1 :]]
    behind = apply_edits(text[hole.end :], shifted, fills[index + 1 :])
    if hole.end == 0:
        behind = behind.removeprefix("\ufeff")
    after = normalise(behind[:visible])
    if len(behind) > visible and "\n" in after:
        after = after[: after.rfind("\n") + 1]
    prefix_ids, heal = _prefix_ids(_last_lines(before, visible), tokens)
    suffix_ids = tokens.encode(after)
    room = window.budget - 3
    share, jump = int(room * window.prefix_share), window.jump or window.budget // JUMPS
    wanted = min(share, up_to_multiple(len(prefix_ids), jump))
    kept_suffix = _first_lines(suffix_ids, room - wanted, tokens)
    kept_prefix = _final_lines(prefix_ids, room - len(kept_suffix), jump, tokens)
    plain = window.plain_without_suffix and kept_prefix and not after.strip()
    return Block(
        context=tuple(kept_prefix) if plain else tokens.fim.canvas(kept_suffix, kept_prefix),
        heal=heal,
        head=normalise(before[-WIDEST_LINE:]).rpartition("\n")[2],
        suffix=after,
        reach=reach_of(text, hole),
    )


def reach_of(text: str, hole: Hole) -> Reach:
    """Only what replaces a part of a line stays within it: `x = ???`, and not a `???` that is a whole body. How far an
    insertion reaches the model says, for it was trained to know (stage infill); but where nothing follows it cannot,
    and a hole that was given a line, and so an indentation, is to be filled at that depth.
    """
    begins = line_start(text, hole.start)
    inside, after = normalise(text[hole.start : hole.end]), normalise(text[hole.end :][:WIDEST_LINE])
    followed = bool(after.split("\n", 1)[0].strip())
    at_start = hole.start == begins or text[: hole.start] == "\ufeff"
    alone = not followed and not text[begins : hole.start].removeprefix("\ufeff").strip()
    of_one_line = bool(inside) and "\n" not in inside
    return Reach(
        inserts_line=followed and (inside.endswith("\n") or (not inside and at_start)),
        one_line=of_one_line and not alone,
        one_block=(of_one_line and alone) or not text[hole.end :].strip(),
        whole_lines=inside.endswith("\n"),
    )


def _last_lines(text: str, reach: int) -> str:
    """At most `reach` characters from the end of `text`, from a line's start where there is one, normalised."""
    if len(text) <= reach:
        return normalise(text)
    tail = normalise(text[up_to_multiple(len(text) - reach, reach // JUMPS) :])
    return tail[tail.find("\n") + 1 :] if "\n" in tail[:-1] else tail


def _prefix_ids(prefix: str, tokens: Tokens) -> tuple[list[int], bytes]:
    """Ids of the prefix without its last piece, and that piece's bytes (token healing).

    The user's cursor cuts where the tokenizer would not: `self.val|ue` is one token, an indent of four spaces is three
    and ` return`. So the last piece goes back to the model, whose first tokens must spell it. After a line end the
    cut is a natural one and nothing is re-opened.
    """
    ids = tokens.encode(prefix)
    if not ids or prefix.endswith("\n"):
        return ids, b""
    last = tokens.pieces(prefix[prefix.rfind("\n") + 1 :])[-1].encode()
    wanted = len(last) if len(last) <= HEAL_BYTES else 1
    heal = b""
    while ids and len(heal) < wanted:
        heal = tokens.bytes_of(ids.pop()) + heal
    return ids, heal


def _first_lines(ids: list[int], limit: int, tokens: Tokens) -> list[int]:
    """At most `limit` ids from the left, whole lines if any line fits."""
    if len(ids) <= limit:
        return ids
    ends = [i + 1 for i in range(limit) if tokens.bytes_of(ids[i]).endswith(b"\n")]
    return ids[: ends[-1] if ends else limit]


def up_to_multiple(number: int, of: int) -> int:
    """The least multiple of `of` that is not under `number`."""
    return -(-number // of) * of


def _final_lines(ids: list[int], limit: int, jump: int, tokens: Tokens) -> list[int]:
    """At most `limit` ids from the right, whole lines if any line fits; the first one's number is a multiple of `jump`,
    or the next line's."""
    if len(ids) <= limit:
        return ids
    first = up_to_multiple(len(ids) - limit, min(jump, limit // 4 + 1))
    starts = (i + 1 for i in range(first - 1, len(ids) - 1) if tokens.bytes_of(ids[i]).endswith(b"\n"))
    return ids[next(starts, first) :]
