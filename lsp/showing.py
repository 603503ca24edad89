"""Gates before a suggestion is shown. Each gives the reason for silence, or ""; its docstring names what it prevents.

The complaints are those of facts/editors.md, section 4. The suggestion is tidied already (diffcode.lsp.tidy).
"""

import math
import re
from collections.abc import Iterable, Sequence

from diffcode.canvas import normalise
from diffcode.lsp.moment import Moment, RecentEdit
from diffcode.lsp.spot import Spot, lines_above, lines_below
from diffcode.stops import brackets
from diffcode.syntax import Code, faults

SPECIAL = re.compile(
    r"<\|[a-zA-Z0-9_]+\|>|<(?:fim|file|repo)_\w+>|\[(?:MASK|PAD|CLS|SEP|UNK)\]|</?s>|<(?:mask|pad|unk|eos|bos)>|<(?:PRE|SUF|MID|EOT)>"
)
PLACEHOLDER = re.compile(
    r"(?:(?:#|//|/\*)\s*(?:todo|fixme|xxx|your code|implement|add |write |insert |\.\.\.).*|pass|\.\.\.|todo!\(\);?)$",
    re.IGNORECASE,
)


def nothing(moment: Moment) -> str:
    """Empty ghost text, or only what follows already (continue #4721): Tab would seem to do nothing."""
    return "" if moment.new.strip() else "nothing is left to say"


def special_token(moment: Moment) -> str:
    """Control tokens in the text (continue #2953, `<|im_end|>`). A buffer about them may spell them."""
    spelt = (match[0] for match in SPECIAL.finditer(moment.new))
    leaked = next((token for token in spelt if token not in moment.spot.text), "")
    return f"{leaked} is no code" if leaked else ""


def puts_back(moment: Moment) -> str:
    """What the user just deleted, again (vscode-copilot-release #8763; Zed measures this as its reversal ratio)."""
    text, at = moment.spot.text, moment.hole.start
    for place, removed in deletions(moment.edits):
        typed = _squeezed(text[place:at]) if 0 <= at - place <= 200 else ""
        back, gone, new = typed + _squeezed(moment.new), _squeezed(removed), _squeezed(moment.new)
        near = abs(at - place) <= 200
        if near and gone and (back == gone or (len(gone) > 2 and back.startswith(gone))):
            return "it was just deleted"
        if near and len(new) > 2 and gone.startswith(back):
            return "it was just deleted"
    return ""


def deletions(edits: Sequence[RecentEdit]) -> list[tuple[int, str]]:
    """Where something was deleted, in the text of today, and what; a run of backspaces is one deletion."""
    found: list[tuple[int, str]] = []
    for edit in edits:
        shift, end = len(edit.inserted) - len(edit.removed), edit.start + len(edit.removed)
        pure = bool(edit.removed) and not edit.inserted
        if pure and found and found[-1][0] in (edit.start, end):
            place, removed = found.pop()
            found.append((edit.start, removed + edit.removed if place == edit.start else edit.removed + removed))
            continue
        found = [(place + shift if place >= end and place > edit.start else place, gone) for place, gone in found]
        if edit.removed.strip():
            found.append((edit.start, edit.removed))
    return found


def already_there(moment: Moment) -> str:
    """The next line, offered once more (tabby filters removeDuplicateSuffixLines, removeDuplicatedBlockClosingLine)."""
    spot, lines = moment.spot, _bare(moment.lines)
    whole = [(spot.head + lines[0]).strip(), *lines[1:]] if lines else []
    below = _bare(lines_below(spot.text, Spot(spot.text, moment.hole.end).line[1], len(whole)))
    if whole and whole == below and any(map(str.isalnum, "".join(lines))):
        return "it stands there already"
    above = _bare(reversed(lines_above(spot.text, spot.line[0], len(whole))))
    return "it repeats the lines above" if len(whole) > 1 and whole == above else ""


def loops(moment: Moment) -> str:
    """The same thing over and over (tabby filters removeRepetitiveLines, removeRepetitiveBlocks)."""
    before = reversed(lines_above(moment.spot.text, moment.spot.line[0], 4))
    first, *others = moment.lines or [""]
    lines = [*before, moment.spot.head + first, *others]
    last = len(lines)
    for period in range(1, 5):
        for at in range(last - 3 * period + 1):
            unit = lines[at : at + period]
            reaches = at + 3 * period > last - len(moment.lines)
            if reaches and unit * 3 == lines[at : at + 3 * period] and re.search(r"\w.*\w", "".join(unit)):
                return "it repeats itself"
    return "it repeats itself" if re.search(r"(?=.{0,39}\w)(.{4,40}?)\1{3}", moment.new) else ""


def makes_error(moment: Moment) -> str:
    """Code that does not parse (JetBrains shows only what does). An error that was there before is not ours."""
    code, hole = moment.spot.code, moment.hole
    if code is None:
        return ""
    tail = len(code.bytes) - code.byte_of(hole.end)
    base = _damage(code, tail)
    if moment.spot.faulty:  # a line that is being typed: what would any plain name make of it?
        base = min(base, _damage(code.edited(hole.start, hole.end, "x"), tail))
    typed = hole.start == hole.end  # else it takes the place of a stub, and nobody goes on typing there
    last = typed and "\n" not in moment.new and not Spot(moment.spot.text, hole.end).rest.strip()
    opened = brackets(normalise(moment.new))[0] if last else []
    closers = "".join({"(": ")", "[": "]", "{": "}"}[moment.new[at]] for at in reversed(opened))
    for closing in dict.fromkeys(("", closers)):  # at a line's end what the user is going to close may be open
        errors, reach = _damage(code.edited(hole.start, hole.end, moment.new + closing), tail)
        if errors <= base[0] and reach <= base[1]:
            return ""
    return "it makes a syntax error"


def _damage(code: Code, tail: int) -> tuple[int, int]:
    """How many errors there are, and how far they reach into the last `tail` bytes."""
    found = faults(code.root)
    return len(found), max(0, *(node.end_byte - len(code.bytes) + tail for node in found), 0)


def placeholder(moment: Moment) -> str:
    """`pass`, or a comment that says what the user knows to be missing: silence when there is nothing good to say."""
    return "it leaves the work to you" if all(PLACEHOLDER.match(line.strip()) for line in moment.lines) else ""


def only_signs(moment: Moment) -> str:
    """A lone bracket or comma is typed faster than it is read (tabby drops under 4 characters; "too invasive")."""
    return "" if re.search(r"\w", moment.new) else "only punctuation"


def unsure(moment: Moment) -> str:
    """Guesses (Cursor shows from 25 % on, with 21 % fewer shown and 28 % more accepted)."""
    if not moment.confidence:
        return ""
    mean = math.exp(sum(math.log(max(p, 1e-9)) for p in moment.confidence) / len(moment.confidence))
    return f"the model is not sure ({mean:.2f})" if mean < moment.options.least_confidence else ""


def _bare(lines: Iterable[str]) -> list[str]:
    return [line.strip() for line in lines]


def _squeezed(text: str) -> str:
    return "".join(text.split())
