"""`multihole`: HumanEval solutions with 2 to 4 spans missing that depend on each other.

A group of spans is a local name's binding and its uses, or a helper's body and its calls. Every group makes a problem:
the binding or body is taken out, and 1 to 3 of the uses or calls by a seeded draw. See evals/README.md.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol

from diffcode import syntax
from diffcode.evals import derive
from diffcode.evals.problems import Problem

SEED = 0
MOST_HOLES = 4
LONGEST = 200  # bytes of a span: a benchmark of several places, not of long ones

PATTERNS = {"pattern_list", "tuple_pattern", "list_pattern"}
ASSIGNMENTS = {"assignment", "augmented_assignment"}
COMPREHENSION_PARTS = {"for_in_clause", "if_clause"}


class Node(Protocol):
    """What is used of tree-sitter's nodes; only diffcode.syntax knows that package."""

    @property
    def type(self) -> str: ...
    @property
    def text(self) -> bytes | None: ...
    @property
    def start_byte(self) -> int: ...
    @property
    def end_byte(self) -> int: ...
    @property
    def parent(self) -> "Node | None": ...
    @property
    def named_children(self) -> "Sequence[Node]": ...
    def child_by_field_name(self, name: str, /) -> "Node | None": ...


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Bytes of the code."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Group:
    """Spans that depend on each other through one name."""

    kind: str  # "variable" or "helper"
    name: str
    origin: Span  # the binding, or the helper's body
    uses: tuple[Span, ...]  # in order, none touches another or the origin


def make(seed: int = SEED) -> Iterator[Problem]:
    """One problem for every group, the same for the same seed."""
    for problem in derive.human_eval():
        code = problem.filled(problem.solutions)
        rng = random.Random(f"{seed}/{problem.task_id}")
        seen: set[tuple[str, ...]] = set()
        for group in groups(code, problem.entry_point):
            uses = rng.sample(group.uses, rng.randint(1, min(MOST_HOLES - 1, len(group.uses))))
            made = _without(problem, code, group, uses)
            if made.fixed not in seen:  # `for i, x in ...` binds two names
                seen.add(made.fixed)
                yield made


def _without(problem: Problem, code: str, group: Group, uses: Sequence[Span]) -> Problem:
    data, at = code.encode(), 0
    fixed, solutions = [], []
    for span in sorted((group.origin, *uses)):
        fixed.append(data[at : span.start].decode())
        solutions.append(data[span.start : span.end].decode())
        at = span.end
    task_id = f"MultiHole/{problem.task_id}/{group.name}"
    return Problem(task_id, (*fixed, data[at:].decode()), tuple(solutions), problem.test, problem.entry_point)


def groups(code: str, entry_point: str) -> list[Group]:
    """Every group of the function `entry_point` and of the helpers in and round it, in order of place."""
    nodes: list[Node] = list(syntax.walk(syntax.parse(code, "python").root_node))
    functions = {_text(name): n for n in nodes if n.type == "function_definition" and (name := _field(n, "name"))}
    entry = functions.pop(entry_point)
    names = [node for node in nodes if node.type == "identifier" and _is_occurrence(node)]
    inside = [node for node in names if _lies_in(node, entry)]
    nested = [function for function in functions.values() if _lies_in(function, entry)]
    shared = {_text(node) for node in inside for function in nested if _lies_in(node, function)}
    own = [node for node in inside if _text(node) not in shared]
    found = [*_variables(own), *_helpers(functions, names)]
    return sorted(found, key=lambda group: group.origin)


def _variables(names: Sequence[Node]) -> Iterator[Group]:
    """Names of one function that an assignment or a loop binds first, and that mean the same thing throughout."""
    elsewhere = {_text(node) for node in names if _is_parameter(node)}
    for name in dict.fromkeys(map(_text, names)):
        first, *uses = (node for node in names if _text(node) == name)
        origin = _binding(first)
        if origin and name not in elsewhere:
            # A second loop over the same name is about something else.
            uses = list(takewhile(lambda node: not _is_loop_head(node), uses))
            yield from _group("variable", name, origin, uses)


def _helpers(functions: Mapping[str, Node], names: Sequence[Node]) -> Iterator[Group]:
    for name, function in functions.items():
        calls = [node for node in names if _text(node) == name and not _lies_in(node, function)]
        if origin := _body(function):
            yield from _group("helper", name, origin, calls)


def _group(kind: str, name: str, origin: Span, uses: Sequence[Node]) -> Iterator[Group]:
    """The group, if the origin and a use are short enough to be holes, stand apart, and are more than the name."""
    kept = [origin]
    for span in sorted({_place(node) for node in uses}, key=lambda span: (span.start, -span.end)):
        apart = all(span.end < other.start or other.end < span.start for other in kept)
        if apart and len(name) < _length(span) <= LONGEST:
            kept.append(span)
    if _length(origin) <= LONGEST and len(kept) > 1:
        yield Group(kind, name, origin, tuple(kept[1:]))


def _binding(node: Node) -> Span | None:
    """The assignment, or the head of the loop, that gives this name its value; None if neither does."""
    while node.parent and node.parent.type in PATTERNS:
        node = node.parent
    owner = node.parent
    if not owner or _field(owner, "left") != node:
        return None
    if owner.type == "for_statement" and (right := _field(owner, "right")):
        return Span(node.start_byte, right.end_byte)
    return _place(node) if owner.type == "assignment" else None


def _is_loop_head(node: Node) -> bool:
    found = _binding(node)
    return found is not None and found != _place(node)


def _place(node: Node) -> Span:
    """The whole expression round a name, or the assignment to it."""
    while (owner := node.parent) and not _ends_expression(owner, node):
        node = owner
    return Span(node.start_byte, node.end_byte)


def _ends_expression(owner: Node, node: Node) -> bool:
    if owner.type in ASSIGNMENTS:
        return _field(owner, "right") == node
    statement = owner.type.endswith(("_statement", "_clause", "_definition")) or owner.type in ("block", "module")
    return statement and owner.type not in COMPREHENSION_PARTS


def _body(function: Node) -> Span | None:
    """The statements of a function behind its docstring."""
    body = _field(function, "body")
    statements = list(body.named_children) if body else []
    if statements and [child.type for child in statements[0].named_children] == ["string"]:
        statements = statements[1:]
    return Span(statements[0].start_byte, statements[-1].end_byte) if statements else None


def _is_occurrence(node: Node) -> bool:
    """Whether an identifier names a variable or function: no attribute, keyword or function being defined."""
    owner = node.parent
    if not owner:
        return False
    own_name = {"attribute": "attribute", "keyword_argument": "name", "function_definition": "name"}.get(owner.type)
    return not own_name or _field(owner, own_name) != node


def _is_parameter(node: Node) -> bool:
    """Whether a function, a lambda or a comprehension binds this name, or it is declared to live elsewhere."""
    while owner := node.parent:
        if owner.type in ("parameters", "lambda_parameters", "global_statement", "nonlocal_statement"):
            return True
        if owner.type == "for_in_clause" and _field(owner, "left") == node:
            return True
        node = owner
    return False


def _lies_in(node: Node, other: Node) -> bool:
    return other.start_byte <= node.start_byte and node.end_byte <= other.end_byte


def _field(node: Node, name: str) -> Node | None:
    return node.child_by_field_name(name)


def _text(node: Node) -> str:
    return (node.text or b"").decode()


def _length(span: Span) -> int:
    return span.end - span.start
