"""The plugin for Neovim in a real Neovim, without a screen, over the real server process with a made-up model."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lsp_editors import running, wait_for
from lsp_neovim import Neovim, fetched


@pytest.fixture(scope="session")
def nvim(request: pytest.FixtureRequest) -> Path:
    if given := os.environ.get("DIFFCODE_TEST_NVIM"):
        return Path(given)
    return fetched(request.config.cache.mkdir("neovim") / "0.11.4")


@pytest.fixture(scope="module")
def editor(nvim: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neovim]:
    """In utf-8, as Neovim prefers."""
    started = Neovim(nvim, tmp_path_factory.mktemp("neovim"))
    yield started
    started.end()


FUNCTION = "def add(a, b):\n    \n\n\nprint(add(1, 2))\n"


def test_ghost_text_comes_while_typing_and_one_undo_takes_it_back(editor: Neovim):
    editor.edit(FUNCTION)
    editor.keys("jAreturn ")
    assert wait_for(editor.ghost) == "a + b"
    typed = FUNCTION.replace("    \n", "    return \n", 1).rstrip("\n")
    assert editor.text() == typed
    editor.keys("<Tab>")
    wait_for(lambda: "return a + b" in editor.text())
    assert editor.ghost() == ""
    assert editor.lua("vim.fn.col('.')") == len("    return a + b") + 1
    editor.keys(" + 1<Esc>")
    wait_for(lambda: "return a + b + 1" in editor.text())
    seen = []
    for _ in range(3):
        editor.keys("u")
        seen.append(editor.lua("vim.fn.getline(2)"))
    assert seen == ["    return a + b", "    return ", "    "]
    editor.keys("<C-r><C-r>")
    assert editor.lua("vim.fn.getline(2)") == "    return a + b"


def test_typing_along_asks_nothing_and_anything_else_hides_it(editor: Neovim):
    editor.edit(FUNCTION)
    editor.keys("jAreturn ")
    assert wait_for(editor.ghost) == "a + b"
    asked = editor.counts()["asked"]
    editor.keys("a ")
    assert wait_for(lambda: editor.ghost() == "+ b")
    assert editor.counts()["asked"] == asked
    editor.keys("<BS><Left>")
    wait_for(lambda: "b" not in editor.ghost())
    editor.keys("<Esc>")
    wait_for(lambda: not editor.ghost())


def test_a_word_at_a_time_and_dismissing(editor: Neovim):
    editor.edit(FUNCTION)
    editor.keys("jAreturn ")
    wait_for(editor.ghost)
    editor.keys("<M-Right>")
    assert wait_for(lambda: editor.ghost() == " + b")
    editor.keys("<M-Right><M-Right>")
    wait_for(lambda: editor.lua("vim.fn.getline(2)") == "    return a + b")
    editor.keys("<Esc>u")
    assert editor.lua("vim.fn.getline(2)") == "    return a +"
    editor.keys("ccreturn ")
    wait_for(lambda: editor.ghost() == "a + b")
    editor.keys("<C-]>")
    wait_for(lambda: not editor.ghost())
    editor.keys("<M-]>")  # asked for by hand it comes back
    assert wait_for(editor.ghost) == "a + b"
    editor.keys("<Esc>")


def test_several_lines_are_drawn_below_and_taken_as_one_step(editor: Neovim):
    editor.edit("def both(a, b):\n\n\nprint(both(1, 2))\n")
    editor.keys("A<CR>")
    assert wait_for(editor.ghost) == "c = a\n    return c + b"
    editor.keys("<Tab><Esc>")
    whole = "def both(a, b):\n    c = a\n    return c + b\n\n\nprint(both(1, 2))"
    wait_for(lambda: editor.text() == whole)
    editor.keys("u")
    assert editor.text() == whole.replace("c = a\n    return c + b", "")


def test_what_gives_way_is_not_shown_twice(editor: Neovim):
    editor.edit("def go(a, b):\n    closed)\n\n\ngo(1, 2)\n")
    editor.keys("j$i(")
    assert wait_for(editor.ghost) in ("a, b", "a, b)")
    editor.keys("<Tab><Esc>")
    wait_for(lambda: editor.lua("vim.fn.getline(2)") == "    closed(a, b)")
    editor.keys("u")
    assert editor.lua("vim.fn.getline(2)") == "    closed()"


def test_the_key_does_what_it_did_where_there_is_nothing_to_take(editor: Neovim):
    editor.edit("# a comment\n")
    editor.keys("A<Tab>x<Esc>")
    wait_for(lambda: editor.text() == "# a comment x")
    editor.keys("A ")
    editor.lua("vim.schedule(function() vim.snippet.expand('${1:one} ${2:two}') end)")
    wait_for(lambda: "one two" in editor.text())
    editor.keys("eins<Tab>")  # Neovim's own meaning of the key: on to the next place
    wait_for(lambda: editor.lua("vim.api.nvim_get_mode().mode") == "s")
    editor.keys("zwei<Esc>")
    wait_for(lambda: editor.text() == "# a comment x eins zwei")
    editor.keys("<Esc>")


LISTEN = """(function()
  local client = require('diffcode').client()
  local request = client.request
  client.request = function(self, method, params, ...) Sent = params; return request(self, method, params, ...) end
end)()"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_characters_outside_of_ascii(nvim: Path, tmp_path: Path, encoding: str):
    override = f"{{ capabilities = {{ general = {{ positionEncodings = {{ '{encoding}' }} }} }} }}"
    editor = Neovim(nvim, tmp_path, override)
    try:
        before = "def greet(name):\n    '😀é' and print('é😀'); é\n\n\ngreet('x')\n"
        editor.edit(before)
        assert editor.lua("require('diffcode').client().offset_encoding") == encoding
        editor.keys("jA = ")
        assert wait_for(editor.ghost) == "'😀' + name"
        editor.keys("<Tab><Esc>")
        line = "    '😀é' and print('é😀'); é = '😀' + name"
        wait_for(lambda: editor.lua("vim.fn.getline(2)") == line)
        editor.lua(LISTEN)
        editor.keys("u0f😀vl:DiffcodeRewrite<CR>")
        wait_for(lambda: editor.lua("vim.fn.getline(2)") == "    'something' and print('é😀'); é = ")
        behind = {"utf-8": 11, "utf-16": 8, "utf-32": 7}[encoding]
        place = {"start": {"line": 1, "character": 5}, "end": {"line": 1, "character": behind}}
        assert editor.lua("Sent")["arguments"][0]["range"] == place
    finally:
        editor.end()


HOLES = "x = ???\n\n\ndef twice(n):\n    return n * 2\n\n\ny = ???\n"


def test_filling_the_file_is_one_undo_step(editor: Neovim):
    editor.edit(HOLES)
    editor.keys("Oz = 1<Esc>:DiffcodeFill!<CR>")
    filled = "z = 1\n" + HOLES.replace("???", "first", 1).replace("???", "second").rstrip("\n")
    wait_for(lambda: editor.text() == filled)
    editor.keys("u")
    assert editor.text() == "z = 1\n" + HOLES.rstrip("\n")
    editor.keys("u")
    assert editor.text() == HOLES.rstrip("\n")
    editor.keys("<C-r><C-r>")
    assert editor.text() == filled


def test_an_edit_that_comes_while_typing_is_a_step_of_its_own(editor: Neovim):
    editor.edit(HOLES)
    editor.keys("A # q<Cmd>DiffcodeFill!<CR>")
    wait_for(lambda: "y = second" in editor.text())
    editor.keys(" w<Esc>")
    seen = []
    for _ in range(3):
        editor.keys("u")
        seen.append((editor.lua("vim.fn.getline(1)"), editor.lua("vim.fn.getline('$')")))
    assert seen == [("x = first # q", "y = second"), ("x = ??? # q", "y = ???"), ("x = ???", "y = ???")]


def test_filling_the_place_or_the_selection(editor: Neovim):
    editor.edit(HOLES)
    editor.keys("G:DiffcodeFill<CR>")
    wait_for(lambda: "y = second" in editor.text())
    assert "x = ???" in editor.text()
    editor.keys("u:1,2DiffcodeFill<CR>")
    wait_for(lambda: "x = first" in editor.text())
    assert "y = ???" in editor.text()
    editor.keys("4G:DiffcodeFill<CR>")
    wait_for(lambda: "nothing to do here" in editor.messages())


def test_the_other_commands(editor: Neovim):
    editor.edit("def twice(n):\n    return n * 2\n\n\nprint(twice(3))\n")
    editor.keys("j:DiffcodeVary 1<CR>")
    wait_for(lambda: "return c + b" in editor.text())
    editor.keys("u")
    assert "return n * 2" in editor.text()
    editor.keys(":DiffcodeVary 7<CR>")
    wait_for(lambda: "the strength is a number" in editor.messages())
    editor.keys(":DiffcodeRipple<CR>")
    wait_for(lambda: "ripple: there is nothing" in editor.messages())
    editor.keys(":DiffcodeRepair<CR>")
    wait_for(lambda: "epair" in editor.messages())
    editor.keys(":DiffcodeReload<CR>")
    wait_for(lambda: "normal, loaded true" in editor.messages())
    assert editor.lua("require('diffcode').status()") == "diffcode"


def test_an_edit_for_an_older_text_is_refused(editor: Neovim):
    editor.edit("a = 1\n")
    edit = "{ documentChanges = { { textDocument = { uri = vim.uri_from_bufnr(0), version = 99 }, edits = {} } } }"
    context = "{ client_id = require('diffcode').client().id }"
    call = f"require('diffcode').client().handlers['workspace/applyEdit'](nil, {{ edit = {edit} }}, {context})"
    assert editor.lua(call) == {"applied": False, "failureReason": "the buffer has changed meanwhile"}


def test_who_asks_by_hand_is_told_why_there_is_nothing(editor: Neovim):
    editor.edit("z = 1\n\nsomething\n")
    editor.keys("jA<M-]>")  # the model writes the line that follows
    wait_for(lambda: "nothing to suggest: nothing is left to say" in editor.messages())
    assert editor.ghost() == ""
    editor.keys("<Esc>")


def test_where_the_cursor_rests_is_told(editor: Neovim):
    editor.edit(FUNCTION)
    editor.keys("jAreturn ")
    wait_for(editor.ghost)
    editor.keys("<Esc>")
    read = editor.counts()["read"]
    editor.keys("G")
    assert wait_for(lambda: editor.counts()["read"] > read)


def test_toggle_and_health(editor: Neovim):
    editor.edit(FUNCTION)
    editor.keys(":DiffcodeToggle<CR>jAreturn ")
    wait_for(lambda: "return" in editor.text())
    assert editor.lua("require('diffcode').status()") == "diffcode (no suggestions)"
    assert editor.ghost() == ""
    editor.keys("<Esc>:DiffcodeToggle<CR>A<BS> ")
    assert wait_for(editor.ghost) == "a + b"
    editor.keys("<Esc>:checkhealth diffcode<CR>")
    wait_for(lambda: "running, " in editor.text())
    assert "ERROR" not in editor.text()
    assert "suggestions are drawn by diffcode itself" in editor.text()
    editor.keys(":bwipeout<CR>")


STAND_IN = """
-- What the plugin uses of Neovim 0.12's vim.lsp.inline_completion; that one is not to be had here.
local item, ranges = nil, { PLACE }
vim.lsp.inline_completion = {
  select = function() end,
  get = function(o)
    local had = item
    vim.schedule(function() item = nil; if had then o.on_accept(had) end end)
    return had ~= nil
  end,
  enable = function(on, filter)
    vim.api.nvim_create_autocmd("CursorMovedI", { callback = function()
      local client = vim.lsp.get_client_by_id(filter.client_id)
      local p = vim.lsp.util.make_position_params(0, client.offset_encoding)
      p.context = { triggerKind = 2 }
      client:request("textDocument/inlineCompletion", p, function(_, r)
        local one = r.items[1]
        if one then
          item = { insert_text = one.insertText, range = ranges[1](p.position.line, one.range) }
        end
      end, vim.api.nvim_get_current_buf()) -- 0 would leave the last keys unsent
    end })
  end,
}
"""
NEWER = "function(row, r) return { start_row = row, start_col = r.start.character, end_col = r['end'].character } end"
OLDER = (
    "function(row, r)"
    " return { start = { row = row, col = r.start.character }, end_ = { row = row, col = r['end'].character } } end"
)


@pytest.mark.parametrize("place", [OLDER, NEWER], ids=["0.12.0", "later"])
def test_where_neovim_draws_suggestions_its_own_are_taken(nvim: Path, tmp_path: Path, place: str):
    editor = Neovim(nvim, tmp_path, first=STAND_IN.replace("PLACE", place))
    try:
        editor.edit(FUNCTION)
        editor.keys("jAreturn ")
        wait_for(lambda: editor.counts()["shown"])
        editor.keys("<M-Right>")
        wait_for(lambda: editor.lua("vim.fn.getline(2)") == "    return a")
        wait_for(lambda: editor.lua("require('diffcode').dismiss()"))
        editor.keys(" ")
        wait_for(lambda: editor.counts()["remembered"] > 1)
        editor.keys("<Tab>")
        wait_for(lambda: editor.lua("vim.fn.getline(2)") == "    return a + b")
        editor.keys("<Esc>u")
        assert editor.lua("vim.fn.getline(2)") == "    return a "
        assert editor.ghost() == ""
    finally:
        editor.end()


def test_a_late_answer_is_dropped_and_a_command_can_be_stopped(nvim: Path, tmp_path: Path):
    editor = Neovim(nvim, tmp_path, DIFFCODE_FAKE_SECONDS="0.6")
    try:
        editor.edit(FUNCTION)
        editor.keys("jAreturn ")
        wait_for(lambda: editor.counts()["asked"])
        editor.keys("<Esc>")
        time.sleep(0.8)
        assert (editor.ghost(), editor.counts()["shown"]) == ("", 0)
        editor.edit(HOLES, "b.py")
        editor.keys(":DiffcodeFill!<CR>")
        wait_for(lambda: editor.lua("require('diffcode').status()") == "diffcode…")
        editor.keys(":DiffcodeStop<CR>")
        wait_for(lambda: editor.lua("require('diffcode').status()") == "diffcode", seconds=0.5)
        assert editor.text() == HOLES.rstrip("\n")
    finally:
        editor.end()


def test_the_server_goes_with_a_neovim_that_is_killed(nvim: Path, tmp_path: Path):
    editor = Neovim(nvim, tmp_path)
    editor.edit(FUNCTION)
    server = editor.server()
    assert running(server)
    editor.process.send_signal(signal.SIGKILL)
    editor.process.wait(10)
    wait_for(lambda: not running(server), 10)
