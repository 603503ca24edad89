"""What is known of somebody who types: the pace, the edits, the suggestions that still hold."""

from hypothesis import given, settings
from hypothesis import strategies as st
from lsp_model import ENDS, Model, random_change, random_text

from diffcode.lsp.document import Change, Document
from diffcode.lsp.memory import Memory, Place, Suggestion
from diffcode.lsp.pace import LONGEST, Pace
from diffcode.lsp.text import Position, Range
from diffcode.lsp.trail import BURST_SECONDS, Trail


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def keys(pace: Pace, clock: Clock, gap: float, count: int = 60) -> None:
    for _ in range(count):
        clock.now += gap
        pace.key()


def test_nothing_is_put_off_before_the_first_key_nor_after_a_pause():
    clock = Clock()
    pace = Pace(clock)
    assert pace.delay() == 0
    keys(pace, clock, 0.2)
    clock.now += LONGEST + 0.01
    assert pace.delay() == 0


def test_a_model_that_answers_within_two_gaps_is_asked_at_once():
    clock = Clock()
    pace = Pace(clock)
    keys(pace, clock, 0.25)
    for _ in range(60):
        pace.took(0.4)
    assert pace.delay() == 0
    for _ in range(60):
        pace.took(0.6)
    assert 0.25 < pace.delay() <= LONGEST
    clock.now += 0.1
    assert 0.15 < pace.delay() <= LONGEST - 0.1, "counted from the last key"


def test_who_types_faster_waits_less():
    waits = []
    for gap in (0.06, 0.12, 0.2):
        clock = Clock()
        pace = Pace(clock)
        pace.work = 0.5
        keys(pace, clock, gap)
        keys(pace, clock, 30.0, 2)  # thinking is no typing
        waits.append(pace.delay())
        assert abs(pace.gap - gap) < 0.01
    assert waits == sorted(waits)
    assert waits[0] < waits[-1]


def test_a_setting_is_obeyed():
    clock = Clock()
    pace = Pace(clock)
    keys(pace, clock, 0.2)
    clock.now += 0.05
    assert abs(pace.delay(0.5) - 0.45) < 1e-9
    assert pace.delay(0.0) == 0


# ---- memory


def place(head: str, tail: str, uri: str = "a") -> Place:
    return Place(uri, head, tail)


texts = st.text("ab(\n", max_size=6)


@given(texts, texts, texts, st.data())
@settings(max_examples=60)
def test_typing_along_leaves_the_rest_and_nothing_else_does(head, tail, new, data):
    memory = Memory()
    memory.keep(Suggestion(place(head, tail), new))
    count = data.draw(st.integers(0, len(new)))
    found = memory.find(place(head + new[:count], tail))
    if count < len(new) or not new:
        assert found is not None
        assert found.rest(place(head + new[:count], tail)) == new[count:]
    else:
        assert found is None
    assert memory.find(place(head + new[:count] + "#", tail)) is None
    assert memory.find(place(head, tail + "#")) is None
    assert memory.find(place(head, tail, "b")) is None
    accepted = memory.accepted("a", head + new + tail)
    assert (accepted is not None) == bool(new)
    assert memory.accepted("b", head + new + tail) is None


def test_a_bracket_that_the_editor_closed_is_no_disagreement():
    memory = Memory()
    memory.keep(Suggestion(place("x = ", "\n"), "f(a)"))
    assert memory.find(place("x = f(", ")\n")).rest(place("x = f(", ")\n")) == "a)"
    assert memory.find(place("x = f(", "b\n")) is None


def test_the_newest_that_agrees_counts_and_unfinished_ones_are_only_drafts():
    memory = Memory()
    memory.keep(Suggestion(place("x", ""), "abc"))
    memory.keep(Suggestion(place("xa", ""), "bz"))
    assert memory.find(place("xab", "")).text == "bz"
    assert memory.find(place("xabc", "")) is None
    memory.keep(Suggestion(place("y", ""), "ab", whole=False))
    assert memory.find(place("y", "")) is None
    assert memory.draft(place("ya", "")) == "b"
    assert memory.draft(place("yb", "")) == ""
    assert memory.accepted("a", "yab") is None
    memory.keep(Suggestion(place("y", ""), "ac"))
    assert memory.draft(place("ya", "")) == "c", "it has taken the other one's place"
    memory.forget("b")
    assert memory.find(place("y", "")) is not None
    memory.forget("a")
    assert memory.find(place("y", "")) is None


def test_silence_is_remembered_for_the_very_place():
    memory = Memory()
    memory.keep(Suggestion(place("x", "y"), ""))
    assert memory.find(place("x", "y")).text == ""
    assert memory.find(place("xa", "y")) is None


# ---- the trail


def at(text: str, start: int, end: int) -> Range:
    model = Model(text, "utf-16")
    return Range(Position(*model.position(start)), Position(*model.position(end)))


def document(text: str) -> Document:
    return Document("a", "python", 1, text, "utf-16")


def edit(doc: Document, trail: Trail, start: int, end: int, new: str) -> None:
    doc.change(doc.version + 1, [Change(at(str(doc.text), start, end), new)])
    trail.follow(doc)


def test_edits_come_with_what_they_removed():
    doc = document("one\n😀 two\n")
    trail = Trail(doc)
    edit(doc, trail, 4, 6, "x")
    edit(doc, trail, 0, 3, "")
    assert [(e.start, e.removed, e.inserted) for e in trail.recent] == [(4, "😀 ", "x"), (0, "one", "")]
    assert trail.cursor == 0


def test_texts_are_kept_from_before_each_burst_on_a_line():
    clock = Clock()
    doc = document("def f():\n    pass\n\n\nf()\n")
    trail = Trail(doc, clock)
    start = str(doc.text)
    for letter in "oo":
        edit(doc, trail, 5, 5, letter)
    renamed = str(doc.text)
    end = renamed.rindex("f()")
    edit(doc, trail, end, end + 1, "g")
    edit(doc, trail, end + 1, end + 1, "h")
    assert [str(text) for text in trail.past()] == [renamed, start]
    clock.now += BURST_SECONDS + 1
    assert list(trail.past()) == []


@given(st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_edits_lead_from_the_old_text_to_the_new_one(chance):
    text = random_text(chance, ENDS, 40)
    doc = document(text)
    trail = Trail(doc)
    for _ in range(6):
        model = Model(str(doc.text), "utf-16")
        raw = [random_change(chance, model, ENDS)]
        changes = []
        for one in raw:
            where = one.get("range")
            ends = where and Range(*(Position(**where[side]) for side in ("start", "end")))
            changes.append(Change(ends, one["text"]))
        before = str(doc.text)
        seen = len(trail.recent)
        doc.change(doc.version + 1, changes)
        edits = trail.follow(doc)
        assert edits is not None
        for one in trail.recent[seen:]:
            assert before[one.start : one.start + len(one.removed)] == one.removed
            before = before[: one.start] + one.inserted + before[one.start + len(one.removed) :]
        assert before == str(trail.text) == str(doc.text)
