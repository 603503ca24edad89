"""The page in a real browser: typed in, suggestions taken, holes filled. Without a Chromium these tests are skipped;
`apt-get install chromium` brings one, DIFFCODE_CHROMIUM names one. Pictures lie in the tests' temporary folder."""

import re
import signal

import pytest
from lsp_browser import ALT, CONTROL, SHIFT, browser, find_browser
from lsp_web import BODY, MEAN, WARMEST, web

PROGRAM = find_browser()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium: apt-get install chromium, or DIFFCODE_CHROMIUM")

TEXT = """(() => {
  const content = document.querySelector(".cm-content").cloneNode(true);
  for (const drawn of content.querySelectorAll(".ghost, .refining")) drawn.remove();
  return [...content.querySelectorAll(".cm-line")].map((line) => line.textContent).join("\\n");
})()"""
GHOST = "document.querySelector('.ghost')?.textContent ?? ''"
STATUS = "document.querySelector('#status')?.textContent"
NEWS = "document.querySelector('#news').textContent"
BUTTON = "document.querySelector('#fill').textContent"
WRITTEN = "[...document.querySelectorAll('.refining')].map((hole) => hole.textContent)"
FOCUS = "document.activeElement.id || document.activeElement.className"
HEAD = "def mean(values):\n    return "


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def server():
    with web() as running:
        yield running


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser(PROGRAM, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def page(tab, server):
    """The page anew; it must not complain, nor ask anybody else for anything."""
    tab.complaints.clear()
    tab.addresses.clear()
    tab.go(server.address)
    tab.until(STATUS, "Ready")
    yield tab
    tab.run("0")  # brings what is still to be told
    assert tab.complaints == []
    for address in tab.addresses:
        assert re.match(rf"data:|(?:http|ws)://127\.0\.0\.1:{server.port}/", address), address


def clear(tab):
    tab.press("a", CONTROL)
    tab.press("Backspace")
    tab.until(TEXT, "")


def test_a_suggestion_is_seen_taken_and_undone(page, pictures):
    clear(page)
    page.type("def mean(values):\n")
    page.type("return ")  # behind the indentation that the editor makes
    assert page.until(GHOST) == MEAN
    page.until("document.querySelector('#spoken').textContent", f"Suggestion: {MEAN}. Tab accepts.")
    page.picture(pictures / "ghost.png")
    page.press("Tab")
    page.until(TEXT, HEAD + MEAN)
    page.press("z", CONTROL)
    page.until(TEXT, HEAD)
    page.press("y", CONTROL)
    page.until(TEXT, HEAD + MEAN)


def test_a_suggestion_stays_while_it_is_typed_and_goes_with_escape(page):
    clear(page)
    page.type("def mean(values):\nreturn ")
    assert page.until(GHOST) == MEAN
    page.type("su")
    page.until(TEXT, HEAD + "su")
    page.until(GHOST, MEAN[2:])
    page.press("Escape")
    page.until(GHOST, "")
    assert page.run(TEXT) == HEAD + "su"
    page.press("]", ALT)  # asked for by hand
    page.until(GHOST, MEAN[2:])
    page.press("ArrowLeft")
    page.until(GHOST, "")


def test_tab_indents_where_nothing_is_suggested_and_leaves_after_escape(page):
    clear(page)
    page.press("Tab")
    page.until(TEXT, "    ")
    page.press("Escape")
    page.press("Tab", SHIFT)
    assert page.run(FOCUS) == "fill"
    page.press("Tab", SHIFT)
    assert page.run(FOCUS) == "language"


def test_what_is_typed_is_what_stands_there(page):
    clear(page)
    page.type('def area(radius):\n"""Of a circle."""\nreturn (radius)')
    page.until(TEXT, 'def area(radius):\n    """Of a circle."""\n    return (radius)')


def test_holes_are_filled_before_ones_eyes(page, pictures):
    before = page.run(TEXT)
    assert before.count("???") == 3
    page.picture(pictures / "light.png")
    page.click("#fill")
    page.until(BUTTON, "Stop")
    seen = page.until(f"(w => w[0] !== '???' && w)({WRITTEN})")
    assert MEAN.startswith(seen[0])
    assert seen[1:] == ["???", "???"]
    seen = page.until(f"(w => (w[1] ?? '').includes('\\n') && w)({WRITTEN})")
    assert seen[0] == MEAN
    assert seen[1] == "degrees = celsius * 9 / 5\nreturn"
    assert page.run(NEWS).startswith("Fill all 3 holes · hole 2 of 3: return")
    assert page.run(STATUS) == "Working"
    page.picture(pictures / "refining.png")
    page.until(BUTTON, "Fill holes")
    after = before
    for hole, text in (("???", MEAN), ("???", BODY), ("???", WARMEST)):
        after = after.replace(hole, text, 1)
    assert page.run(TEXT) == after
    marked = page.run("[...document.querySelectorAll('.fresh')].map((mark) => mark.textContent).join('')")
    assert marked == (MEAN + BODY + WARMEST).replace("\n", "")
    page.until(NEWS, "Filled. Undo takes it back in one step.")
    page.until(STATUS, "Ready")
    page.picture(pictures / "filled.png")
    page.press("z", CONTROL)
    page.until(TEXT, before)


def test_the_first_fill_waits_for_the_model_and_says_so(tab):
    with web() as running:
        tab.go(running.address)
        tab.until(STATUS, "Ready")
        tab.run(
            "window.told = []; new MutationObserver(() => told.push(document.querySelector('#news').textContent))"
            ".observe(document.querySelector('#news'), {childList: true}); 0"
        )
        tab.run(
            f"window.drawn = []; new MutationObserver(() => drawn.push(...{WRITTEN}))"
            ".observe(document.querySelector('.cm-content'), {childList: true, subtree: true}); 0"
        )
        tab.click("#fill")
        tab.until(f"{TEXT}.includes('{WARMEST}')")
        told, drawn = tab.run("told"), set(tab.run("drawn"))
    assert "loading the model · unpacking" in told
    assert any(text.startswith("Fill all 3 holes · hole 3 of 3") for text in told)
    assert {"???", MEAN} <= drawn
    assert not drawn & {"starting", "unpacking"}


CATCH = "window.WebSocket = class extends WebSocket { constructor(at) { super(at); window.link = this; } };"


def test_a_broken_connection_is_made_again(page):
    script = page.call("Page.addScriptToEvaluateOnNewDocument", source=CATCH)["identifier"]
    page.call("Page.reload")
    page.until("window.link?.readyState === 1")
    page.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)
    page.until(STATUS, "Ready")
    clear(page)
    page.type("def mean(values):\n")
    page.click("#fill")
    page.run("link.close()")
    page.until(STATUS, "Not connected")
    page.type("return ")
    page.click("#again")
    page.until(STATUS, "Ready")
    page.until("!document.querySelector('#fill').disabled")
    page.click(".cm-content")
    page.press("End", CONTROL)
    page.press("]", ALT)
    page.until(GHOST, MEAN)


def test_a_fill_is_stopped(page):
    before = page.run(TEXT)
    page.press("Enter", CONTROL)
    page.until(f"{WRITTEN}.length", 3)
    page.click("#fill")
    page.until(BUTTON, "Fill holes")
    assert page.run(NEWS).startswith("Stopped")
    assert page.run(TEXT) == before
    assert page.run(f"{WRITTEN}.length") == 0


def test_typing_during_a_fill_wins(page):
    page.click("#fill")
    page.until(f"{WRITTEN}.length", 3)
    page.press("End", CONTROL)
    page.type("x = 1")
    page.until(BUTTON, "Fill holes")
    text = page.run(TEXT)
    assert text.count("???") == 3
    assert text.endswith("x = 1")
    assert "changed" in page.run(NEWS)


def test_without_a_hole_it_says_so(page):
    clear(page)
    page.type("x = 1")
    page.click("#fill")
    page.until(NEWS, "There is no hole: write ??? where code is missing.")
    page.until(BUTTON, "Fill holes")


def test_each_language_has_its_own_text_and_history(page, pictures):
    python = page.run(TEXT)
    page.press("End", CONTROL)
    page.type("y")
    page.run(
        "(l => { l.value = 'javascript'; l.dispatchEvent(new Event('change')); })(document.querySelector('#language'))"
    )
    page.until(f"{TEXT}.includes('function mean')")
    page.click("#fill")
    page.until(f"{TEXT}.includes('return {MEAN};')")
    page.until(NEWS, "1 left: the model has found nothing that fits there.")  # WARMEST is no JavaScript
    page.picture(pictures / "javascript.png")
    page.run(
        "(l => { l.value = 'python'; l.dispatchEvent(new Event('change')); })(document.querySelector('#language'))"
    )
    page.until(TEXT, python + "y")
    page.press("z", CONTROL)
    page.until(TEXT, python)
    page.press("End", CONTROL)
    page.type("m = ")
    page.until(GHOST)


def test_it_looks_right_in_the_dark_and_in_a_narrow_window(page, pictures):
    paper = "getComputedStyle(document.querySelector('.cm-editor')).backgroundColor"
    light = page.run(paper)
    try:
        page.media(prefers_color_scheme="dark")
        assert page.run(paper) != light
        page.click("#fill")
        page.until(f"(w => (w[1] ?? '').includes('\\n') && w)({WRITTEN})")
        page.picture(pictures / "dark.png")
        page.until(BUTTON, "Fill holes")
        page.size(380, 640)
        assert page.run("document.documentElement.scrollWidth") <= 380
        page.picture(pictures / "narrow.png")
    finally:
        page.media()
        page.call("Emulation.clearDeviceMetricsOverride")


CONTRAST = """(() => {
  const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  }).reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const paper = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const worst = {};
  const texts = "h1, button, select, #status, #keys, kbd, .cm-line, .cm-line *, .cm-gutterElement, .ghost";
  for (const element of document.querySelectorAll(texts)) {
    if (!element.textContent.trim() || !element.checkVisibility()) continue;
    const [a, b] = [light(getComputedStyle(element).color), light(paper(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5 && !element.disabled) worst[element.className || element.id || element.tagName] = ratio.toFixed(2);
  }
  return JSON.stringify(worst);
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(page, scheme):
    try:
        page.media(prefers_color_scheme=scheme)
        page.press("End", CONTROL)
        page.type("m = ")
        page.until(GHOST)
        assert page.run(CONTRAST) == "{}"
    finally:
        page.media()


def test_when_the_server_ends_the_text_stays(tab, pictures):
    with web() as running:
        tab.go(running.address)
        tab.until(STATUS, "Ready")
        running.process.send_signal(signal.SIGINT)
        running.process.wait(10)
    tab.until(STATUS, "Not connected")
    assert tab.run(TEXT).count("???") == 3
    tab.picture(pictures / "ended.png")
    tab.click("#again")
    tab.until(f"{STATUS} === 'Not connected' && !document.querySelector('#again').hidden")
