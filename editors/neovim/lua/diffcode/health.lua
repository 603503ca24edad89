--- `:checkhealth diffcode`

local M = {}

function M.check()
  local health, diffcode = vim.health, require("diffcode")
  health.start("diffcode")
  if vim.fn.has("nvim-0.11") == 0 then
    return health.error("Neovim 0.11 or newer is needed")
  end
  local cmd = diffcode.options.cmd
  if type(cmd) ~= "table" then
    health.ok("the server is connected to by a function")
  elseif vim.fn.executable(cmd[1]) == 1 then
    health.ok("found " .. vim.fn.exepath(cmd[1]))
  else
    health.error(cmd[1] .. " is not found", "pip install diffcode, or name its path: setup{ cmd = { path, 'lsp' } }")
  end
  if not vim.lsp.is_enabled(diffcode.NAME) then
    health.warn("not enabled", "call require('diffcode').setup{}")
  end
  local clients = vim.lsp.get_clients({ name = diffcode.NAME })
  for _, client in ipairs(clients) do
    health.ok(("running, %d buffers, counts in %s"):format(#vim.tbl_keys(client.attached_buffers), client.offset_encoding))
  end
  if #clients == 0 then
    health.info("not running: it starts with a file of " .. table.concat(diffcode.options.filetypes, ", "))
  end
  local native = vim.lsp.inline_completion and diffcode.options.native ~= false
  health.info("suggestions are drawn by " .. (native and "vim.lsp.inline_completion" or "diffcode itself"))
end

return M
