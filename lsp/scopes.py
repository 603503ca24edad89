"""The names of a code, by its language."""

from diffcode.lsp.bindings import Names
from diffcode.lsp.scopes_other import OtherNames
from diffcode.lsp.scopes_python import PythonNames
from diffcode.syntax import Code


def names_of(code: Code) -> Names:
    """Every name of `code`, resolved; broken code gives what can be told."""
    return (PythonNames(code) if code.language == "python" else OtherNames(code)).run()
