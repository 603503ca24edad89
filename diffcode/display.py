"""What a person sees: the diff, the table of numbers, the span while it is being refined, and progress."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from rich import box
from rich import progress as bars
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.rule import Rule
from rich.spinner import Spinner
from rich.style import Style
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from diffcode.diff import CONTEXT_LINES, Edit, diff_rows, file_rows
from diffcode.files import visible
from diffcode.positions import Lines

if TYPE_CHECKING:
    from diffcode import hub
    from diffcode.denoise import Frame, Place
    from diffcode.infill import Fill, SpanFill

SHADED_CHARACTERS = 200_000  # shading a longer file takes pygments seconds
MASK = "░░"
SVG_WIDTHS, SVG_FRAMES, SVG_HOLES = (72, 120), 6, 2


# ---- the diff


def print_shaded_diff(name: str, old: str, new: str, edits: Sequence[Edit]) -> bool:
    """Print it in colour where standard output takes colour; else say no."""
    console = Console()
    if not console.is_terminal or console.no_color:
        return False
    console.print(shaded_diff(name, old, new, edits), soft_wrap=True, end="")
    return True


def shaded_diff(name: str, old: str, new: str, edits: Sequence[Edit]) -> Text:
    """The same for a terminal: code in its colours on red and green."""
    rows = diff_rows(old, new, edits)
    shade = Shade(name, old)
    old_lines, new_lines = (shade(code).split("\n", allow_blank=True) for code in (old, new))
    grounds = {"-": Style(bgcolor="#4b1d22"), "+": Style(bgcolor="#12371f"), " ": Style()}
    signs = {"-": "bold red", "+": "bold green", " ": "dim"}
    shown = Text()
    for header in file_rows(name) if rows else ():
        shown.append(visible(header), "bold")
    for row in rows:
        if row.sign == "@":
            shown.append(row.text, "cyan")
            continue
        line = (old_lines if row.sign == "-" else new_lines)[row.line]
        line.stylize(grounds[row.sign])  # last: shading sets a background of its own
        shown.append(row.sign, signs[row.sign]).append_text(line).append("\n")
    return shown


class Shade:
    """Code in the colours of its language, on no background of its own."""

    def __init__(self, name: str, text: str) -> None:
        lexer = Syntax.guess_lexer(name, text[:4000]) if len(text) <= SHADED_CHARACTERS else "text"
        self._syntax = Syntax("", lexer, theme="ansi_dark", background_color="default", tab_size=4)

    def __call__(self, code: str) -> Text:
        code = visible(code.replace("\r\n", "\n"))
        if not code.strip("\n"):
            return Text(code)
        shaded = self._syntax.highlight(code)
        if not code.endswith("\n"):
            shaded.right_crop(1)  # pygments ends every text with a line end (and drops a byte-order mark)
        return shaded


# ---- the numbers


def table(text: str, fill: "Fill") -> RenderableType:
    """One row a hole, and a line of totals; narrow enough for 80 columns."""
    numbers = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    numbers.add_column("hole", no_wrap=True)
    for heading in ("tokens", "steps", "forwards", "context\nms", "denoise\nms", "tokens/\nforward", "mean\nconf."):
        numbers.add_column(heading, justify="right")
    numbers.add_column("ended", no_wrap=True)
    for heading in ("drafts:\nspan", "kept\nn-gram"):
        numbers.add_column(heading, justify="right")
    lines = Lines.of(text)
    for span in fill.spans:
        numbers.add_row(str(lines.position(span.start)), *_numbers(span))
    return Group(numbers, Text(_totals(fill), "dim"))


def _numbers(span: "SpanFill") -> tuple[str, ...]:
    drafts, context = span.drafts, round(span.context_seconds * 1000)
    return (
        str(len(span.tokens)),
        str(span.steps),
        str(span.forwards),
        str(context),
        str(max(round(span.seconds * 1000) - context, 0)),
        f"{_ratio(len(span.tokens), span.forwards):.2f}",
        f"{_ratio(sum(span.confidence), len(span.confidence)):.2f}",
        span.finished,
        f"{drafts.span_accepted}/{drafts.span_proposed}",
        f"{drafts.ngram_accepted}/{drafts.ngram_proposed}",
    )


def _totals(fill: "Fill") -> str:
    holes = f"{len(fill.spans)} hole{'s' * (len(fill.spans) != 1)}"
    rate = f"{_ratio(fill.tokens, fill.forwards):.2f} tokens a forward"
    others = sum(span.others for span in fill.spans)
    chosen = f", of {len(fill.spans) + others} fills" if others else ""
    return f"{holes}: {fill.tokens} tokens in {fill.forwards} forwards ({rate}), {fill.seconds:.2f} s{chosen}"


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


# ---- the span while it is being refined


@dataclass(frozen=True, slots=True)
class Moment:
    """A frame, and what had happened before it."""

    frame: "Frame"
    forwards: int  # in all holes, this frame's included
    filled: Mapping[int, str]  # what stands in the holes that have been worked on


class Watch:
    """Collects frames and draws the newest one; rich asks for it a few times a second."""

    def __init__(self, name: str, text: str, holes: Sequence[tuple[int, int]]) -> None:
        self.text, self.holes = text, holes
        self._lines, self._shade = Lines.of(text), Shade(name, text)
        self.moments: list[Moment] = []

    def add(self, frame: "Frame") -> None:
        filled = dict(self.moments[-1].filled) if self.moments else {}
        filled[frame.hole] = frame.text
        self.moments.append(Moment(frame, len(self.moments) + 1, filled))

    def __rich__(self) -> RenderableType:
        if not self.moments:
            return Text("reading the context", "dim")
        moment = self.moments[-1]
        return Group(self.draw(moment), Text(self.caption(moment), "dim"))

    def draw(self, moment: Moment) -> Text:
        """The lines round the hole with line numbers."""
        frame, (start, end) = moment.frame, self.holes[moment.frame.hole]
        first = max(self._lines.position(start).line - CONTEXT_LINES, 1)
        last = min(self._lines.position(end).line + CONTEXT_LINES, len(self._lines))
        code = self._shade(self._patched(self._lines.starts[first - 1], start, moment.filled))
        code.append_text(span_text(frame))
        code.append_text(self._shade(self._patched(end, self._lines.ends[last - 1], moment.filled)))
        return _numbered(code, first)

    def caption(self, moment: Moment) -> str:
        frame = moment.frame
        stage = ("first pass", "refinement", "another try")[frame.round]
        tokens = sum(1 for _ in _committed(frame))
        return (
            f"hole {frame.hole + 1}/{len(self.holes)} · {stage} · step {frame.step} · "
            f"tokens {tokens} · forwards {moment.forwards} in all"
        )

    def svg(self, title: str) -> str:
        """A few moments of the first holes, one below the other, as a picture."""
        moments = spread([m for m in self.moments if m.frame.hole < SVG_HOLES], SVG_FRAMES)
        views = [(self.caption(moment), self.draw(moment)) for moment in moments]
        longest = max((len(line) for _, view in views for line in view.plain.split("\n")), default=0)
        width = min(max(longest, SVG_WIDTHS[0]), SVG_WIDTHS[1])
        console = Console(record=True, file=io.StringIO(), width=width, force_terminal=True, color_system="truecolor")
        for caption, view in views:
            console.print(Rule(Text(caption, "bold"), align="left", style="dim"), view, "")
        # rich names a font server; a picture of a program that runs on one's own machine asks nobody
        return re.sub(r"@font-face \{.*?\}", "", console.export_svg(title=title), flags=re.DOTALL)

    def _patched(self, start: int, end: int, filled: Mapping[int, str]) -> str:
        """The text from start to end with what is known of the holes in between."""
        pieces, done = [], start
        for index, (left, right) in enumerate(self.holes):
            if index in filled and done <= left and right <= end:
                pieces += [self.text[done:left], filled[index]]
                done = right
        return "".join([*pieces, self.text[done:end]])


def span_text(frame: "Frame") -> Text:
    """The committed text and the open places, told apart by colour."""
    shown = _committed_text(frame)
    for place in frame.places[sum(1 for _ in _committed(frame)) :]:
        shown.append(MASK if place.state == "mask" else visible(place.text), _style(place))
    return shown


def _committed(frame: "Frame") -> Iterator["Place"]:
    return takewhile(lambda place: place.state == "committed", frame.places)


def _committed_text(frame: "Frame") -> Text:
    """`frame.text` in the shades of its tokens.

    The tokens may spell more than the text: in front, what the loop re-opened of the prefix; behind, what it cut off.
    They may also spell it differently, when a character is cut into several tokens; then the text has one shade.
    """
    spelt = Text()
    for place in _committed(frame):
        spelt.append(visible(place.text), _style(place))
    text = visible(frame.text)
    start = len(spelt) - len(text) if spelt.plain.endswith(text) else spelt.plain.find(text)
    return spelt[start : start + len(text)] if text and start >= 0 else Text(text, _style_of(1.0))


def _style(place: "Place") -> str:
    if place.state == "mask":
        return "dim"
    if place.state == "draft":
        return "italic #d29922" if place.confidence > 0.5 else "italic #a68a4c"
    return _style_of(place.confidence)


def _style_of(confidence: float) -> str:
    if confidence > 0.9:
        return "bold #2ea043"
    return "#3fb950" if confidence > 0.5 else "#7fbf8b"


def _numbered(code: Text, first: int) -> Text:
    lines = list(code.split("\n", allow_blank=True))
    width = len(str(first + len(lines)))
    return Text("\n").join(
        Text.assemble((f"{number:>{width}} │ ", "dim"), line) for number, line in enumerate(lines, first)
    )


def spread(moments: Sequence[Moment], count: int) -> list[Moment]:
    """At most `count` of them, evenly, with the first and the last."""
    if len(moments) <= count:
        return list(moments)
    return [moments[round(i * (len(moments) - 1) / (count - 1))] for i in range(count)]


# ---- progress


class Brief:
    """One line about a fill for whoever does not watch it."""

    def __init__(self, watch: Watch) -> None:
        self._watch, self._spinner = watch, Spinner("dots", "reading the context")

    def __rich__(self) -> RenderableType:
        if self._watch.moments:
            self._spinner.update(text=self._watch.caption(self._watch.moments[-1]))
        return self._spinner


class Transfer:
    """What is being done, and while bytes are on their way a bar with speed and remaining time."""

    def __init__(self, doing: str) -> None:
        self._spinner = Spinner("dots", doing)
        columns = (bars.DownloadColumn(), bars.TransferSpeedColumn(), bars.TimeRemainingColumn())
        self._bar = bars.Progress(bars.TextColumn("{task.description}"), bars.BarColumn(), *columns)
        self._task: bars.TaskID | None = None
        self._stage = ""

    def report(self, progress: "hub.Progress") -> None:
        if self._task is None or progress.stage != self._stage:
            self._begin(progress)
        assert self._task is not None
        self._bar.update(self._task, completed=progress.done, total=progress.total)

    def _begin(self, progress: "hub.Progress") -> None:
        """A new stage has its own speed."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._stage = progress.stage
        self._task = self._bar.add_task(visible(progress.stage), total=progress.total)

    def __rich__(self) -> RenderableType:
        return self._spinner if self._task is None or self._bar.finished else self._bar


@contextmanager
def live(view: RenderableType, *, keep: bool = False) -> Iterator[None]:
    """Show a view that changes; nothing at all where nobody can see it change."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with Live(view, console=console, refresh_per_second=12, transient=not keep, redirect_stdout=False):
        yield


def somebody_looks() -> bool:
    return Console(stderr=True).is_terminal


def say(*parts: RenderableType) -> None:
    """Print to standard error."""
    for part in parts:
        part = Text(visible(part)) if isinstance(part, str) else part
        Console(stderr=True).print(part, soft_wrap=isinstance(part, Text))
