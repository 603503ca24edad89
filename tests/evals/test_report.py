"""The HTML report: what it shows, and that nothing in it can do harm or asks a network."""

import builtins
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from fake_evaluation import row, run_of

from diffcode.evals import plots, report, summary
from diffcode.evals.results import Row, Run

HOSTILE = '</pre><script>alert(1)</script><img src=x onerror="alert(2)">$title${x}'
NAMES = ("leftmost", "threshold:threshold=0.9", "threshold:threshold=0.7", "verified")


class Reader(HTMLParser):
    """Tags that were opened, attributes that were met, and whether all that was opened was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader


@pytest.fixture
def run() -> Run:
    return run_of(["a", "<b>"], decoders=NAMES, model=HOSTILE)


@pytest.fixture
def rows() -> list[Row]:
    return [
        row(task, name, name != "leftmost" and task == "a", seconds=0.1 * n + 0.1, completions=(f"{HOSTILE} {name}",))
        for task in ("a", "<b>")
        for n, name in enumerate(NAMES)
    ]


@pytest.fixture
def page(run: Run, rows: list[Row]) -> str:
    return report.page(summary.report(rows, run), rows, run)


def test_page_is_whole_and_harmless(page: str):
    reader = read(page)
    assert reader.open == []
    assert not reader.tags & {"script", "img", "link", "iframe", "object", "embed", "form", "base"}
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert "default-src 'none'" in page


def test_page_asks_no_network(page: str):
    addresses = [value for name, value in read(page).attributes if name in ("src", "href", "xlink:href", "action")]
    assert all(address.startswith("#") for address in addresses)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_page_has_the_numbers_the_flips_and_the_settings(page: str):
    assert "<td>threshold:threshold=0.7</td><td>2</td><td>0.500</td>" in page
    assert page.count("<details>") == 3  # problem a, gained by three decoders
    assert '<span class="gained">gained</span> a</summary>' in page
    assert "<td>max_tokens</td><td>256</td>" in page
    assert "<td>data fingerprint</td><td>f1nge4</td>" in page
    assert "not idle" not in page


def test_lost_problems_are_shown_with_both_completions(run: Run, rows: list[Row]):
    turned = [r.judged("TypeError" if r.passed else "passed") for r in rows]
    page = report.page(summary.report(turned, run), turned, run)
    assert '<span class="lost">lost</span> a</summary>' in page
    first = page[page.index("<details>") :].partition("</details>")[0]
    assert "leftmost: passed<pre>" in first
    assert "threshold:threshold=0.9: TypeError<pre>" in first


def test_pictures_are_inline_and_the_same_each_time(page: str, run: Run, rows: list[Row]):
    assert page.count("<svg") == page.count("</svg>") == 2
    assert "tokens per forward" in page
    assert "seconds per fill" in page
    assert page == report.page(summary.report(rows, run), rows, run)


def test_thresholds_of_a_policy_are_one_line(run: Run, rows: list[Row]):
    lines = plots.sweeps(summary.report(rows, run).summaries)
    assert {name: [at for at, _ in line] for name, line in lines.items()} == {
        "leftmost": [0.0],
        "threshold": [0.7, 0.9],
        "verified": [0.3],
    }
    assert ">0.7<" in plots.quality(summary.report(rows, run).summaries)


def test_default_threshold_stands_on_the_line_of_the_others():
    rows = [row("a", name, True) for name in ("edit", "edit:threshold=0.1", "edit:threshold=0.1:span_rows=2")]
    lines = plots.sweeps([summary.summarise([one]) for one in rows])
    assert {name: [at for at, _ in line] for name, line in lines.items()} == {
        "edit": [0.1, 0.5],
        "edit:span_rows=2": [0.1],
    }


def test_odd_names_and_unknown_numbers_are_drawn(run: Run):
    rows = [row("a", "openai:http://h/$x$#_m", True, forwards=None, context_seconds=None)]
    assert plots.quality([summary.summarise(rows)]) == ""
    assert "openai:http://h/$x$#_m" in plots.latency({"openai:http://h/$x$#_m": rows})


def test_run_without_a_finished_problem(run: Run):
    page = report.page(summary.report([], run), [], run)
    assert "<svg" not in page
    assert read(page).open == []


def test_without_matplotlib_the_rest_is_there(run: Run, rows: list[Row], monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def refuse(name: str, globals_: Any = None, locals_: Any = None, names: Any = (), level: int = 0) -> Any:
        if name == "diffcode.evals" and "plots" in (names or ()):
            raise ImportError(name)
        return real(name, globals_, locals_, names, level)

    monkeypatch.setattr(builtins, "__import__", refuse)
    page = report.page(summary.report(rows, run), rows, run)
    assert "matplotlib is not installed" in page
    assert "<td>0.500</td>" in page
