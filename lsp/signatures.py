"""Functions of a code: their parameters, their calls, what they return."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from diffcode.lsp.bindings import Binding, Name, Names
from diffcode.lsp.members import class_of
from diffcode.syntax import Code, Node, walk

FUNCTIONS = (
    "function_definition", "function_declaration", "method_definition", "function_item", "method_declaration",
    "constructor_declaration", "generator_function_declaration", "function_expression", "arrow_function",
)  # fmt: skip
CALLS = {
    "call": "function",
    "call_expression": "function",
    "new_expression": "constructor",
    "method_invocation": "name",
    "object_creation_expression": "type",
}
OPEN_ENDED = ("list_splat", "dictionary_splat", "spread_element", "variadic_argument", "ERROR", "generator_expression")
VARIADIC = ("list_splat_pattern", "dictionary_splat_pattern", "rest_pattern", "spread_parameter", "variadic")
OPTIONAL = ("default_parameter", "typed_default_parameter", "optional_parameter", "assignment_pattern")


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    optional: bool
    variadic: bool
    keyword_only: bool
    node: Node


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a call. `keyword`: its name, "" for a positional one."""

    node: Node
    keyword: str


def functions(nodes: Iterable[Node]) -> list[Node]:
    return [node for node in nodes if node.type in FUNCTIONS and parameters_node(node) is not None]


def parameters_node(function: Node) -> Node | None:
    found = function.child_by_field_name("parameters")
    declarator = function.child_by_field_name("declarator")
    while found is None and declarator is not None:  # C
        found, declarator = declarator.child_by_field_name("parameters"), declarator.child_by_field_name("declarator")
    return found


def name_node(function: Node) -> Node | None:
    """The identifier that names a function, also that of the variable an arrow function is given to."""
    name = function.child_by_field_name("name")
    declarator = function.child_by_field_name("declarator")
    while name is None and declarator is not None:
        inner = declarator.child_by_field_name("declarator")
        name, declarator = (declarator, None) if inner is None else (None, inner)
    if name is None and function.parent is not None and function.parent.type == "variable_declarator":
        name = function.parent.child_by_field_name("name")
    return name


def parameters(names: Names, function: Node) -> list[Parameter]:
    """In order; a method's own object is left out."""
    listed = parameters_node(function)
    found: list[Parameter] = []
    keyword_only = False
    for node in listed.named_children if listed is not None else ():
        if node.type in ("keyword_separator", "list_splat_pattern"):
            keyword_only = True
        bound = [n for n in _inside(names, node) if n.binds]
        if not bound and node.type != "ERROR":
            continue
        text = names.code.spelt(node)
        variadic = (text.startswith(("*", "...")) and names.code.language != "c") or node.type in VARIADIC
        optional = node.type in OPTIONAL or node.child_by_field_name("value") is not None
        plain = node.type not in ("object_pattern", "array_pattern", "tuple_pattern")
        for name in bound if plain and not optional and names.code.language == "go" else bound[:1]:
            found.append(Parameter(name.text, optional, variadic, keyword_only and not variadic, node))
    return found[1:] if found and takes_itself(names.code, function) else found


def takes_itself(code: Code, function: Node) -> bool:
    """True if the first parameter is the object: a Python method that is not static."""
    owner = function.parent
    decorators: list[str] = []
    if owner is not None and owner.type == "decorated_definition":
        decorators = [code.spelt(n) for n in owner.named_children if n.type == "decorator"]
        owner = owner.parent
    in_class = owner is not None and owner.parent is not None and owner.parent.type == "class_definition"
    return code.language == "python" and in_class and not any("staticmethod" in d for d in decorators)


def _inside(names: Names, node: Node) -> list[Name]:
    leaves = (child for child in walk(node) if child.start_byte in names.at)
    return [name for child in leaves if (name := names.at[child.start_byte]).node == child]


def binding_of(names: Names, function: Node) -> Binding | None:
    name = name_node(function)
    found = names.at.get(name.start_byte) if name is not None else None
    return found.home if found is not None and found.binds else None


def calls(names: Names, function: Node) -> Iterator[tuple[Node, bool]]:
    """Calls of a function, and whether they surely are: a method not called on itself is known by its name alone."""
    name = name_node(function)
    if name is None:
        return
    title, owner = names.code.spelt(name), class_of(function)
    is_method = takes_itself(names.code, function) or function.type == "method_definition"
    if title in ("__init__", "constructor") and owner is not None:
        of = owner.child_by_field_name("name")
        known = names.at.get(of.start_byte) if of is not None else None
        uses = names.of(known.home) if known is not None and known.home is not None else []
        yield from ((call, True) for use in uses if (call := called_by(use.node)) is not None)
        return
    binding = binding_of(names, function)
    if binding is not None and not (is_method and binding.scope.kind == "class"):
        for use in names.of(binding):
            if not use.binds and (call := called_by(use.node)) is not None:
                yield call, True
    rivals = [f for f in functions(walk(names.code.root)) if f != function and _is_named(names.code, f, title)]
    for member in names.members if is_method else ():
        call = called_by(member.node.parent) if member.text == title and member.node.parent is not None else None
        if call is None:
            continue
        sure = class_of(call) == owner and names.code.spelt(member.of) in ("self", "cls", "this")
        if sure or not rivals:
            yield call, sure


def _is_named(code: Code, function: Node, title: str) -> bool:
    name = name_node(function)
    return name is not None and code.spelt(name) == title


def called_by(node: Node | None) -> Node | None:
    """The call of which `node` is what is called."""
    call = node.parent if node is not None else None
    field = CALLS.get(call.type) if call is not None else None
    return call if call is not None and field is not None and call.child_by_field_name(field) == node else None


def arguments(code: Code, call: Node) -> list[Argument] | None:
    """A call's arguments; None where some cannot be told (`*args`), or where there are no brackets."""
    listed = call.child_by_field_name("arguments")
    if listed is None or not code.spelt(listed).startswith("("):
        return None
    found = []
    for node in listed.named_children:
        if node.type in OPEN_ENDED or "comment" in node.type:
            return None
        name = node.child_by_field_name("name") if node.type == "keyword_argument" else None
        found.append(Argument(node, code.spelt(name) if name is not None else ""))
    return found


def returns(function: Node) -> list[Node]:
    """The return statements of a function, those of functions inside it left out."""
    body = function.child_by_field_name("body")
    stack, found = [body] if body is not None else [], []
    while stack:
        node = stack.pop()
        if node.type == "return_statement":
            found.append(node)
        elif node.type not in FUNCTIONS and node.type not in ("lambda", "class_definition"):
            stack.extend(reversed(node.named_children))
    return found


def arity(statement: Node) -> int:
    """How many values a return gives: 0 for none, 1 unless it spells several."""
    if not statement.named_children:
        return 0
    value = statement.named_children[0]
    return value.named_child_count if value.type in ("expression_list", "tuple") else 1
