"""When to be silent: before the model is asked, and before what it wrote is shown.

The gates are in `asking` and `showing`; the two tables here say in which order they are tried and which of them also
hold when the user asked by hand.
"""

from collections.abc import Sequence
from dataclasses import replace

from diffcode.canvas import line_end_of, normalise
from diffcode.holes import Hole
from diffcode.lsp import asking, showing
from diffcode.lsp.moment import Gate, GateOptions, Moment, RecentEdit, Trigger, Verdict
from diffcode.lsp.rescue import rescued
from diffcode.lsp.spot import Spot, wants_lines
from diffcode.lsp.tidy import tidy
from diffcode.syntax import LANGUAGES, Code

__all__ = ["GateOptions", "RecentEdit", "Trigger", "Verdict", "worth_asking", "worth_showing"]

# A gate, and whether it also holds when the user asked by hand.
BEFORE_ASKING: tuple[tuple[Gate, bool], ...] = (
    (asking.huge, True),
    (asking.binary, True),
    (asking.secret, True),
    (asking.read_only, True),
    (asking.no_code, False),
    (asking.generated, False),
    (asking.nothing_to_go_by, False),
    (asking.just_deleted, False),
    (asking.comment, False),
    (asking.string, False),
    (asking.inside_word, False),
    (asking.before_code, False),
    (asking.inside_line, False),
    (asking.finished_line, False),
    (asking.after_leaving, False),
)
BEFORE_SHOWING: tuple[tuple[Gate, bool], ...] = (
    (showing.nothing, True),
    (showing.special_token, True),
    (showing.puts_back, True),
    (showing.already_there, True),
    (showing.loops, True),
    (showing.placeholder, False),
    (showing.only_signs, False),
    (showing.unsure, False),
    (showing.makes_error, True),  # last: the only one that parses
)


def worth_asking(
    text: str,
    cursor: int,
    trigger: Trigger = "automatic",
    language: str | None = None,
    recent_edits: Sequence[RecentEdit] = (),
    options: GateOptions | None = None,
    *,
    uri: str = "",
    code: Code | None = None,
) -> Verdict:
    """Whether the model should be asked for a suggestion at `cursor`, and whether for several lines.

    `code`: the text parsed already. `language`: of diffcode.syntax, others count as unknown.
    """
    options = options or GateOptions()
    if code is None and language in LANGUAGES and len(text) <= options.longest_file:
        code = Code(text, language)
    spot = Spot(text, cursor, code)
    moment = Moment(spot, Hole(cursor, cursor), uri=uri, edits=tuple(recent_edits), options=options)
    verdict = _judge(BEFORE_ASKING, moment, trigger)
    return replace(verdict, multi_line=wants_lines(spot)) if verdict.ok else verdict


def worth_showing(
    text: str,
    hole: Hole,
    insertion: str,
    trigger: Trigger = "automatic",
    language: str | None = None,
    recent_edits: Sequence[RecentEdit] = (),
    options: GateOptions | None = None,
    *,
    confidence: Sequence[float] = (),
    code: Code | None = None,
    cut: bool = True,
) -> Verdict:
    """Whether `insertion` may be shown in place of `hole`; Verdict.text is what to show, cut and indented to fit.

    `confidence`: the probability of each of its tokens. `cut`: whether broken lines at its end may go.
    """
    options = options or GateOptions()
    if code is None and language in LANGUAGES and len(text) <= options.longest_file:
        code = Code(text, language)
    new = tidy(text, hole, insertion, code, options.style)
    spot = Spot(text, hole.start, code)
    moment = Moment(spot, hole, new, "", tuple(recent_edits), tuple(confidence), options)
    verdict = _judge(BEFORE_SHOWING, moment, trigger)
    if verdict.gate == showing.makes_error.__name__:
        end = line_end_of(new)
        versions = (version.replace("\n", end) for version in rescued(normalise(new), spot.head, cut))
        moments = (replace(moment, new=version) for version in versions)
        new = next((m.new for m in moments if _judge(BEFORE_SHOWING, m, trigger).ok), "")
        verdict = Verdict(True) if new else verdict
    return replace(verdict, text=new, multi_line="\n" in normalise(new)) if verdict.ok else verdict


def _judge(table: Sequence[tuple[Gate, bool]], moment: Moment, trigger: Trigger) -> Verdict:
    for gate, always in table:
        if (always or trigger == "automatic") and (reason := gate(moment)):
            return Verdict(False, reason=reason, gate=gate.__name__)
    return Verdict(True)
