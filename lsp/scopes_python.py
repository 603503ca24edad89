"""Which names Python code binds and where they are seen: the language reference, section 4.2, on a syntax tree."""

from collections.abc import Callable

from diffcode.lsp.bindings import Collector, Member, Scope
from diffcode.syntax import Code, Node

Visits = list[tuple[Node, Scope]]

# What a target is taken apart by; anything else in one (an attribute, a subscript) is a use.
UNPACKS = (
    "pattern_list", "tuple_pattern", "list_pattern", "tuple", "list", "list_splat_pattern", "list_splat",
    "as_pattern_target", "expression_list", "parenthesized_expression", "dictionary_splat_pattern", "splat_pattern",
)  # fmt: skip


class PythonNames(Collector):
    sees_class_names = False

    def __init__(self, code: Code):
        super().__init__(code)
        self.comprehensions: set[int] = set()  # ids of scopes: a walrus binds outside them
        self.visitors: dict[str, Callable[[Node, Scope], Visits]] = {
            "function_definition": self.function,
            "lambda": self.function,
            "class_definition": self.class_,
            "list_comprehension": self.comprehension,
            "set_comprehension": self.comprehension,
            "dictionary_comprehension": self.comprehension,
            "generator_expression": self.comprehension,
            "import_statement": self.imports,
            "import_from_statement": self.imports,
            "future_import_statement": lambda node, scope: [],
            "global_statement": self.elsewhere,
            "nonlocal_statement": self.elsewhere,
            "attribute": self.attribute,
            "keyword_argument": lambda node, scope: self.fields(node, scope, "value"),
            "named_expression": self.walrus,
            "dotted_name": self.pattern_name,
            "keyword_pattern": lambda node, scope: [(child, scope) for child in node.named_children[1:]],
            "type_alias_statement": self.type_alias,
        }

    def visit(self, node: Node, scope: Scope) -> Visits:
        if node.type == "identifier":
            self.record(node, scope)
            return []
        if visitor := self.visitors.get(node.type):
            return visitor(node, scope)
        if node.type in ("assignment", "augmented_assignment", "for_statement", "for_in_clause"):
            self.targets(node.child_by_field_name("left"), scope)
        elif node.type in ("delete_statement", "as_pattern_target", "splat_pattern"):
            for child in node.named_children:
                self.targets(child, scope)
        elif node.type == "as_pattern":
            self.targets(node.named_children[-1], scope)  # in a case it is a plain name
        return [(child, scope) for child in node.named_children]

    def targets(self, node: Node | None, scope: Scope) -> None:
        """Mark the names that an assignment to `node` binds."""
        stack = [node] if node is not None else []
        while stack:
            here = stack.pop()
            if here.type == "identifier":
                self.binders[here.start_byte] = (scope, 0, False)
            elif here.type in UNPACKS:
                stack += here.named_children

    def fields(self, node: Node, scope: Scope, *names: str) -> Visits:
        return [(child, scope) for name in names if (child := node.child_by_field_name(name)) is not None]

    def function(self, node: Node, scope: Scope) -> Visits:
        """Defaults and annotations are read outside; decorators never come here."""
        self.targets(node.child_by_field_name("name"), scope)
        outer = self.type_parameters(node, scope)
        inner = self.scope("function", outer, node)
        visits = self.fields(node, scope, "name") + self.fields(node, outer, "type_parameters", "return_type")
        parameters = node.child_by_field_name("parameters")
        for parameter in parameters.named_children if parameters is not None else ():
            visits += self.parameter(parameter, outer, inner)
        return visits + self.fields(node, inner, "body")

    def parameter(self, node: Node, outer: Scope, inner: Scope) -> Visits:
        name = node.child_by_field_name("name") or node
        if node.type == "typed_parameter":
            name = node.named_children[0]
        self.targets(name, inner)
        if name is node:
            return [(node, inner)]
        return [(name, inner), *((child, outer) for child in node.named_children if child != name)]

    def type_parameters(self, node: Node, scope: Scope) -> Scope:
        """The scope of `[T, *Ts]`, between a function or class and what is round it."""
        listed = node.child_by_field_name("type_parameters")
        if listed is None:
            return scope
        inner = self.scope("function", scope, node)
        for child in listed.named_children:
            first = child
            while first.type != "identifier" and first.named_children:
                first = first.named_children[0]
            self.targets(first, inner)
        return inner

    def class_(self, node: Node, scope: Scope) -> Visits:
        self.targets(node.child_by_field_name("name"), scope)
        outer = self.type_parameters(node, scope)
        visits = self.fields(node, scope, "name") + self.fields(node, outer, "type_parameters", "superclasses")
        return visits + self.fields(node, self.scope("class", outer, node), "body")

    def type_alias(self, node: Node, scope: Scope) -> Visits:
        first = node.child_by_field_name("left")
        while first is not None and first.type != "identifier":
            first = first.named_children[0] if first.named_children else None
        self.targets(first, scope)
        return [(child, scope) for child in node.named_children]

    def comprehension(self, node: Node, scope: Scope) -> Visits:
        """The first iterable is read outside."""
        inner = self.scope("function", scope, node)
        self.comprehensions.add(id(inner))
        visits: Visits = []
        first = next((child for child in node.named_children if child.type == "for_in_clause"), None)
        for child in node.named_children:
            if child != first:
                visits.append((child, inner))
                continue
            self.targets(child.child_by_field_name("left"), inner)
            outside = child.children_by_field_name("right")
            visits += [(part, scope if part in outside else inner) for part in child.named_children]
        return visits

    def walrus(self, node: Node, scope: Scope) -> Visits:
        target = next(s for s in scope.chain() if id(s) not in self.comprehensions)
        self.targets(node.child_by_field_name("name"), target)
        return [(child, scope) for child in node.named_children]

    def imports(self, node: Node, scope: Scope) -> Visits:
        """`import a.b` binds a; `import a.b as c` and `from a import b as c` bind c."""
        visits: Visits = []
        for item in node.children_by_field_name("name"):
            name = item.child_by_field_name("alias") if item.type == "aliased_import" else item.named_children[0]
            self.targets(name, scope)
            visits += [(name, scope)] if name is not None else []
        return visits

    def elsewhere(self, node: Node, scope: Scope) -> Visits:
        names = {self.code.spelt(child) for child in node.named_children}
        if node.type == "global_statement":
            scope.globals |= names
            for name in names:
                self.declare(name, scope)
        else:
            scope.nonlocals |= names
        return [(child, scope) for child in node.named_children]

    def attribute(self, node: Node, scope: Scope) -> Visits:
        of, name = node.child_by_field_name("object"), node.child_by_field_name("attribute")
        if of is None or name is None:
            return []
        self.members.append(Member(name, self.code.spelt(name), of, scope))
        return [(of, scope)]

    def pattern_name(self, node: Node, scope: Scope) -> Visits:
        """In a case a bare name is bound, a dotted one is looked up, as is a class before its arguments."""
        first, *others = node.named_children
        parent = node.parent
        is_class = parent is not None and parent.type == "class_pattern"
        if not others and not is_class and parent is not None and "pattern" in parent.type:
            self.targets(first, scope)
        return [(first, scope)]
