"""Fills that are begun anew because they were not accepted, with the real weights."""

from collections.abc import Callable

import pytest

from diffcode import Infiller, infill
from diffcode.config import RETRIES, DenoiseOptions
from diffcode.denoise import Frame
from diffcode.errors import Cancelled
from diffcode.holes import Hole
from diffcode.interrupt import Stop
from diffcode.lsp.filler import ModelFiller, Task

AREA = 'import math\n\n\ndef area(radius):\n    """Area of a circle."""\n    return ???\n'
TWO = "def area(width, height):\n    return ???\n\n\nfor i in range(???):\n    print(i)\n"


@pytest.fixture(scope="module")
def infiller() -> Infiller:
    return Infiller.from_pretrained()


@pytest.fixture
def accepting(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], bool]], list[str]]:
    """Lets a test say what is accepted; gives the texts that were judged."""

    def use(accept: Callable[[str], bool]) -> list[str]:
        judged: list[str] = []

        def listening(text: str) -> bool:
            judged.append(text)
            return accept(text)

        monkeypatch.setattr(infill, "sound", lambda *_: listening)
        return judged

    return use


def fill_area(infiller: Infiller, **more: object) -> infill.Fill:
    return infiller.fill(AREA, marker="???", language="python", **more)  # type: ignore[arg-type]


def test_a_sound_fill_is_not_tried_again(infiller: Infiller) -> None:
    plain = infiller.fill(AREA, marker="???")
    known = fill_area(infiller)
    assert known.spans[0].retries == 0
    assert (known.text, known.forwards) == (plain.text, plain.forwards)


@pytest.mark.parametrize("policy", ["verified", "leftmost", "threshold"])
def test_the_first_accepted_try_is_taken(infiller: Infiller, accepting, policy: str) -> None:
    plain = infiller.fill(AREA, marker="???", policy=policy)
    judged = accepting(lambda text: len(judged) == 3)
    fill = fill_area(infiller, policy=policy)
    assert judged[0] == plain.text
    assert fill.text == judged[2]
    (span,) = fill.spans
    assert span.retries == 2
    assert span.forwards > plain.forwards, "all tries count"
    assert len(span.tokens) == len(span.confidence)


def test_a_try_differs_from_one_place_on(infiller: Infiller, accepting) -> None:
    plain = infiller.fill(AREA, marker="???").spans[0].tokens
    accepting(lambda text: text != AREA.replace("???", infiller.fill(AREA, marker="???").spans[0].text))
    again = fill_area(infiller).spans[0].tokens
    at = next(i for i, (a, b) in enumerate(zip(plain, again, strict=False)) if a != b)
    assert plain[:at] == again[:at]


def test_where_none_is_accepted_the_first_stays(infiller: Infiller, accepting) -> None:
    plain = infiller.fill(AREA, marker="???")
    judged = accepting(lambda text: False)
    fill = fill_area(infiller)
    assert fill.text == plain.text
    assert (fill.spans[0].tokens, fill.spans[0].confidence) == (plain.spans[0].tokens, plain.spans[0].confidence)
    assert len(judged) == 1 + fill.spans[0].retries <= 1 + RETRIES


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_there_are_as_many_tries_as_were_allowed(infiller: Infiller, accepting, retries: int) -> None:
    judged = accepting(lambda text: False)
    assert fill_area(infiller, retries=retries).spans[0].retries == retries
    assert len(judged) == (1 + retries if retries else 0), "without tries nothing needs to be judged"


def test_what_was_cut_short_is_not_tried_again(infiller: Infiller, accepting) -> None:
    judged = accepting(lambda text: False)
    (span,) = fill_area(infiller, max_tokens=2).spans
    assert (span.finished, span.retries, judged) == ("budget", 0, [])


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_stop_that_the_caller_puts_back_is_no_error(infiller: Infiller, end: str) -> None:
    """A line without its end would run into the next one."""
    text = "def double(number):\n    return result\n".replace("\n", end)
    at = text.index("    return")
    (span,) = infiller.fill(text, [(at, at)], stop="\n", language="python").spans
    assert (span.finished, span.retries) == ("stop", 0)
    assert span.text.startswith("    result = ")


def test_one_hole_of_several_is_changed(infiller: Infiller, accepting) -> None:
    plain = infiller.fill(TWO, marker="???")
    accepting(lambda text: text != plain.text)
    fill = infiller.fill(TWO, marker="???", language="python")
    changed = [a.text != b.text for a, b in zip(plain.spans, fill.spans, strict=True)]
    assert changed.count(True) == 1
    assert fill.text.count("???") == 0


def test_the_same_again_gives_the_same(infiller: Infiller, accepting) -> None:
    first = infiller.fill(AREA, marker="???").text
    accepting(lambda text: text != first)
    assert fill_area(infiller).spans[0].tokens == fill_area(infiller).spans[0].tokens


def test_the_servers_tasks_say_the_language(infiller: Infiller, accepting) -> None:
    text, at = AREA.replace("???", ""), AREA.index("???")
    for retries, times in ((0, 0), (2, 3)):
        judged = accepting(lambda text: False)
        task = Task(text, (Hole(at, at),), DenoiseOptions(retries=retries), language="python")
        ModelFiller(infiller).fill(task, Stop())
        assert len(judged) == times


def test_another_try_is_shown_and_can_be_cancelled(infiller: Infiller, accepting) -> None:
    accepting(lambda text: False)
    frames: list[Frame] = []
    fill_area(infiller, on_step=frames.append, retries=2)
    assert {frame.round for frame in frames} == {0, 2}
    seen: list[Frame] = []
    with pytest.raises(Cancelled):
        fill_area(infiller, on_step=seen.append, cancelled=lambda: any(frame.round == 2 for frame in seen))
