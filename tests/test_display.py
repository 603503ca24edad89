"""What a person sees, without a model: frames and results are made here."""

import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType
from rich.style import Style
from rich.text import Text

from diffcode import display
from diffcode.denoise import Drafts, Frame, Place
from diffcode.hub import Progress
from diffcode.infill import Fill, SpanFill

TEXT = "import os\n\n\ndef area(r):\n    return ???\n\n\nprint(area(???))\n"
HOLES = [(TEXT.index("???"), TEXT.index("???") + 3), (TEXT.rindex("???"), TEXT.rindex("???") + 3)]


def plain(view: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as captured:
        console.print(view)
    return captured.get()


def place(text: str, state: str = "committed", confidence: float = 0.95) -> Place:
    return Place(text, confidence, state)


def frame(text: str, places: Sequence[Place], hole: int = 0, step: int = 1, round_: int = 0) -> Frame:
    return Frame(hole, round_, step, tuple(places), text)


def span(start: int, end: int, text: str, **changes: object) -> SpanFill:
    values: dict[str, object] = {
        "tokens": (1, 2, 3),
        "confidence": (0.9, 0.5, 0.7),
        "steps": 2,
        "forwards": 2,
        "seconds": 0.25,
        "context_seconds": 0.1,
        "finished": "eos",
        "drafts": Drafts(4, 3, 2, 1),
    }
    return SpanFill(start, end, text, **{**values, **changes})  # type: ignore[arg-type]


# ---- the diff


def test_the_shaded_diff_says_what_the_plain_one_says() -> None:
    new = TEXT.replace("???", "r * r", 1)
    shown = display.shaded_diff("area.py", TEXT, new, [span(*HOLES[0], "r * r")])
    assert shown.plain.splitlines()[:2] == ["--- a/area.py", "+++ b/area.py"]
    assert "-    return ???\n+    return r * r\n" in shown.plain
    assert " def area(r):\n" in shown.plain


@pytest.mark.parametrize(
    "text", ["a\n\n???\n\n", "???", "\ufeff???\r\nb\r\n", "\n\n???", "a\tb\n\x0c\n???\n", "a\r???\r"]
)
def test_shading_keeps_lines_together(text: str) -> None:
    at = text.index("???")
    new = text.replace("???", "x")
    shown = display.shaded_diff("a.py", text, new, [span(at, at + 3, "x")]).plain.splitlines()
    (minus,), (plus,) = ([line for line in shown[2:] if line[0] == sign] for sign in "-+")
    assert minus.replace("???", "x")[1:] == plus[1:]
    assert "\ufeff" not in minus


def test_removed_and_added_lines_have_their_ground() -> None:
    new = TEXT.replace("???", "r * r", 1)
    shown = display.shaded_diff("area.py", TEXT, new, [span(*HOLES[0], "r * r")])
    for line in shown.split("\n"):
        parts = [part for part in line.render(Console()) if part.text.strip("+-\n")]
        grounds = {part.style.bgcolor.name for part in parts if isinstance(part.style, Style) and part.style.bgcolor}
        if line.plain.strip() and line.plain[:3] not in ("---", "+++", "@@ "):
            assert grounds == {{"-": "#4b1d22", "+": "#12371f", " ": "default"}[line.plain[0]]}


def test_code_is_shaded_in_its_language_and_long_files_are_not() -> None:
    assert len(display.Shade("a.py", "def f(): return 1\n")("def f(): return 1\n").spans) > 3
    long = "def f(): return 1\n" * (display.SHADED_CHARACTERS // 17)
    assert not [s for s in display.Shade("a.py", long)("def f(): return 1\n").spans if "bold" in str(s.style)]
    assert display.Shade("no-such.kind", "x")("\n\nx").plain == "\n\nx"


def test_the_diff_cannot_steer_the_terminal() -> None:
    text = "a = '\x1b[2J???'\n"
    edit = span(text.index("???"), text.index("???") + 3, "\x1b]0;title\x07")
    shown = display.shaded_diff("a\x1b[1m.py", text, text.replace("???", edit.text), [edit])
    assert "\x1b" not in shown.plain
    assert "\x07" not in shown.plain


# ---- the numbers


def test_the_table_has_a_row_for_each_hole() -> None:
    fill = Fill("", (span(*HOLES[0], "x"), span(*HOLES[1], "y", finished="budget")), 5, 6, 1.5)
    rows = plain(display.table(TEXT, fill)).splitlines()
    assert rows[-3].split() == ["5:12", "3", "2", "2", "100", "150", "1.50", "0.70", "eos", "3/4", "1/2"]
    assert rows[-2].split()[0] == "8:12"
    assert "budget" in rows[-2]
    assert rows[-1].startswith("2 holes: 6 tokens in 5 forwards (1.20 tokens a forward), 1.50 s")
    assert not any("…" in row for row in rows), "80 columns are enough"


def test_the_table_says_how_many_fills_were_weighed() -> None:
    for others, words in ((0, "1.50 s"), (1, "1.50 s, of 2 fills"), (8, "1.50 s, of 9 fills")):
        fill = Fill("", (replace(span(*HOLES[0], "x"), others=others),), 5, 6, 1.5)
        assert plain(display.table(TEXT, fill)).rstrip().endswith(words)


def test_a_fill_of_nothing_has_numbers_too() -> None:
    nothing = span(*HOLES[0], "", tokens=(), confidence=(), forwards=0, context_seconds=0.4)
    rows = plain(display.table(TEXT, Fill("", (nothing,), 0, 0, 0.0))).splitlines()
    assert rows[-2].split() == ["5:12", "0", "2", "0", "400", "0", "0.00", "0.00", "eos", "3/4", "1/2"]


# ---- the live view


def styles(text: Text) -> list[tuple[str, str]]:
    return [(text.plain[s.start : s.end], str(s.style)) for s in text.spans]


def test_places_are_told_apart() -> None:
    places = [
        place("a", confidence=0.95),
        place("b", confidence=0.7),
        place("c", confidence=0.2),
        place("d", "draft", 0.8),
        place("e", "draft", 0.1),
        place("", "mask", 0),
        place("f", confidence=0.99),  # an island
    ]
    assert styles(display.span_text(frame("abc", places))) == [
        ("a", "bold #2ea043"),
        ("b", "#3fb950"),
        ("c", "#7fbf8b"),
        ("d", "italic #d29922"),
        ("e", "italic #a68a4c"),
        (display.MASK, "dim"),
        ("f", "bold #2ea043"),
    ]


def test_what_was_reopened_of_the_prefix_gives_no_shade() -> None:
    places = [place("a", confidence=0.2), place("a", confidence=0.95)]
    assert styles(display.span_text(frame("a", places))) == [("a", "bold #2ea043")]


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        ("ue + 1", ["val", "ue", " + 1"]),  # the end of the prefix was re-opened
        ("", ["val"]),
        ("x", ["x", ")\n", "next"]),  # the end was cut off
        ("é", ["\ufffd", "\ufffd"]),  # one character in two tokens
    ],
)
def test_the_span_shows_the_text_and_not_its_spelling(text: str, spelt: list[str]) -> None:
    assert display.span_text(frame(text, [place(t) for t in spelt])).plain == text


def test_the_view_shows_the_lines_round_the_hole() -> None:
    watch = display.Watch("area.py", TEXT, HOLES)
    assert "reading the context" in plain(watch)
    watch.add(frame("r", [place("r"), place(" *", "draft"), place("", "mask")], step=3))
    shown = plain(watch).splitlines()
    assert [line.rstrip() for line in shown] == [
        "2 │",
        "3 │",
        "4 │ def area(r):",
        f"5 │     return r *{display.MASK}",
        "6 │",
        "7 │",
        "8 │ print(area(???))",
        "hole 1/2 · first pass · step 3 · tokens 1 · forwards 1 in all",
    ]


def test_the_view_shows_what_stands_in_the_other_holes() -> None:
    watch = display.Watch("area.py", TEXT, HOLES)
    watch.add(frame("r * r", [place("r * r")]))
    watch.add(frame("2", [place("2")], hole=1))
    watch.add(frame("r ** 2", [place("r ** 2")], round_=1))
    assert "return r * r" in plain(watch.draw(watch.moments[1]))
    assert "print(area(2))" in plain(watch)
    assert "hole 1/2 · refinement" in plain(watch)
    assert "print(area(???))" in plain(watch.draw(watch.moments[0])), "a moment shows what was known then"


@pytest.mark.parametrize("text", ["", "\ufeff", "a", "a\r\nb\r\n", "\n"])
def test_the_view_copes_with_small_texts(text: str) -> None:
    for at in (len(text), int(text.startswith("\ufeff"))):
        watch = display.Watch("a", text, [(at, at)])
        watch.add(frame("xyz\nu", [place("xyz\nu")]))
        assert "xyz" in plain(watch)


def test_a_long_hole_is_replaced_as_a_whole() -> None:
    text = "".join(f"line {n}\n" for n in range(30))
    watch = display.Watch("a", text, [(text.index("line 5"), text.index("line 25"))])
    watch.add(frame("short\n", [place("short\n")]))
    shown = plain(watch)
    assert "line 4" in shown
    assert "line 25" in shown
    assert "line 15" not in shown


# ---- the picture


def frames(count: int, hole: int) -> list[Frame]:
    return [frame("x" * n, [place("x" * n), place("", "mask")], hole, step=n) for n in range(count)]


def test_the_picture_holds_six_frames_of_the_first_two_holes() -> None:
    watch = display.Watch("area.py", TEXT + "???", [*HOLES, (len(TEXT), len(TEXT) + 3)])
    for each in (*frames(20, 0), *frames(20, 1), *frames(20, 2)):
        watch.add(each)
    svg = watch.svg("diffcode fill area.py & more")
    ElementTree.fromstring(svg)
    captions = re.findall(r"hole&#160;(\d)/3.*?step&#160;(\d+)", svg)
    assert captions == [("1", "0"), ("1", "8"), ("1", "16"), ("2", "3"), ("2", "11"), ("2", "19")]
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "").replace("https://www.textualize.io", "")


def test_a_picture_of_few_frames_has_them_all() -> None:
    watch = display.Watch("area.py", TEXT, HOLES)
    assert "<svg" in watch.svg("nothing happened")
    for each in frames(2, 0):
        watch.add(each)
    assert len(re.findall("hole&#160;1/2", watch.svg("two"))) == 2


@pytest.mark.parametrize("length", [0, 1, 5, 6, 7, 100])
def test_spread_keeps_both_ends(length: int) -> None:
    picked = display.spread(list(range(length)), 6)  # type: ignore[arg-type]
    assert len(picked) == min(length, 6)
    assert picked == sorted(set(picked))  # type: ignore[type-var]
    assert not length or (picked[0], picked[-1]) == (0, length - 1)


# ---- progress


def test_a_transfer_shows_a_bar_only_while_bytes_move() -> None:
    transfer = display.Transfer("loading the model")
    assert "loading the model" in plain(transfer)
    transfer.report(Progress("wheels 1/6", 40_000_000, 80_000_000))
    assert "wheels 1/6" in plain(transfer, 120)
    assert "40.0/80.0 MB" in plain(transfer, 120)
    transfer.report(Progress("wheels 2/6", 10_000_000, 80_000_000))
    shown = plain(transfer, 120)
    assert "wheels 2/6" in shown
    assert "wheels 1/6" not in shown
    transfer.report(Progress("checking", 80, 80))
    assert "loading the model" in plain(transfer, 120)


def test_nothing_is_shown_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    watch = display.Watch("area.py", TEXT, HOLES)
    with display.live(watch, keep=True):
        watch.add(frame("r", [place("r")]))
    assert capsys.readouterr() == ("", "")


def test_the_live_view_ends_with_the_last_frame(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    watch = display.Watch("area.py", TEXT, HOLES)
    with display.live(watch, keep=True):
        watch.add(frame("the_last", [place("the_last")], step=9))
    out, err = capsys.readouterr()
    assert out == ""
    assert "the_last" in err
    assert "step" in err


def test_a_brief_view_follows_the_frames() -> None:
    watch = display.Watch("area.py", TEXT, HOLES)
    brief = display.Brief(watch)
    assert "reading the context" in plain(brief)
    watch.add(frame("r", [place("r")], step=7))
    assert "step 7" in plain(brief)


def test_words_with_control_characters_are_said_safely(capsys: pytest.CaptureFixture[str]) -> None:
    display.say("wrote \x1b[2J[bold]x", Text("y"))
    assert capsys.readouterr().err == "wrote ␛[2J[bold]x\ny\n"
