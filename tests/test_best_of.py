"""Several fills of a hole, and the best of them, with the real weights."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from diffcode import Infiller, filling, infill
from diffcode.canvas import Block
from diffcode.denoise import Frame
from diffcode.errors import BadOption, Cancelled

AREA = 'import math\n\n\ndef area(radius):\n    """Area of a circle."""\n    return ???\n\n\nprint(area(2))\n'
SEAM = 'def isfile(path):\n    """Test whether a path is a regular file"""\n ???st = os.stat(path)\n' + (
    "    except (OSError, ValueError):\n        return False\n    return stat.S_ISREG(st.st_mode)\n"
)
Judge = Callable[[str], float]


@pytest.fixture(scope="module")
def infiller() -> Infiller:
    return Infiller.from_pretrained()


@pytest.fixture
def judging(monkeypatch: pytest.MonkeyPatch) -> Callable[[Judge], list[str]]:
    """Lets a test say how well the text reads on; gives the fills that were read."""

    def use(judge: Judge) -> list[str]:
        read: list[str] = []

        def reads_on(model: object, block: Block, text: str, *_: object) -> float:
            read.append(text)
            return judge(text)

        monkeypatch.setattr(filling, "reads_on", reads_on)
        return read

    return use


def test_what_leads_on_to_the_rest_is_taken(infiller: Infiller) -> None:
    """`st` stands behind the hole already. Greedily the model writes it once more, and no grammar minds `stast`."""
    text, at = SEAM.replace("???", ""), SEAM.index("???")
    first, best = (infiller.fill(text, [(at, at)], language="python", best_of=n).text for n in (1, 9))
    assert "stast = " in first
    assert best == SEAM.replace("???", "   try:\n        ")


def test_one_is_the_first(infiller: Infiller, judging) -> None:
    read = judging(lambda text: 0)
    plain, one = infiller.fill(AREA, marker="???"), infiller.fill(AREA, marker="???", best_of=1)
    assert (one.text, one.forwards, one.spans[0].others, read) == (plain.text, plain.forwards, 0, [])


@pytest.mark.parametrize("policy", ["verified", "leftmost"])
@pytest.mark.parametrize("best_of", [2, 4])
def test_the_one_that_reads_on_best_is_taken(infiller: Infiller, judging, best_of: int, policy: str) -> None:
    read = judging(lambda text: len(read))
    fill = infiller.fill(AREA, marker="???", best_of=best_of, policy=policy)
    (span,) = fill.spans
    assert span.others == best_of - 1
    assert len(set(read)) == len(read) == best_of
    assert fill.text == AREA.replace("???", read[-1])
    assert len(span.tokens) == len(span.confidence)


def test_of_equals_the_first_stays(infiller: Infiller, judging) -> None:
    judging(lambda text: 0)
    plain, fill = infiller.fill(AREA, marker="???"), infiller.fill(AREA, marker="???", best_of=5)
    assert fill.text == plain.text
    assert fill.forwards > plain.forwards, "all that was written counts"


def test_what_is_in_order_is_not_broken(infiller: Infiller, judging, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = infiller.fill(AREA, marker="???").text
    monkeypatch.setattr(infill, "sound", lambda *_: plain.__eq__)
    read = judging(lambda text: len(read))
    assert infiller.fill(AREA, marker="???", language="python", best_of=5).text == plain
    assert len(read) == 1, "what breaks it need not be read"


def test_what_is_in_order_is_better_than_what_reads_on(infiller: Infiller, judging, monkeypatch) -> None:
    plain = infiller.fill(AREA, marker="???").text
    monkeypatch.setattr(infill, "sound", lambda *_: plain.__ne__)
    judging(lambda text: 0 if plain == AREA.replace("???", text) else -1)
    assert infiller.fill(AREA, marker="???", language="python", best_of=3, retries=0).text != plain


@pytest.mark.parametrize(("text", "more"), [(AREA[: AREA.index("???") + 3], {}), (AREA, {"max_tokens": 2})])
def test_nothing_to_read_on_to(infiller: Infiller, judging, text: str, more: dict[str, int]) -> None:
    """Where nothing follows, and where the fill was cut short."""
    read = judging(lambda text: 0)
    assert infiller.fill(text, marker="???", best_of=9, **more).spans[0].others == 0
    assert read == []


def test_the_stop_that_the_caller_puts_back_is_read_too(infiller: Infiller, judging) -> None:
    text, read = "def double(number):\n    return result\n", judging(lambda text: 0)
    at = text.index("    return")
    infiller.fill(text, [(at, at)], stop="\n", best_of=2)
    assert [fill.endswith("\n") for fill in read] == [True, True]


def test_nothing_at_all_is_not_the_best(infiller: Infiller, judging, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text mostly reads well with a line left out."""
    made = filling.Filling._another
    monkeypatch.setattr(filling.Filling, "_another", lambda *given: replace(made(*given), text=" \n"))
    read = judging(lambda text: -len(text))
    plain, fill = infiller.fill(AREA, marker="???"), infiller.fill(AREA, marker="???", best_of=3)
    assert (fill.text, len(read)) == (plain.text, 1)


def test_each_hole_is_weighed(infiller: Infiller, judging) -> None:
    text = "def area(width, height):\n    return ???\n\n\nfor i in range(???):\n    print(i)\n"
    judging(len)
    fill = infiller.fill(text, marker="???", best_of=3)
    assert all(span.others for span in fill.spans)
    assert "???" not in fill.text


def test_the_last_picture_is_of_what_is_taken_and_it_can_be_cancelled(infiller: Infiller, judging) -> None:
    frames: list[Frame] = []
    judging(lambda text: -len(frames))
    fill = infiller.fill(AREA, marker="???", best_of=3, on_step=frames.append)
    assert frames[-1].text == fill.spans[0].text
    seen: list[Frame] = []
    with pytest.raises(Cancelled):
        infiller.fill(
            AREA, marker="???", best_of=3, on_step=seen.append, cancelled=lambda: bool(seen and seen[-1].round == 2)
        )


def test_none_cannot_be_the_best(infiller: Infiller) -> None:
    with pytest.raises(BadOption, match="best_of is 0: it must be 1 or more"):
        infiller.fill(AREA, marker="???", best_of=0)
