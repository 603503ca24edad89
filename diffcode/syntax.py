"""Syntax trees of code: the one place that knows tree-sitter.

Every grammar is a package of its own with the parser compiled in, so nothing is fetched and no compiler is needed.
Offsets are utf-8 bytes, as tree-sitter gives them.
"""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath

from tree_sitter import Language, Node, Parser, Tree

LANGUAGES = ("python", "javascript", "typescript", "tsx", "go", "rust", "java", "c", "cpp")
EXTENSIONS = {
    "python": (".py", ".pyi", ".pyw"),
    "javascript": (".js", ".jsx", ".mjs", ".cjs"),
    "typescript": (".ts", ".mts", ".cts"),
    "tsx": (".tsx",),
    "go": (".go",),
    "rust": (".rs",),
    "java": (".java",),
    "c": (".c",),
    "cpp": (".cpp", ".cc", ".cxx", ".hpp", ".hh", ".hxx", ".h"),  # C++'s grammar reads C headers as well
}
BY_EXTENSION = {extension: name for name, extensions in EXTENSIONS.items() for extension in extensions}

# What a piece of code may be, in the grammars' words. Only leaves of meaning: a whole module is no span.
KINDS = {
    "arguments": ("argument_list", "arguments", "parameters", "formal_parameters", "parameter_list"),
    "block": ("block", "statement_block", "compound_statement", "class_body", "declaration_list"),
}


@dataclass(frozen=True, slots=True)
class Piece:
    """One syntax node: its place in bytes and what it is."""

    start: int
    end: int
    kind: str  # "expression", "statement", "arguments" or "block"


def language_of(path: str | PurePath) -> str | None:
    """The language of a file by its name's ending; None where no grammar is at hand."""
    return BY_EXTENSION.get(PurePath(path).suffix.lower())


def parse(text: str, language: str) -> Tree:
    """The tree of `text`; broken code gets error nodes, never an exception. KeyError for an unknown language."""
    return _parser(language).parse(text.encode("utf8", errors="surrogatepass"))


def pieces(tree: Tree) -> list[Piece]:
    """Every expression, statement, argument list and block without a syntax error in it, outermost first."""
    return [Piece(n.start_byte, n.end_byte, kind) for n in walk(tree.root_node) if (kind := _kind(n))]


def walk(node: Node) -> Iterator[Node]:
    """`node` and all named nodes below it, parents first; no recursion, for code may be nested deeply."""
    stack = [node]
    while stack:
        here = stack.pop()
        yield here
        stack.extend(reversed(here.named_children))


def _kind(node: Node) -> str | None:
    if node.has_error or node.parent is None:
        return None
    for kind, names in KINDS.items():
        if node.type in names:
            return kind
    if node.type.endswith(("_statement", "_declaration", "_definition", "_item")):
        return "statement"
    # Grammars differ in what they call an expression; a named node that holds others and is none of the above is one.
    return "expression" if node.named_child_count and node.type != "comment" else None


@cache
def _parser(language: str) -> Parser:
    if language not in LANGUAGES:
        raise KeyError(language)
    # Imported on first use: each is a library of some hundred KB. TypeScript's package has two grammars.
    is_typescript = language in ("typescript", "tsx")
    grammar = importlib.import_module(f"tree_sitter_{'typescript' if is_typescript else language}")
    return Parser(Language(getattr(grammar, f"language_{language}" if is_typescript else "language")()))
