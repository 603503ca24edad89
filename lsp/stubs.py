"""Places that wait for code: `???` markers and bodies that only say that they are not written yet.

Candidates are found by their words, then the tree says what they are. An ellipsis or a raise is left alone where it
is what the author means: protocols, abstract methods, overloads, stub files, slices, type annotations.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

from diffcode.holes import Hole
from diffcode.lsp.spot import Spot, indentation, lines_above, lines_below, opens_body
from diffcode.syntax import Code, Node

MARKER = re.compile(r"(?<!\?)\?\?\?(?!\?)")
TODO = re.compile(r"\b(?:TODO|FIXME)\b")
MISSING = r"not[ _-]?(?:yet[ _-]?)?implemented|unimplemented|\btodo\b|NotImplemented"
CANDIDATES = {
    "python": re.compile(r"\.\.\.|\bpass\b|\bNotImplementedError\b|\b(?:TODO|FIXME)\b"),
    "": re.compile(rf"{MISSING}|\bUnsupportedOperationException\b|\b(?:TODO|FIXME)\b", re.IGNORECASE),
}
GIVES_UP = re.compile(rf"(?:throw|panic|assert|abort)\b.*(?:{MISSING})", re.IGNORECASE | re.DOTALL)
UNSUPPORTED = re.compile(r"throw\s+new\s+UnsupportedOperationException\b")
FOR_GOOD = re.compile(r"unmodifiable|immutable|read.?only|(?:not|n't) support", re.IGNORECASE)  # no stub: an answer
BODIES = ("block", "statement_block", "compound_statement", "constructor_body")
FUNCTION = re.compile(r"function|method|constructor|closure|lambda|func_literal")
ABSTRACT = re.compile(r"\b(?:Protocol|ABC|ABCMeta)\b")
DECLARES = re.compile(r"\b(?:abstract\w*|overload)\b")


@dataclass(frozen=True, slots=True)
class Stub:
    """Characters [start, end) stand for code. `hole` is what to mask."""

    start: int
    end: int
    kind: str  # "marker", "ellipsis", "pass", "raise", "throw", "todo" or "empty"
    multi_line: bool
    title: str
    hole: Hole
    before: str = ""  # stays between what is seen and what is written: a wish keeps its line to itself


def find_stubs(code: Code, path: str | PurePath = "") -> list[Stub]:
    """Every place to be filled, in order; none lies in another."""
    found = {stub.start: stub for stub in _markers(code)}
    if PurePath(path).suffix.lower() != ".pyi":
        for match in CANDIDATES.get(code.language, CANDIDATES[""]).finditer(code.text):
            stub = (_python if code.language == "python" else _braced)(code, *match.span())
            if stub is not None:
                found.setdefault(stub.start, stub)
    return sorted(found.values(), key=lambda stub: stub.start)


def _markers(code: Code) -> Iterator[Stub]:
    for match in MARKER.finditer(code.text):
        leaf = next(code.round(*match.span()))
        if not re.search("comment|string|char|regex|template", leaf.type):
            yield _stub(code, *match.span(), "marker", "Fill ???")


def _stub(code: Code, start: int, end: int, kind: str, title: str, note: str = "") -> Stub:
    """Alone on its line, but for a semicolon, it gives way to any number of lines: see `canvas.reach_of`."""
    behind = code.text[end : Spot(code.text, end).line[1]]
    alone = not Spot(code.text, start).head.strip() and not behind.strip(" \t;")
    hole = Hole(start, end + len(behind.rstrip()) if alone else end)
    return Stub(start, end, kind, alone, f"{title}: {note}"[:80] if note else title, hole)


def _body(code: Code, start: int, end: int, kind: str, owner: Node | None, note: str = "") -> Stub:
    name = owner.child_by_field_name("name") if owner is not None else None
    inner = owner.child_by_field_name("declarator") if owner is not None and name is None else None
    while inner is not None:  # C: the name is in a function declarator, and that perhaps in a pointer's
        name, inner = inner, inner.child_by_field_name("declarator")
    return _stub(code, start, end, kind, f"Fill the body of {code.spelt(name)}" if name else "Fill the body", note)


# ---- Python


def _python(code: Code, start: int, end: int) -> Stub | None:
    leaf, *around = code.round(start, end)
    if leaf.type == "comment":
        return _only_a_comment(code, leaf)
    if leaf.type == "ellipsis":
        return (
            _sole_python(code, around[0], "ellipsis") if around and around[0].type == "expression_statement" else None
        )
    statement = next((n for n in (leaf, *around) if n.type in ("pass_statement", "raise_statement")), None)
    if statement is None or statement.parent is None:
        return None
    if statement.type == "raise_statement":
        if not re.match(r"raise\s+NotImplementedError\b", code.spelt(statement)):
            return None
        return _sole_python(code, statement, "raise") or _noted(code, statement, "raise")
    return _noted(code, statement, "pass")


def _sole_python(code: Code, statement: Node, kind: str) -> Stub | None:
    """The only statement of a function, its docstring aside, where the function is not one without a body by nature."""
    block = statement.parent
    owner = block.parent if block is not None else None
    if block is None or owner is None or owner.type != "function_definition" or _by_nature(code, owner):
        return None
    others = [n for n in block.named_children if n.type != "comment" and n != statement]
    if len(others) > 1 or (others and not _is_docstring(others[0])):
        return None
    note = _comment_behind(code, statement)
    end = code.span(note or statement)[1]
    return _body(code, code.span(statement)[0], end, kind, owner, _words(code, note))


def _is_docstring(node: Node) -> bool:
    return node.type == "expression_statement" and [n.type for n in node.named_children] == ["string"]


def _by_nature(code: Code, function: Node) -> bool:
    """Declared, not written: a protocol's or an abstract class's method, an overload, one for type checkers alone."""
    node: Node | None = function.parent
    if node is not None and node.type == "decorated_definition":
        if any(DECLARES.search(code.spelt(n)) for n in node.named_children if n.type == "decorator"):
            return True
        node = node.parent
    while node is not None and node.type != "function_definition":
        bases = node.child_by_field_name("superclasses") if node.type == "class_definition" else None
        if bases is not None and ABSTRACT.search(code.spelt(bases)):
            return True
        condition = node.child_by_field_name("condition") if node.type == "if_statement" else None
        if condition is not None and "TYPE_CHECKING" in code.spelt(condition):
            return True
        node = node.parent
    return False


def _noted(code: Code, statement: Node, kind: str) -> Stub | None:
    """A statement that a TODO behind it, or a `pass` that one right above it, says to be a placeholder."""
    start, end = code.span(statement)
    behind, above = _comment_behind(code, statement), Spot(code.text, start).above.strip()
    if behind is None and not (kind == "pass" and above.startswith("#") and TODO.search(above)):
        return None
    owner = statement.parent.parent if statement.parent is not None else None
    named = owner if owner is not None and owner.type == "function_definition" else None
    last = code.span(behind)[1] if behind is not None else end
    return _body(code, start, last, kind, named, _words(code, behind) or above.strip("# "))


def _comment_behind(code: Code, statement: Node) -> Node | None:
    """A TODO behind the statement on its line."""
    node = statement.next_named_sibling
    same_line = node is not None and node.start_point[0] == statement.end_point[0]
    return node if node is not None and same_line and node.type == "comment" and TODO.search(code.spelt(node)) else None


def _only_a_comment(code: Code, comment: Node) -> Stub | None:
    """A block that holds nothing but a TODO: no block to Python, so the lines decide."""
    start, end = code.span(comment)
    spot = Spot(code.text, start)
    if spot.head.strip() or not spot.head or not TODO.search(code.spelt(comment)):
        return None
    above = next((n for n in lines_above(code.text, spot.line[0], 50) if not n.lstrip().startswith("#")), "")
    depth = len(indentation(above))
    if not opens_body(above, "python") or len(spot.head) <= depth:
        return None
    for line in lines_below(code.text, spot.line[1], 50):
        if not line.lstrip().startswith("#") or len(indentation(line)) <= depth:
            if len(indentation(line)) > depth:
                return None
            break
        end = code.text.index(line, end) + len(line)
    title = re.match(r"\s*(?:async\s+)?def\s+(\w+)", above)
    title_text = f"Fill the body of {title[1]}" if title else "Fill the body"
    return Stub(
        start, end, "empty", True, f"{title_text}: {_words(code, comment)}"[:80], Hole(end, end), f"\n{spot.head}"
    )


def _words(code: Code, comment: Node | None) -> str:
    return code.spelt(comment).strip("#/* \t\r\n") if comment is not None else ""


# ---- the others


def _braced(code: Code, start: int, end: int) -> Stub | None:
    around = list(code.round(start, end))
    comment = next((n for n in around if "comment" in n.type), None)
    if comment is not None:
        return _empty_braces(code, comment) if TODO.search(code.spelt(comment)) else None
    macro = next((n for n in around if n.type == "macro_invocation"), None)
    if code.language == "rust" and macro is not None:
        is_todo = re.match(r"(?:todo|unimplemented)!", code.spelt(macro))
        return _body(code, *code.span(macro), "todo", _owner(macro)) if is_todo else None
    for node in around:
        if (block := _block(node)) is not None and block.parent is not None:
            return _gives_up(code, node, block)
    return None


def _gives_up(code: Code, statement: Node, block: Node) -> Stub | None:
    """The only statement of a function's body, and it says that there is none yet."""
    said = code.spelt(statement)
    kept = UNSUPPORTED.match(said) and not FOR_GOOD.search(said)
    siblings = (n for n in (statement.parent or block).named_children if "comment" not in n.type)
    owner = block.parent
    if (
        not (GIVES_UP.match(said) or kept)
        or len(list(siblings)) != 1
        or owner is None
        or not FUNCTION.search(owner.type)
    ):
        return None
    return _body(code, *code.span(statement), "throw", owner)


def _block(node: Node) -> Node | None:
    """The body that `node` is a statement of."""
    parent = node.parent
    if parent is not None and parent.type == "statement_list":
        parent = parent.parent
    return parent if parent is not None and parent.type in BODIES else None


def _owner(node: Node) -> Node | None:
    """The function that has just this one thing in its body."""
    while node.parent is not None and node.parent.named_child_count == 1 and not FUNCTION.search(node.type):
        node = node.parent
    if node.type == "block" and node.parent is not None:
        node = node.parent
    return node if FUNCTION.search(node.type) else None


def _empty_braces(code: Code, comment: Node) -> Stub | None:
    """A body that holds nothing but a TODO, which stays: it says what is wanted."""
    block = comment.parent
    if block is None or block.type not in BODIES or any("comment" not in n.type for n in block.named_children):
        return None
    start, end = code.span(comment)[0], code.span(block.named_children[-1])[1]
    while end > start and code.text[end - 1] in "\r\n":  # Rust's doc comments take their line end in
        end -= 1
    owner = block.parent if block.parent is not None and FUNCTION.search(block.parent.type) else None
    found = _body(code, start, end, "empty", owner, _words(code, comment))
    before = f"\n{Spot(code.text, start).head}" if found.multi_line else ""
    return Stub(start, end, "empty", found.multi_line, found.title, Hole(end, end), before)
