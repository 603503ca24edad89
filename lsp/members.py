"""Attributes of classes: which a class defines, and where in it they are used."""

import re
from collections.abc import Iterator

from diffcode.lsp.bindings import Member, Name, Names, Scope
from diffcode.syntax import Code, Node

CLASSES = (
    "class_definition",
    "class_declaration",
    "class",
    "abstract_class_declaration",
    "class_specifier",
    "struct_specifier",
)
ITSELF = ("self", "cls", "this", "super()")
DEFINED = (
    "field_definition",
    "public_field_definition",
    "method_definition",
)  # JavaScript, TypeScript: named in the body


def class_of(node: Node) -> Node | None:
    """The class that `node` stands in."""
    here = node.parent
    while here is not None and here.type not in CLASSES:
        here = here.parent
    return here


def is_itself(names: Names, member: Member) -> bool:
    """True for `self.x` and its like: what a method's first parameter is called is the author's choice."""
    spelt = names.code.spelt(member.of)
    if spelt in ITSELF:
        return True
    function = member.scope.nearest("function").node
    parameters = function.child_by_field_name("parameters")
    first = parameters.named_children[0] if parameters is not None and parameters.named_children else None
    in_class = names.code.language == "python" and class_of(function) is not None and _is_method(function)
    return in_class and first is not None and names.code.spelt(first) == spelt


def _is_method(function: Node) -> bool:
    outer = function.parent
    if outer is not None and outer.type == "decorated_definition":
        outer = outer.parent
    return outer is not None and outer.parent is not None and outer.parent.type == "class_definition"


def is_target(member: Member) -> bool:
    """True if something is assigned to the member."""
    here = member.node.parent
    while (
        here is not None and here.parent is not None and here.parent.type in ("pattern_list", "tuple_pattern", "tuple")
    ):
        here = here.parent
    statement = here.parent if here is not None else None
    assigns = statement is not None and "assignment" in statement.type and "augmented" not in statement.type
    return assigns and statement is not None and statement.child_by_field_name("left") == here


def definitions(names: Names, owner: Node, text: str) -> list[Node]:
    """Places where class `owner` defines attribute `text`: in its body, or by assigning to itself. In order."""
    return sorted(_definitions(names, owner, text), key=lambda node: node.start_byte)


def _definitions(names: Names, owner: Node, text: str) -> Iterator[Node]:
    for name in class_names(names, owner, text):
        if name.binds:
            yield name.node
    for member in _called(names, text):
        if class_of(member.node) == owner and is_itself(names, member) and is_target(member):
            yield member.node
    yield from _declared(names.code, owner, text)


def _declared(code: Code, owner: Node, text: str) -> Iterator[Node]:
    body = owner.child_by_field_name("body")
    for child in body.named_children if body is not None else ():
        name = child.child_by_field_name("property") or child.child_by_field_name("name")
        if child.type in DEFINED and name is not None and code.spelt(name) == text:
            yield name


def class_names(names: Names, owner: Node, text: str) -> list[Name]:
    """Names of the class body itself."""
    scope = class_scope(names, owner)
    known = scope.bound.get(text, []) if scope is not None else []
    return [name for binding in known for name in names.of(binding)]


def class_scope(names: Names, owner: Node) -> Scope | None:
    return next((scope for scope in names.scopes if scope.kind == "class" and owner_of(scope) == owner), None)


def owner_of(scope: Scope) -> Node | None:
    """The class of a class scope: Java's is that of the body."""
    return scope.node if scope.node.type in CLASSES else scope.node.parent


def has_fields(code: Code, owner: Node) -> bool:
    """True for a Python class whose annotations make its constructor."""
    bases = owner.child_by_field_name("superclasses")
    made = bases is not None and re.search(r"\b(?:NamedTuple|TypedDict|BaseModel|Struct)\b", code.spelt(bases))
    outer = owner.parent
    decorated = outer is not None and outer.type == "decorated_definition"
    listed = (
        [code.spelt(n) for n in outer.named_children if n.type == "decorator"]
        if outer is not None and decorated
        else []
    )
    return bool(made) or any(re.search(r"\b(?:dataclass|define|frozen|attrs|attr)\b", text) for text in listed)


def uses(names: Names, owner: Node, text: str) -> tuple[list[Node], list[Node]]:
    """Places of the attribute: those that are surely this class's, and those that may be another's."""
    name = owner.child_by_field_name("name")
    title = names.code.spelt(name) if name is not None else ""
    sure = [name.node for name in class_names(names, owner, text)] + list(_declared(names.code, owner, text))
    maybe, family = [], _family(names, owner, text)
    for member in _called(names, text):
        inside = class_of(member.node) in family and is_itself(names, member)
        if inside or names.code.spelt(member.of) == title:
            sure.append(member.node)
        elif not is_itself(names, member):
            maybe.append(member.node)
    return sure, maybe


def _called(names: Names, text: str) -> Iterator[Member]:
    """Members of this name; Java's methods, which are spelt `f()` here, are others than its fields."""
    for member in names.members:
        call = member.node.parent is not None and member.node.parent.type == "method_invocation"
        if member.text + "()" * call == text:
            yield member


def _family(names: Names, owner: Node, text: str) -> list[Node]:
    """The class and those made from it, by name, that do not define the attribute anew."""
    found = [owner]
    for node in found:
        name = node.child_by_field_name("name")
        title = names.code.spelt(name) if name is not None else ""
        for other in all_classes(names) if title else ():
            if other not in found and title in _bases(names.code, other) and not definitions(names, other, text):
                found.append(other)
    return found


def _bases(code: Code, owner: Node) -> list[str]:
    heads = [n for n in owner.named_children if n.type in ("argument_list", "class_heritage", "superclass")]
    return re.findall(r"\w+", " ".join(code.spelt(head) for head in heads))


def all_classes(names: Names) -> list[Node]:
    owners = [owner_of(scope) if scope.kind == "class" else class_of(scope.node) for scope in names.scopes]
    owners += [scope.node for scope in names.scopes if scope.node.type in CLASSES]
    return list({owner.id: owner for owner in owners if owner is not None}.values())
