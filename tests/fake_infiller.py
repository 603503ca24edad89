"""A made-up model for the command line: it puts `<1>` everywhere and notes what it was asked."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from diffcode import cli
from diffcode.denoise import Drafts, Frame, Place
from diffcode.errors import Cancelled
from diffcode.infill import Fill, SpanFill

TEXT = "import os\n\n\ndef area(r):\n    return ???\n\n\nprint(area(???))\n"
FILLED = TEXT.replace("???", "<1>")


@dataclass
class FakeInfiller:
    """Puts `<1>` everywhere; `meanwhile` runs while it works."""

    meanwhile: Callable[[], None] = lambda: None
    words: str = "<1>"
    calls: list[dict[str, Any]] = field(default_factory=list)
    loads: list[cli.FillOptions] = field(default_factory=list)

    def fill(self, text: str, holes: Sequence[tuple[int, int]], **options: Any) -> Fill:
        self.calls.append({"text": text, "holes": list(holes), **options})
        for hole in range(len(holes)):
            for step in (1, 2):
                if options["on_step"]:
                    places = (Place(self.words, 0.95, "committed"), Place("", 0.0, "mask"))
                    options["on_step"](Frame(hole, 0, step, places, self.words))
        self.meanwhile()
        if options["cancelled"]():
            raise Cancelled("cancelled: nothing was changed")
        spans = tuple(
            SpanFill(s, e, self.words, (7, 8), (0.5, 1.0), 2, 2, 0.5, 0.2, "eos", Drafts(4, 3, 2, 1)) for s, e in holes
        )
        new, done = "", 0
        for s, e in holes:
            new, done = new + text[done:s] + self.words, e
        return Fill(new + text[done:], spans, 2 * len(spans), 2 * len(spans), 0.75)


def process(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "diffcode", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The error, which is one line on standard error and nothing on standard output."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("diffcode: ")
    assert err.index("\n") == len(err) - 1
    return err
