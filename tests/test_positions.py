"""Places in a text, and the diff between two."""

import difflib
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd_texts import texts

from diffcode.diff import plain_diff
from diffcode.errors import BadHoles, NothingToFill
from diffcode.positions import Asked, Lines, Position, find_holes

# ---- positions


@given(texts)
def test_offset_to_position_and_back(text: str) -> None:
    lines = Lines.of(text)
    for offset in range(len(text) + 1):
        inside = text[offset - 1 : offset + 1] == "\r\n"
        before_mark = offset == 0 and text.startswith("\ufeff")
        back = lines.offset(lines.position(offset), "--at")
        assert back == (offset - 1 if inside else 1 if before_mark else offset)


@given(texts)
def test_lines_agree_with_a_plain_split(text: str) -> None:
    lines = Lines.of(text)
    plain = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert [text[s:e] for s, e in zip(lines.starts, lines.ends, strict=True)] == plain


@pytest.mark.parametrize(
    ("at", "offset"), [("1:1", 0), ("1:3", 2), ("2:1", 4), ("3:2", 7), ("4:1", 8)], ids=lambda value: str(value)
)
def test_at(at: str, offset: int) -> None:
    assert find_holes("ab\r\nc\nd\r", [at]) == [Asked(offset, offset, f"--at {at}")]


@pytest.mark.parametrize(
    ("lines", "span"),
    [("1", (0, 2)), ("1:1", (0, 2)), ("1:2", (0, 5)), ("2:3", (4, 7)), ("4", (8, 8)), ("1:4", (0, 8))],
)
def test_lines_leave_the_last_line_end(lines: str, span: tuple[int, int]) -> None:
    (hole,) = find_holes("ab\r\nc\nd\r", lines=[lines])
    assert (hole.start, hole.end) == span


@pytest.mark.parametrize(
    ("option", "spec", "allowed"),
    [
        ("at", "5:1", "lines 1 to 4"),
        ("at", "0:1", "lines 1 to 4"),
        ("at", "1:4", "columns 1 to 3"),
        ("at", "4:2", "only column 1"),
        ("at", "3", "--at 12:5"),
        ("at", "a:b", "--at 12:5"),
        ("at", "-1:2", "--at 12:5"),
        ("at", "١:١", "--at 12:5"),
        ("at", "9" * 5000 + ":1", "--at 12:5"),
        ("lines", "2:9", "lines 1 to 4"),
        ("lines", "0:1", "lines 1 to 4"),
        ("lines", "3:2", "--lines 2:3"),
        ("lines", "1-2", "--lines 12:15"),
        ("lines", "", "--lines 12:15"),
    ],
)
def test_bad_places_say_what_is_allowed(option: str, spec: str, allowed: str) -> None:
    with pytest.raises(BadHoles, match=allowed):
        find_holes("ab\r\nc\nd\r", **{option: [spec]})


def test_a_byte_order_mark_is_no_part_of_line_1() -> None:
    text = "\ufeffab\ncd"
    assert [(h.start, h.end) for h in find_holes(text, ["1:1"], ["2"])] == [(1, 1), (4, 6)]
    assert find_holes(text, lines=["1"])[0].start == 1
    assert Lines.of(text).position(0) == Position(1, 1)


@given(texts, st.sampled_from(["???", "a", "aa", "\u2028", ".*", "\n"]))
def test_markers_are_all_found(text: str, marker: str) -> None:
    if marker not in text:
        with pytest.raises(NothingToFill):
            find_holes(text, marker=marker)
        return
    holes = find_holes(text, marker=marker)
    pieces, done = [], 0
    for hole in holes:
        pieces.append(text[done : hole.start])
        assert text[hole.start : hole.end] == marker
        done = hole.end
    assert [*pieces, text[done:]] == text.split(marker)


def test_an_empty_marker_is_refused() -> None:
    with pytest.raises(BadHoles, match="--hole is empty"):
        find_holes("abc", marker="")


@pytest.mark.parametrize(
    ("at", "lines", "marker", "named"),
    [
        (["1:2"], ["1"], None, ("--lines 1", "--at 1:2")),
        (["1:1"], ["1"], None, ("--at 1:1", "--lines 1")),
        (["2:1", "2:1"], [], None, ("--at 2:1", "--at 2:1")),
        ([], ["1:2", "2:3"], None, ("--lines 1:2", "--lines 2:3")),
        (["1:4"], [], "???", ("??? at 1:3", "--at 1:4")),
    ],
)
def test_overlaps_are_refused_by_name(
    at: list[str], lines: list[str], marker: str | None, named: tuple[str, str]
) -> None:
    with pytest.raises(BadHoles) as error:
        find_holes("a ???\nb\nc\n", at, lines, marker)
    assert str(error.value).startswith(f"{named[0]} and {named[1]} overlap")


def test_holes_come_in_the_order_of_the_text_and_may_touch() -> None:
    holes = find_holes("a ???\nb\n", ["2:2", "1:6"], [], "???")
    assert [(h.start, h.end) for h in holes] == [(2, 5), (5, 5), (7, 7)]


# ---- diffs


@st.composite
def edited(draw: st.DrawFn) -> tuple[str, str, list[SimpleNamespace]]:
    """An old text, the new one, and the edits between them."""
    lines = st.lists(st.sampled_from(["a", "b\n", "\n", "\r", "c\r\n", "same\n"]), max_size=30).map("".join)
    old = draw(lines)
    cuts = sorted(draw(st.lists(st.integers(0, len(old)), unique=True, max_size=6)))
    pairs = list(zip(cuts[::2], cuts[1::2], strict=False))
    edits = [SimpleNamespace(start=s, end=e, text=draw(lines)) for s, e in pairs]
    new, done = "", 0
    for edit in edits:
        new, done = new + old[done : edit.start] + edit.text, edit.end
    return old, new + old[done:], edits


def patched(old: str, diff: str) -> str:
    """What `patch` makes of it, strictly: every line of context must be there."""
    there, at = old.split("\n"), 0
    out: list[str] = []
    rows = diff.replace("\n\\ No newline at end of file\n", "\0\n").split("\n")[2:-1]
    there = [line + "\n" for line in there[:-1]] + ([there[-1]] if there[-1] else [])
    for row in rows:
        line = row[1:-1] if row.endswith("\0") else row[1:] + "\n"
        if row.startswith("@@"):
            first, size = (int(n) for n in (row.split()[1][1:] + ",1").split(",")[:2])
            start = first - 1 if size else first
            out, at = out + there[at:start], start
        elif row[0] in " -":
            assert there[at] == line
            at += 1
        if row[0] in " +" and not row.startswith("@@"):
            out.append(line)
    return "".join(out + there[at:])


@given(edited())
def test_a_diff_leads_from_old_to_new(case: tuple[str, str, list[SimpleNamespace]]) -> None:
    old, new, edits = case
    diff = plain_diff("code.py", old, new, edits)
    assert (diff == "") == (old == new)
    if diff:
        assert patched(old, diff) == new


@pytest.mark.parametrize("gap", range(1, 10))
def test_a_diff_looks_as_usual(gap: int) -> None:
    """Also where two changes are so near that they share a hunk."""
    old = "".join(f"line {n}\n" for n in range(40)) + "end"
    edits = []
    for was, now in ((old[35:42], "LINE 5\nmore\n"), (f"line {5 + gap}\n", ""), ("end", "END")):
        edits.append(SimpleNamespace(start=old.index(was), end=old.index(was) + len(was), text=now))
    new = old
    for edit in reversed(edits):
        new = new[: edit.start] + edit.text + new[edit.end :]
    usual = difflib.unified_diff(old.split("\n"), new.split("\n"), "a/x", "b/x", lineterm="")
    ours = plain_diff("/x", old, new, edits).replace("\n\\ No newline at end of file", "")
    assert ours.splitlines() == list(usual)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@pytest.mark.parametrize("name", ["code.py", "two words.py"])
def test_git_applies_the_diff(tmp_path: Path, name: str) -> None:
    old, new = "a\r\nx = ???\r\nb", "a\r\nx = 1 +\r\n  2\r\nb"
    (tmp_path / name).write_bytes(old.encode())
    diff = plain_diff(name, old, new, [SimpleNamespace(start=7, end=10, text="1 +\r\n  2")])
    command = ["git", "-c", "core.autocrlf=false", "apply", "--whitespace=nowarn", "-"]
    subprocess.run(command, input=diff.encode(), cwd=tmp_path, check=True, timeout=20)
    assert (tmp_path / name).read_bytes() == new.encode()
