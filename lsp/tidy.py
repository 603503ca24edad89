"""A suggestion made fit for the buffer it goes into: what repeats its surroundings is cut, white space is the buffer's.

What users ask of other tools in vain (facts/editors.md, section 4): brackets closed twice (continue #4721, #2169,
Kilo-Org #3386), the left side repeated (minuet), tabs among spaces and wrong widths (tabby #3263, #3261, llama.vscode
#72).
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import gcd

from diffcode.canvas import line_end_of, normalise, reach_of
from diffcode.holes import Hole
from diffcode.lsp.spot import Spot, indentation, opens_body
from diffcode.stops import StopRule, brackets
from diffcode.syntax import Code

REACH = 20_000  # characters on each side that are looked at: a style shows, and no repetition is longer
_GOES_ON = re.compile(r"[,\\=+\-*/&|<>?:.]$")  # a line that ends so is no whole statement


@dataclass(frozen=True, slots=True)
class Style:
    """One level of indentation: a tab, or `width` spaces. `width` is also how wide a tab is taken to be."""

    tabs: bool
    width: int

    @property
    def unit(self) -> str:
        return "\t" if self.tabs else " " * self.width

    def columns(self, lead: str) -> int:
        return len(lead.expandtabs(self.width))


def style_of(text: str, given: Style | None = None) -> Style | None:
    """How a text is indented; `given`, the editor's word, where the text does not show it."""
    leads = [indentation(line) for line in normalise(text).split("\n") if line]
    tabs = sum(lead.startswith("\t") for lead in leads)
    spaces = [len(lead) for lead in leads if not lead.startswith("\t")]
    if tabs > sum(map(bool, spaces)):
        return Style(True, given.width if given else 4)
    steps = Counter(abs(b - a) for a, b in pairwise(spaces))
    known = [(steps[width], width) for width in (2, 3, 4, 8) if steps[width]]
    return Style(False, max(known)[1]) if known else given


def tidy(text: str, hole: Hole, new: str, code: Code | None = None, given: Style | None = None) -> str:
    """`new` as it may go into `hole`, with the document's line ends; "" if nothing of it is left."""
    spot = Spot(text, hole.start, code)
    nearby = text[max(0, hole.start - REACH) : hole.end + REACH]
    found = _without_head(normalise(new), spot.head)
    found = _without_suffix(found, text, hole, spot.head)
    found = _stripped(found, rest=Spot(text, hole.end).rest)
    if not found.strip():
        return ""
    return _indented(found, spot, style_of(nearby, given)).replace("\n", line_end_of(nearby))


def _without_head(new: str, head: str) -> str:
    """Models begin again with what stands left of the cursor; only a run with a word in it can be no accident."""
    known = head.strip()
    if len(known) < 4 or not re.search(r"\w{2}", known) or not new.lstrip().startswith(known):
        return new
    rest = new.lstrip()[len(known) :]
    return rest.lstrip(" ") if head[-1:].isspace() else rest


def _without_suffix(new: str, text: str, hole: Hole, head: str) -> str:
    """What the fill's own end would have cut: a suggestion that was kept while the user typed on may need it again."""
    reach = reach_of(text, hole)
    suffix = normalise(text[hole.end : hole.end + REACH])
    rule = StopRule(suffix, inserts_line=reach.inserts_line, whole_lines=reach.whole_lines, head=head)
    found = rule.finish(new, "eos").text
    rest = suffix.split("\n", 1)[0].strip()
    return found.rstrip().removesuffix(rest) if rest and not rest.strip(";,:") else found  # a sign that ends the line


def _stripped(new: str, rest: str) -> str:
    """No white space at line ends, and none at the very end where nothing follows on the line."""
    *lines, last = new.split("\n")
    whole = "\n".join([*(line.rstrip() for line in lines), last])
    return whole if rest.strip() else whole.rstrip()


def _indented(new: str, spot: Spot, style: Style | None) -> str:
    first, *others = new.split("\n")
    on_blank = not spot.head.strip()
    if on_blank:
        first = _not_too_deep(first, spot, style or Style(False, 4))
    if style is None:
        return "\n".join([first, *others])
    base = indentation(spot.head + first)
    step = _step([spot.head + first, *others], spot.language)
    if on_blank and style.tabs:
        first = _respelt(first, base, style, step)
    done, shift = [first], 0
    for line in others:
        new = _respelt(line, base, style, step)
        if _lined_up("\n".join([spot.head + first, *others[: len(done) - 1]])) and not style.tabs:
            new = " " * (len(indentation(line)) + shift) + line.lstrip(" \t") if shift else new
        else:
            shift = len(indentation(new)) - len(indentation(line))
        done.append(new)
    return "\n".join(done)


def _lined_up(before: str) -> bool:
    """True if what comes next stands within round or square brackets, where it is lined up rather than indented."""
    opened = brackets(before)[0]
    return bool(opened) and before[opened[-1]] in "(["


def _not_too_deep(line: str, spot: Spot, style: Style) -> str:
    """The first line of a suggestion on a blank line, no deeper than the line above lets it be.

    The cursor's own indentation, repeated, is the most frequent of these faults.
    """
    above = spot.above.rstrip()
    opens = opens_body(above, spot.language)
    if (brackets(above)[0] and not opens) or (_GOES_ON.search(above) and not opens):
        return line
    deepest = style.columns(indentation(above)) + style.width * opens
    lead = indentation(line)
    while lead and style.columns(spot.head + lead) > max(deepest, style.columns(spot.head)):
        lead = lead[1:]
    return lead + line.lstrip(" \t")


def _step(lines: Sequence[str], language: str | None) -> int | None:
    """Spaces to a level in these lines, by the first that opens a block; None if none does."""
    for line, following in pairwise(line for line in lines if line.strip()):
        step = len(indentation(following)) - len(indentation(line))
        if opens_body(line, language) and step > 0 and "\t" not in indentation(line) + indentation(following):
            return step
    return None


def _respelt(line: str, base: str, style: Style, step: int | None) -> str:
    """`line` with its indentation spelt as the buffer spells it; `base` is that of the suggestion's first line."""
    lead, body = indentation(line), line.lstrip(" \t")
    if style.tabs and lead and "\t" not in lead:
        levels, odd = divmod(len(lead), step or next((s for s in (4, 2, 3) if gcd(len(lead), s) == s), style.width))
        return "\t" * levels + " " * odd + body
    if style.tabs:
        return line
    if "\t" in lead:
        return lead.expandtabs(style.width) + body
    levels, odd = divmod(len(lead) - len(base), step or style.width)
    if step in (2, 4, 8) and levels > 0 and not odd:
        return base + style.unit * levels + body
    return line
