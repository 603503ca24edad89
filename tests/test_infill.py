"""The Python API with the real weights: what a user calls, and what he may rely on."""

import pytest

from diffcode import Infiller
from diffcode.errors import BadHoles, BadOption, Cancelled, NothingToFill
from diffcode.policies import POLICIES

WORDS = "def total(prices):\n    ??? = 0\n    for price in prices:\n        ??? += price\n    return result\n"
AREA = 'import math\n\n\ndef area(radius):\n    """Area of a circle."""\n    return ???\n'


@pytest.fixture(scope="module")
def infiller() -> Infiller:
    return Infiller.from_pretrained()


def test_fill_puts_code_into_the_hole(infiller: Infiller) -> None:
    fill = infiller.fill(AREA, marker="???")
    assert fill.text == AREA.replace("???", fill.spans[0].text)
    assert fill.spans[0].text.replace(" ", "") in ("math.pi*radius**2", "math.pi*(radius**2)", "math.pi*radius*radius")
    span = fill.spans[0]
    assert AREA[span.start : span.end] == "???"
    assert len(span.tokens) == len(span.confidence) == fill.tokens
    assert all(0 <= c <= 1 for c in span.confidence)
    assert (fill.forwards, span.steps) == (span.forwards, span.forwards)
    assert 0 < span.context_seconds < span.seconds <= fill.seconds


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_every_policy_fills(infiller: Infiller, policy: str) -> None:
    fill = infiller.fill(AREA, marker="???", policy=policy)
    assert "radius" in fill.spans[0].text


def test_two_dependent_holes_agree(infiller: Infiller) -> None:
    rounds = []
    fill = infiller.fill(WORDS, marker="???", on_step=lambda frame: rounds.append((frame.hole, frame.round)))
    bound, used = (span.text.strip() for span in fill.spans)
    assert bound.isidentifier()
    assert bound == used
    assert (0, 1) in rounds, "the first hole is looked at again once the second has a draft"


def test_a_name_used_above_its_definition_agrees(infiller: Infiller) -> None:
    text = 'def main():\n    print(???(3))\n\n\ndef ???(n):\n    """The square of a number."""\n    return n**2\n'
    used, defined = (span.text for span in infiller.fill(text, marker="???").spans)
    assert used.isidentifier()
    assert used == defined


def test_the_second_look_keeps_what_it_agrees_with(infiller: Infiller) -> None:
    """A draft that the new context confirms is confirmed by the forward that reads that context."""
    text = "def area(width, height):\n    return width * ???\n\nfor i in range(???):\n    print(i)\n"
    frames = []
    infiller.fill(text, marker="???", on_step=frames.append)
    first, second = ([f for f in frames if (f.hole, f.round) == (0, r)] for r in (0, 1))
    assert second[0].text == first[-1].text
    assert len(second) == 1


def test_what_is_outside_the_holes_comes_back(infiller: Infiller) -> None:
    text = "\ufeffdef f(x):\r\n\treturn ???  # é😀 e\u0301 \u2028 <|fim_middle|>\r\n"
    fill = infiller.fill(text, marker="???", max_tokens=8)
    before, after = text.split("???")
    assert fill.text.startswith(before)
    assert fill.text.endswith(after)


def test_new_lines_get_the_documents_line_end(infiller: Infiller) -> None:
    text = "def add(a, b):\r\n\r\n\r\ndef sub(a, b):\r\n    return a - b\r\n"
    at = text.index("\r\n\r\n") + 2
    fill = infiller.fill(text, holes=[(at, at)], max_tokens=24)
    assert fill.text.count("\n") == fill.text.count("\r\n")


def test_a_word_is_finished_not_started_anew(infiller: Infiller) -> None:
    text = "numbers = [3, 1, 2]\nnumbers.so"
    fill = infiller.fill(text + "\nprint(numbers)\n", holes=[(len(text), len(text))], stop="\n")
    assert (text + fill.spans[0].text).splitlines()[1].startswith("numbers.sort(")


def test_an_indent_is_healed(infiller: Infiller) -> None:
    text = "def double(x):\n    "
    fill = infiller.fill(text, holes=[(len(text), len(text))], stop="\n")
    assert fill.text in ("def double(x):\n    return x * 2", "def double(x):\n    return 2 * x")


def test_same_seed_same_bytes_also_across_policies(infiller: Infiller) -> None:
    options = {"marker": "???", "temperature": 1.0, "stop": "\n", "max_tokens": 12}
    first = infiller.fill(AREA, seed=3, **options)
    again = infiller.fill(AREA, seed=3, **options)
    assert first.spans[0].tokens == again.spans[0].tokens
    others = {infiller.fill(AREA, seed=s, **options).text for s in range(4, 9)}
    assert len(others | {first.text}) > 1, "another seed may give another text"


def test_fill_many_is_one_by_one(infiller: Infiller) -> None:
    texts = [AREA, "print(???)\n"]
    many = infiller.fill_many(texts, marker="???", max_tokens=12)
    assert [f.text for f in many] == [infiller.fill(t, marker="???", max_tokens=12).text for t in texts]
    ranges = [[(AREA.index("???"), AREA.index("???") + 3)], [(6, 9)]]
    assert [f.text for f in infiller.fill_many(texts, ranges, max_tokens=12)] == [f.text for f in many]


def test_cancelled_before_the_first_forward(infiller: Infiller) -> None:
    with pytest.raises(Cancelled):
        infiller.fill(AREA, marker="???", cancelled=lambda: True)


def test_frames_show_the_hole_closing(infiller: Infiller) -> None:
    frames = []
    fill = infiller.fill(AREA, marker="???", on_step=frames.append)
    assert [f.step for f in frames] == list(range(1, len(frames) + 1))
    assert frames[-1].text.startswith(fill.spans[0].text)
    assert any(place.state == "draft" for frame in frames for place in frame.places)
    assert all(place.state == "committed" for place in frames[-1].places)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"holes": []}, NothingToFill),
        ({}, NothingToFill),
        ({"marker": "@@@"}, NothingToFill),
        ({"holes": [(0, 4), (2, 6)]}, BadHoles),
        ({"holes": [(0, 10_000)]}, BadHoles),
        ({"marker": "???", "policy": "fast"}, BadOption),
        ({"marker": "???", "temperature": -1}, BadOption),
        ({"marker": "???", "max_tokens": 0}, BadOption),
        ({"marker": "???", "stop": ""}, BadOption),
    ],
)
def test_bad_arguments_are_told_in_one_line(infiller: Infiller, arguments: dict, error: type) -> None:
    with pytest.raises(error) as caught:
        infiller.fill(AREA, **arguments)
    assert "\n" not in str(caught.value)


def test_half_a_character_is_refused(infiller: Infiller) -> None:
    with pytest.raises(BadOption, match="surrogate"):
        infiller.fill("x = '\ud800' + ???", marker="???")


def test_without_an_adapter_the_base_still_fills() -> None:
    bare = Infiller.from_pretrained(adapter="none")
    assert "radius" in bare.fill(AREA, marker="???").spans[0].text
    with pytest.raises(BadOption, match="adapter"):
        bare.fill(AREA, marker="???", policy="threshold")
