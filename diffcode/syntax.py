"""Syntax trees of code: the one place that knows tree-sitter.

Every grammar is a package of its own with the parser compiled in, so nothing is fetched and no compiler is needed.
Offsets of trees are utf-8 bytes, as tree-sitter gives them; a `Code` speaks of characters.
"""

import importlib
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import PurePath

from tree_sitter import Language, Node, Parser, Tree

__all__ = ["LANGUAGES", "Code", "Node", "Piece", "Tree", "damage", "faults", "language_of", "parse", "pieces", "walk"]

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


class Code:
    """A text with its tree, in characters. Parsed once, then shared by all that ask about the same text."""

    def __init__(self, text: str, language: str, old: Tree | None = None):
        """`old`: the tree of an earlier text, told of the edit. KeyError for an unknown language."""
        self.text, self.language = text, language
        self.bytes = text.encode("utf8", errors="surrogatepass")
        parser = _parser(language)
        self.tree = parser.parse(self.bytes, old) if old is not None else parser.parse(self.bytes)
        wide = [] if len(text) == len(self.bytes) else list(re.finditer(r"[^\0-\x7f]", text))
        self._wide = [match.start() for match in wide]
        self._extra = [0, *accumulate(len(match[0].encode("utf8", "surrogatepass")) - 1 for match in wide)]
        self._wide_bytes = [at + extra for at, extra in zip(self._wide, self._extra, strict=False)]

    @property
    def root(self) -> Node:
        return self.tree.root_node

    def byte_of(self, at: int) -> int:
        return at + self._extra[bisect_left(self._wide, at)]

    def offset_of(self, byte: int) -> int:
        """The character that begins at `byte`."""
        return byte - self._extra[bisect_left(self._wide_bytes, byte)]

    def span(self, node: Node) -> tuple[int, int]:
        return self.offset_of(node.start_byte), self.offset_of(node.end_byte)

    def spelt(self, node: Node) -> str:
        return self.bytes[node.start_byte : node.end_byte].decode("utf8", "surrogatepass")

    def round(self, start: int, end: int) -> Iterator[Node]:
        """The smallest node that spans characters [start, end), and all round it, innermost first."""
        node = self.root.descendant_for_byte_range(self.byte_of(start), self.byte_of(end))
        while node is not None:
            yield node
            node = node.parent

    def leaves(self, start: int = 0, end: int | None = None) -> Iterator[Node]:
        """Tokens that lie within characters [start, end), in order, with their signs; those of no width left out."""
        first, last = self.byte_of(start), self.byte_of(len(self.text) if end is None else end)
        stack = [self.root]
        while stack:
            node = stack.pop()
            if node.end_byte <= first or node.start_byte >= last:
                continue
            if node.child_count:
                stack.extend(reversed(node.children))
            elif first <= node.start_byte < node.end_byte <= last:
                yield node

    def touching(self, start: int, end: int) -> Iterator[Node]:
        """All named nodes that characters [start, end] lie in or touch, parents first."""
        first, last = self.byte_of(start), self.byte_of(end)
        stack = [self.root]
        while stack:
            node = stack.pop()
            if node.end_byte >= first and node.start_byte <= last:
                yield node
                stack.extend(reversed(node.named_children))

    def edited(self, start: int, end: int, new: str) -> "Code":
        """The code with characters [start, end) replaced; only what changed is parsed again."""
        text = self.text[:start] + new + self.text[end:]
        first, last = self.byte_of(start), self.byte_of(end)
        added = new.encode("utf8", errors="surrogatepass")
        whole = self.bytes[:first] + added
        old = self.tree.copy()
        ends = (_point(self.bytes, first), _point(self.bytes, last), _point(whole, len(whole)))
        old.edit(first, last, len(whole), *ends)
        return Code(text, self.language, old)


def faults(node: Node) -> list[Node]:
    """The error nodes and the missing nodes at or below `node`, in order; none within another."""
    found, stack = [], [node]
    while stack:
        here = stack.pop()
        if here.is_error or here.is_missing:
            found.append(here)
        elif here.has_error:
            stack.extend(reversed(here.children))
    return found


def damage(found: Iterable[Node]) -> tuple[int, int]:
    """How many faults there are, and how many bytes they take: one error may swallow half a file."""
    sizes = [node.end_byte - node.start_byte for node in found]
    return len(sizes), sum(sizes)


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


def _point(data: bytes, at: int) -> tuple[int, int]:
    """Row and column of a byte, as tree-sitter counts them."""
    return data.count(b"\n", 0, at), at - (data.rfind(b"\n", 0, at) + 1)


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
