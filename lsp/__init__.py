"""`diffcode lsp`: a language server that applies diffusion edits."""
