--- diffcode in Neovim 0.11 and newer: the language server, ghost text, commands. `require("diffcode").setup{}`.
---
--- Rows and columns count from 0, columns in bytes, as in `nvim_buf_set_text`.

local api, lsp = vim.api, vim.lsp
local M = {}

M.NAME = "diffcode"
local INLINE = "textDocument/inlineCompletion"
local INVOKED, AUTOMATIC = 1, 2
local space = api.nvim_create_namespace("diffcode")

---@class diffcode.Options
M.options = {
  cmd = { "diffcode", "lsp" }, -- or vim.lsp.rpc.connect("127.0.0.1", 9257) for a server that runs already
  filetypes = { -- those with a grammar; {} takes every file
    "python", "javascript", "javascriptreact", "typescript", "typescriptreact", "go", "rust", "java", "c", "cpp",
  },
  root_markers = { ".git", "pyproject.toml", "package.json", "go.mod", "Cargo.toml", "pom.xml" },
  settings = {}, -- as in lsp/settings.schema.json, such as { multiLine = "never" }
  suggest = true, -- show suggestions while typing
  native = nil, -- draw them by vim.lsp.inline_completion; nil: where Neovim has it (0.12)
  keys = { -- in insert mode; false leaves one out
    accept = "<Tab>",
    accept_word = "<M-Right>",
    next = "<M-]>", -- ask now; with vim.lsp.inline_completion: the next of several
    dismiss = "<C-]>",
  },
}

---@class diffcode.Suggestion
---@field buf integer
---@field row integer
---@field first integer where `text` begins
---@field from integer the cursor when it was made
---@field last integer end of what gives way, on the line as it was
---@field line string the line as it was
---@field lines integer how many lines the buffer had
---@field text string

---@type diffcode.Suggestion?
local shown
local pending = {} ---@type table<{ client: vim.lsp.Client, id: integer, buf: integer, kind: string }, true>
---@type string?
local asked -- the text and place that were asked about last
local seed = 0
local states = {} ---@type table<integer, { state: string, reason?: string }>

-- ---- the server

---@param buf? integer
---@return vim.lsp.Client?
function M.client(buf)
  return lsp.get_clients({ bufnr = buf or api.nvim_get_current_buf(), name = M.NAME })[1]
end

local function say(text, level)
  vim.notify("diffcode: " .. text, level or vim.log.levels.INFO)
end

local function typing()
  return vim.startswith(api.nvim_get_mode().mode, "i")
end

local function on_status(_, params, ctx)
  states[ctx.client_id] = params
  api.nvim_exec_autocmds("User", { pattern = "DiffcodeStatus", data = params })
  vim.cmd.redrawstatus()
end

--- What is changed from now on is an undo step of its own: setting 'undolevels' breaks the sequence.
local function break_undo(buf)
  vim.bo[buf].undolevels = vim.bo[buf].undolevels
end

--- One undo step, and the truth about what was applied: Neovim's own handler says yes to edits that it refuses.
local function on_apply_edit(_, params, ctx)
  local client = assert(lsp.get_client_by_id(ctx.client_id))
  for _, change in ipairs(params.edit.documentChanges or {}) do
    local document = change.textDocument
    local buf = document and vim.uri_to_bufnr(document.uri)
    if buf and document.version and document.version ~= vim.NIL then
      if lsp.util.buf_versions[buf] ~= document.version then
        return { applied = false, failureReason = "the buffer has changed meanwhile" }
      end
      break_undo(buf)
    end
  end
  local ok, reason = pcall(lsp.util.apply_workspace_edit, params.edit, client.offset_encoding)
  if typing() then -- what is typed from now on is no part of it
    api.nvim_feedkeys(vim.keycode("<C-g>u"), "ni", false)
  end
  return { applied = ok, failureReason = not ok and tostring(reason) or nil }
end

--- For a status line: empty where there is no server.
---@param buf? integer
---@return string
function M.status(buf)
  local client = M.client(buf)
  if not client then
    return ""
  end
  local now = states[client.id] or { state = "normal" }
  local signs = { normal = "diffcode", busy = "diffcode…", inactive = "diffcode (off)", error = "diffcode (!)" }
  return M.options.suggest and signs[now.state] or "diffcode (no suggestions)"
end

--- Ask the server; `kind` is what `cancel` knows it by.
local function send(client, kind, method, params, buf, answered)
  local one = { client = client, kind = kind, buf = buf }
  local ok, id = client:request(method, params, function(failed, result)
    pending[one] = nil
    answered(failed, result)
  end, buf)
  if ok and id then
    one.id, pending[one] = id, true
  end
end

local function cancel(kind)
  for one in pairs(pending) do
    if one.kind == kind then
      pending[one] = nil
      one.client:cancel_request(one.id)
    end
  end
end

-- ---- positions

local function line_at(buf, row)
  return api.nvim_buf_get_lines(buf, row, row + 1, false)[1] or ""
end

local function to_lsp(buf, row, col, encoding)
  local line = line_at(buf, row)
  return { line = row, character = vim.str_utfindex(line, encoding, math.min(col, #line), false) }
end

--- The cursor of the current window.
local function cursor()
  local row, col = unpack(api.nvim_win_get_cursor(0))
  return row - 1, col
end

--- The range of a command: the selection where it was given as '<,'>, else whole lines.
local function range_of(given, buf, encoding)
  local from, to = vim.fn.getpos("'<"), vim.fn.getpos("'>")
  local first, last = { given.line1 - 1, 0 }, { given.line2 - 1, #line_at(buf, given.line2 - 1) }
  if given.range == 2 and vim.fn.visualmode() == "v" and from[2] == given.line1 and to[2] == given.line2 then
    local line = line_at(buf, to[2] - 1)
    local behind = math.min(to[3] - 1, #line) -- the byte that the last character begins with
    if vim.o.selection ~= "exclusive" and behind < #line then
      behind = behind + vim.str_utf_end(line, behind + 1) + 1
    end
    first, last = { from[2] - 1, from[3] - 1 }, { to[2] - 1, behind }
  end
  return { start = to_lsp(buf, first[1], first[2], encoding), ["end"] = to_lsp(buf, last[1], last[2], encoding) }
end

-- ---- ghost text

local function hide()
  if shown and api.nvim_buf_is_valid(shown.buf) then
    api.nvim_buf_clear_namespace(shown.buf, space, 0, -1)
  end
  shown = nil
end

--- What is left of a suggestion at the cursor: the text, and the columns that it takes the place of. Nothing if
--- anything but its own beginning was typed since.
local function rest_of(s)
  local row, col = cursor()
  if row ~= s.row or api.nvim_buf_line_count(s.buf) ~= s.lines or col < s.from then
    return nil
  end
  local line = line_at(s.buf, row)
  local typed = line:sub(s.first + 1, col)
  if line:sub(1, s.first) ~= s.line:sub(1, s.first) or line:sub(col + 1) ~= s.line:sub(s.from + 1) then
    return nil
  end
  if s.text:sub(1, #typed) ~= typed or #typed == #s.text then
    return nil
  end
  return s.text:sub(#typed + 1), col, col + s.last - s.from
end

local function draw(s, text, first, last)
  local old = line_at(s.buf, s.row):sub(first + 1, last)
  local lines = vim.split(text, "\n", { plain = true })
  if #lines == 1 and old ~= "" and vim.endswith(text, old) then -- a bracket that stands there is not shown twice
    lines, last = { text:sub(1, #text - #old) }, first
  end
  local tab = (" "):rep(vim.bo[s.buf].tabstop)
  local below = {}
  for i = 2, #lines do
    below[i - 1] = { { (lines[i]:gsub("\t", tab)), "DiffcodeGhost" } }
  end
  api.nvim_buf_clear_namespace(s.buf, space, 0, -1)
  api.nvim_buf_set_extmark(s.buf, space, s.row, first, {
    virt_text = { { (lines[1]:gsub("\t", tab)), "DiffcodeGhost" } },
    virt_text_pos = "inline",
    virt_lines = #below > 0 and below or nil,
    end_col = last,
    hl_group = last > first and "DiffcodeGone" or nil,
    right_gravity = false,
  })
end

--- Show it, or what is left of it; false where it does not fit any more.
local function present(s)
  local text, first, last = rest_of(s)
  if not text then
    return false
  end
  draw(s, text, first, last)
  shown = s
  return true
end

--- `text` at the cursor, for columns `first` to `last` of its line.
local function suggestion(text, first, last)
  local buf, row, col = api.nvim_get_current_buf(), cursor()
  return {
    buf = buf, row = row, first = first, from = col, last = math.max(last, col), text = text:gsub("\r\n?", "\n"),
    line = line_at(buf, row), lines = api.nvim_buf_line_count(buf),
  }
end

local function of_item(item, row, encoding)
  local line, range = line_at(0, row), item.range
  local first = vim.str_byteindex(line, encoding, range.start.character, false)
  return suggestion(item.insertText, first, vim.str_byteindex(line, encoding, range["end"].character, false))
end

--- The cursor and the text that an answer must still find.
local function moment(buf)
  return table.concat({ buf, api.nvim_buf_get_changedtick(buf), cursor() }, " ")
end

--- Who asked by hand is told why there is nothing.
function M._why(client, buf)
  send(client, "why", "workspace/executeCommand", { command = "diffcode.status" }, buf, function(_, figures)
    local why = figures and figures.silence
    if type(why) == "string" then
      say("nothing to suggest: " .. why)
    end
  end)
end

local function ask(buf, kind)
  local client = M.client(buf)
  if not client then
    return
  end
  cancel("inline")
  local row, col = cursor()
  local now = moment(buf)
  asked = now
  local params = {
    textDocument = { uri = vim.uri_from_bufnr(buf) },
    position = to_lsp(buf, row, col, client.offset_encoding),
    context = { triggerKind = kind },
  }
  send(client, "inline", INLINE, params, buf, function(failed, result)
    if failed or not result or not typing() or api.nvim_get_current_buf() ~= buf or moment(buf) ~= now then
      return
    end
    local item = (result.items or result)[1] -- the server has one or none
    if not item and kind == INVOKED then
      M._why(client, buf)
    end
    if not item or item.range.start.line ~= row or not present(of_item(item, row, client.offset_encoding)) then
      hide()
    end
  end)
end

--- After a key: what is shown shrinks with it or goes, and then there is something new to ask.
local function follow()
  local buf = api.nvim_get_current_buf()
  if not M.options.suggest or not typing() or vim.fn.pumvisible() == 1 then
    cancel("inline")
    return hide()
  end
  if shown and shown.buf == buf and present(shown) then
    return
  end
  hide()
  if moment(buf) ~= asked then -- TextChangedI and CursorMovedI come both
    ask(buf, AUTOMATIC)
  end
end

--- A word of it with what stands before: "(a, b)" gives "(", then "a", ",", " b", ")".
local function word_of(text)
  return text:match("^%s*[%w_\128-\255]+") or text:match("^%s*[^%w%s_]") or text
end

local taking ---@type { s: diffcode.Suggestion, word?: boolean }?

--- Runs between two breaks of the undo sequence. What was typed meanwhile has been looked at by `rest_of`.
function M._take()
  local one = taking
  taking = nil
  local text, first, last = nil, 0, 0
  if one and api.nvim_get_current_buf() == one.s.buf then
    text, first, last = rest_of(one.s)
  end
  if not one or not text then
    return hide()
  end
  local s = one.s
  local part = one.word and word_of(text) or text
  local lines = vim.split(part, "\n", { plain = true })
  api.nvim_buf_set_text(s.buf, s.row, first, s.row, part == text and last or first, lines)
  api.nvim_win_set_cursor(0, { s.row + #lines, #lines == 1 and first + #part or #lines[#lines] })
  if part == text or #lines > 1 then
    hide() -- of several lines the server remembers the rest
  end
end

local function take(s, word)
  taking = { s = s, word = word }
  -- CTRL-G u before and after: the suggestion is one undo step, and what is typed behind it another
  local keys = vim.keycode("<C-g>u<Cmd>lua require('diffcode')._take()<CR><C-g>u")
  api.nvim_feedkeys(keys, "ni", false)
  return true
end

-- ---- ghost text by Neovim 0.12

local function native()
  return M.options.native ~= false and lsp.inline_completion ~= nil
end

--- Take the item that Neovim shows. It may be older than the last keys: 0.12.0 leaves its range as it was, later
--- versions let it grow, and a range has had fields of two kinds.
local function native_take(word)
  return lsp.inline_completion.get({
    on_accept = function(item)
      local range, text = item.range, item.insert_text
      if type(text) == "string" and range and (range.start_row or range.start.row) == cursor() then
        take(suggestion(text, range.start_col or range.start.col, range.end_col or range.end_.col), word)
      end
    end,
  })
end

-- ---- what keys do; true where they did it

function M.accept(word)
  if native() then
    return native_take(word)
  end
  return shown ~= nil and rest_of(shown) ~= nil and take(shown, word)
end

function M.accept_word()
  return M.accept(true)
end

function M.dismiss()
  if native() then
    return lsp.inline_completion.get({ on_accept = function() end })
  end
  local was = shown ~= nil
  cancel("inline")
  hide()
  return was
end

--- Another one where there are several, or one although nothing was offered.
function M.next()
  if native() then
    lsp.inline_completion.select()
  else
    ask(api.nvim_get_current_buf(), INVOKED)
  end
  return true
end

--- A key that falls back on what it did before.
local function map(buf, key, act, title)
  local old = vim.fn.maparg(key, "i", false, true)
  if old.desc == title then
    return
  end
  local fallback, mode = vim.keycode(key), "ni"
  if not vim.tbl_isempty(old) then
    fallback, mode = vim.keycode("<Plug>(diffcode-" .. act .. ")"), "mi"
    vim.fn.mapset("i", false, vim.tbl_extend("force", old, { lhs = fallback, lhsraw = fallback, lhsrawalt = fallback }))
  end
  vim.keymap.set("i", key, function()
    if not M[act]() then
      api.nvim_feedkeys(fallback, mode, false)
    end
  end, { buffer = buf, desc = title })
end

-- ---- commands

--- Do one of the server's commands; `place` adds to its argument.
local function execute(name, place, done)
  local buf = api.nvim_get_current_buf()
  local client = M.client(buf)
  if not client then
    return say("no server for this buffer: see :checkhealth diffcode", vim.log.levels.WARN)
  end
  local argument = place and vim.tbl_extend("force", { uri = vim.uri_from_bufnr(buf) }, place(client.offset_encoding))
  local params = { command = "diffcode." .. name, arguments = argument and { argument } or {} }
  send(client, "command", "workspace/executeCommand", params, buf, function(failed, result)
    if failed then
      return say(failed.message, vim.log.levels.WARN)
    end
    if result and result.failureReason then
      say(result.failureReason, vim.log.levels.WARN)
    end
    if done then
      done(result)
    end
  end)
end

--- The place of a command: its range, or the cursor where it has none.
local function place_of(given)
  return function(encoding)
    local row, col = cursor()
    if given.range == 0 then
      return { position = to_lsp(0, row, col, encoding) }
    end
    return { range = range_of(given, 0, encoding) }
  end
end

--- The same for what works on a selection: without one it is the line.
local function lines_of(given, more)
  return function(encoding)
    return vim.tbl_extend("force", { range = range_of(given, 0, encoding) }, more or {})
  end
end

local function nowhere()
  return {}
end

local function tell(result)
  local lines = { result.state .. (result.reason and ": " .. result.reason or "") }
  for _, name in ipairs({ "loaded", "asked", "remembered", "shown", "accepted", "suggestionMs" }) do
    lines[#lines + 1] = name .. " " .. tostring(result[name])
  end
  if type(result.silence) == "string" then
    lines[#lines + 1] = "nothing was suggested last: " .. result.silence
  end
  say(table.concat(lines, ", "))
end

local commands = {
  Fill = function(given)
    execute("fill", given.bang and nowhere or place_of(given))
  end,
  Rewrite = function(given)
    execute("rewrite", lines_of(given))
  end,
  Vary = function(given)
    local strength = given.args ~= "" and tonumber(given.args) or nil
    if given.args ~= "" and not (strength and strength > 0 and strength <= 1) then
      return say("the strength is a number over 0, up to 1", vim.log.levels.WARN)
    end
    seed = seed + 10
    execute("vary", lines_of(given, { strength = strength, seed = seed }))
  end,
  Repair = function(given)
    execute("repair", place_of(given))
  end,
  Ripple = function()
    execute("ripple", nowhere)
  end,
  Status = function()
    execute("status", nil, tell)
  end,
  Reload = function()
    execute("reload", nil, tell)
  end,
  Toggle = function()
    M.toggle()
  end,
  Stop = function()
    cancel("command")
  end,
}

--- Suggestions on or off; without a word the other way round.
function M.toggle(on)
  if on == nil then
    on = not M.options.suggest
  end
  M.options.suggest = on
  if native() then
    for _, client in ipairs(lsp.get_clients({ name = M.NAME })) do
      lsp.inline_completion.enable(on, { client_id = client.id })
    end
  else
    cancel("inline")
    hide()
  end
  vim.cmd.redrawstatus()
end

-- ---- setting up

local function attached(buf, client)
  if not client:supports_method(INLINE) then
    return
  end
  for act, key in pairs(M.options.keys) do
    if key then
      api.nvim_buf_call(buf, function()
        map(buf, key, act, "diffcode: " .. act:gsub("_", " "))
      end)
    end
  end
  api.nvim_create_autocmd("CursorMoved", {
    group = api.nvim_create_augroup("diffcode.cursor." .. buf, { clear = true }),
    buffer = buf,
    callback = function()
      client:notify("diffcode/cursor", lsp.util.make_position_params(0, client.offset_encoding))
    end,
  })
  if native() then
    return lsp.inline_completion.enable(M.options.suggest, { client_id = client.id })
  end
  local group = api.nvim_create_augroup("diffcode." .. buf, { clear = true })
  local function on(events, act)
    api.nvim_create_autocmd(events, { group = group, buffer = buf, callback = act })
  end
  on({ "TextChangedI", "TextChangedP", "CursorMovedI" }, follow)
  on("InsertEnter", vim.schedule_wrap(follow)) -- the cursor is not yet where `a` or `o` puts it
  on({ "InsertLeave", "BufLeave" }, function()
    asked = nil
    cancel("inline")
    hide()
  end)
end

---@param options? diffcode.Options
function M.setup(options)
  if vim.fn.has("nvim-0.11") == 0 then
    return say("Neovim 0.11 or newer is needed", vim.log.levels.ERROR)
  end
  M.options = vim.tbl_deep_extend("force", M.options, options or {})
  local o = M.options
  api.nvim_set_hl(0, "DiffcodeGhost", { link = "Comment", default = true })
  api.nvim_set_hl(0, "DiffcodeGone", { link = "DiagnosticDeprecated", default = true })
  lsp.config(M.NAME, {
    cmd = o.cmd,
    filetypes = #o.filetypes > 0 and o.filetypes or nil,
    root_markers = o.root_markers,
    settings = { diffcode = o.settings },
    init_options = next(o.settings) and o.settings or vim.empty_dict(),
    capabilities = {
      experimental = { diffcodeStatus = true },
      textDocument = { inlineCompletion = { dynamicRegistration = false } },
    },
    handlers = { ["diffcode/status"] = on_status, ["workspace/applyEdit"] = on_apply_edit },
    reuse_client = function(client) -- one model, whatever the folder
      return client.name == M.NAME
    end,
  })
  local group = api.nvim_create_augroup("diffcode", { clear = true })
  api.nvim_create_autocmd("LspAttach", {
    group = group,
    callback = function(event)
      local client = lsp.get_client_by_id(event.data.client_id)
      if client and client.name == M.NAME then
        attached(event.buf, client)
      end
    end,
  })
  for name, act in pairs(commands) do
    local given = { bang = name == "Fill", nargs = name == "Vary" and "?" or 0, desc = "diffcode: " .. name:lower() }
    given.range = vim.tbl_contains({ "Fill", "Rewrite", "Vary", "Repair" }, name) or nil
    api.nvim_create_user_command("Diffcode" .. name, act, given)
  end
  lsp.enable(M.NAME)
end

return M
