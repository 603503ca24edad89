"""Which names JavaScript, TypeScript, Go, Rust, Java, C and C++ bind, by tables over their syntax trees.

Less exact than Python's: no overloads, no preprocessor, no glob imports, types and values share one space of names.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from diffcode.lsp.bindings import Collector, Member, Scope
from diffcode.syntax import Code, Node


@dataclass(frozen=True, slots=True)
class Table:
    """How a language declares names. A rule is (node, field or "" for the node itself, where).

    where: "here" in the scope that the node opens or else stands in, "outer" in the one it stands in, "function" in the
    function round it; "later": here, and only behind the node; "behind": only behind the name; "anew": as later,
    hiding one of the same scope.
    """

    functions: frozenset[str]
    blocks: frozenset[str]
    rules: dict[str, tuple[tuple[str, str], ...]]
    members: dict[str, tuple[str, str]]  # node: fields of what has the member, and of the member's name


def _table(functions: str, blocks: str, rules: str, members: str) -> Table:
    """From words: "node.field>where" and "node.of.name"."""
    by_node: dict[str, tuple[tuple[str, str], ...]] = {}
    for rule in rules.split():
        place, where = rule.split(">")
        node, _, field = place.partition(".")
        by_node[node] = (*by_node.get(node, ()), (field, where))
    parts = (member.split(".") for member in members.split())
    return Table(
        frozenset(functions.split()), frozenset(blocks.split()), by_node, {n: (of, name) for n, of, name in parts}
    )


_SCRIPT = _table(
    "function_declaration function_expression arrow_function method_definition generator_function class_static_block "
    "generator_function_declaration function_signature method_signature abstract_method_signature function_type "
    "call_signature construct_signature",
    "statement_block for_statement for_in_statement catch_clause switch_body class_declaration class "
    "abstract_class_declaration interface_declaration type_alias_declaration",
    "function_declaration.name>outer generator_function_declaration.name>outer function_signature.name>outer "
    "function_expression.name>here generator_function.name>here class_declaration.name>outer class.name>here "
    "abstract_class_declaration.name>outer interface_declaration.name>outer type_alias_declaration.name>outer "
    "enum_declaration.name>here formal_parameters>here arrow_function.parameter>here catch_clause.parameter>here "
    "import_specifier>here namespace_import>here import_clause>here type_parameter.name>here",
    "member_expression.object.property",
)
TABLES = {
    "javascript": _SCRIPT,
    "typescript": _SCRIPT,
    "tsx": _SCRIPT,
    "go": _table(
        "function_declaration method_declaration func_literal",
        "block if_statement for_statement expression_switch_statement type_switch_statement expression_case type_case "
        "default_case communication_case",
        "function_declaration.name>outer type_spec.name>here type_alias.name>here const_spec.name>later "
        "var_spec.name>later parameter_declaration.name>here variadic_parameter_declaration.name>here "
        "short_var_declaration.left>later range_clause.left>here type_switch_statement.alias>here "
        "import_spec.name>here type_parameter_declaration.name>here",
        "selector_expression.operand.field",
    ),
    "rust": _table(
        "function_item closure_expression function_signature_item",
        "block match_arm if_expression while_expression for_expression impl_item trait_item mod_item struct_item "
        "enum_item type_item",
        "function_item.name>outer function_signature_item.name>outer let_declaration.pattern>anew "
        "parameter.pattern>here closure_parameters>here for_expression.pattern>here match_pattern>here "
        "let_condition.pattern>anew "
        "const_item.name>here static_item.name>here struct_item.name>outer enum_item.name>outer trait_item.name>outer "
        "type_item.name>outer mod_item.name>outer use_as_clause.alias>here type_parameter.name>here "
        "use_declaration>here",
        "field_expression.value.field",
    ),
    "java": _table(
        "method_declaration constructor_declaration lambda_expression",
        "block constructor_body for_statement enhanced_for_statement catch_clause try_with_resources_statement "
        "switch_block_statement_group class_body interface_body enum_body class_declaration interface_declaration",
        "method_declaration.name>outer class_declaration.name>outer interface_declaration.name>outer "
        "enum_declaration.name>here record_declaration.name>here variable_declarator.name>here "
        "formal_parameter.name>here catch_formal_parameter.name>here resource.name>here "
        "enhanced_for_statement.name>here "
        "lambda_expression.parameters>here type_parameter>here enum_constant.name>here",
        "field_access.object.field method_invocation.object.name",
    ),
    "cpp": _table(
        "function_definition lambda_expression",
        "compound_statement for_statement for_range_loop catch_clause if_statement while_statement switch_statement "
        "template_declaration",
        "function_definition.declarator>outer parameter_declaration.declarator>here "
        "optional_parameter_declaration.declarator>here variadic_parameter_declaration.declarator>here "
        "declaration.declarator>behind for_range_loop.declarator>here type_definition.declarator>here "
        "struct_specifier.name>here enum_specifier.name>here union_specifier.name>here class_specifier.name>here "
        "enumerator.name>here preproc_def.name>here preproc_function_def.name>here alias_declaration.name>here "
        "type_parameter_declaration>here",
        "field_expression.argument.field",
    ),
}
TABLES["c"] = TABLES["cpp"]

NAMES = (
    "identifier", "type_identifier", "package_identifier", "shorthand_property_identifier",
    "shorthand_property_identifier_pattern", "shorthand_field_identifier",
)  # fmt: skip
# Fields of a pattern that hold no target, and nodes that name something elsewhere.
NO_TARGET = ("type", "right", "key", "size", "default_value", "parameters", "condition", "path")
NO_TARGETS = (
    "qualified_identifier", "scoped_identifier", "scoped_type_identifier", "type_annotation", "block", "named_imports",
    "use_as_clause",
)  # fmt: skip
WITH_VALUE = ("required_parameter", "optional_parameter", "init_declarator", "type_parameter", "const_parameter")
PATHS = ("scoped_identifier", "scoped_type_identifier", "qualified_identifier")
MATCHES = ("match_pattern", "let_condition", "let_declaration", "for_expression", "closure_parameters", "parameter")


class OtherNames(Collector):
    def __init__(self, code: Code):
        super().__init__(code)
        self.table = TABLES[code.language]

    def visit(self, node: Node, scope: Scope) -> list[tuple[Node, Scope]]:
        if node.type in NAMES:
            if node.start_byte in self.binders or not self._names_elsewhere(node):
                self.record(node, scope, self._key(node))
            return []
        inner = scope
        if node.type in self.table.functions:
            inner = self.scope("function", scope, node)
        elif node.type in self.table.blocks or _is_prototype(node):
            inner = self.scope("class" if node.type in ("class_body", "enum_body") else "block", scope, node)
        self._declarations(node, scope, inner)
        children = node.named_children
        of, name = (node.child_by_field_name(field) for field in self.table.members.get(node.type, ("?", "?")))
        if of is not None and name is not None:
            self.members.append(Member(name, self.code.spelt(name), of, scope))
            children = [child for child in children if child != name]
        return [(child, inner) for child in children]

    def _declarations(self, node: Node, scope: Scope, inner: Scope) -> None:
        for field, where in self._rules(node):
            target = {"outer": scope, "function": inner.nearest("function")}.get(where, inner)
            late = where in ("later", "anew") and target.kind != "module"
            close = where == "behind" and target.kind != "module"
            for part in node.children_by_field_name(field) if field else [node]:
                for name in self._targets(part, node.type in MATCHES):
                    since = node.end_byte if late else name.end_byte if close else 0
                    self.binders[name.start_byte] = (target, since, where == "anew")

    def _rules(self, node: Node) -> tuple[tuple[str, str], ...]:
        rules = self.table.rules.get(node.type, ())
        if node.type == "variable_declarator" and not rules and node.parent is not None:  # JavaScript
            return (("name", "function" if node.parent.type == "variable_declaration" else "here"),)
        if node.type == "for_in_statement" and (kind := node.child_by_field_name("kind")) is not None:
            return (("left", "function" if self.code.spelt(kind) == "var" else "here"),)
        is_use = node.type in ("struct_specifier", "enum_specifier", "union_specifier", "class_specifier")
        return () if is_use and node.child_by_field_name("body") is None else rules

    def _targets(self, node: Node, match: bool) -> Iterator[Node]:
        """The names in a pattern, a declarator or an import. What is capital in a Rust match is a constant."""
        if node.type in NAMES:
            if not (match and self.code.language == "rust" and self.code.spelt(node)[:1].isupper()):
                yield node
        elif node.type == "import_specifier":
            yield node.child_by_field_name("alias") or node.named_children[0]
        elif node.type == "use_declaration":
            yield from _used(node)
        elif node.type not in NO_TARGETS:
            for i, child in enumerate(node.children):
                field = node.field_name_for_child(i)
                skipped = field in NO_TARGET or (field == "value" and node.type in WITH_VALUE)
                if child.is_named and not skipped:
                    yield from self._targets(child, match)

    def _names_elsewhere(self, node: Node) -> bool:
        """A part of a path, a field of a literal, a name in another file: nothing that a scope here decides."""
        parent = node.parent
        if parent is None or parent.type == "package_clause":
            return True
        if parent.type in PATHS:
            return parent.child_by_field_name("name") == node
        if parent.type in ("import_specifier", "use_as_clause"):
            return True
        if parent.type == "export_specifier":
            of = parent.parent.parent if parent.parent is not None else None
            has_source = of is not None and of.child_by_field_name("source") is not None
            return has_source or parent.child_by_field_name("alias") == node
        if parent.type == "literal_element" and parent.parent is not None and parent.parent.type == "keyed_element":
            literal = parent.parent.parent.parent if parent.parent.parent is not None else None
            of = literal.child_by_field_name("type") if literal is not None else None
            return parent.parent.named_children[0] == parent and not (of is not None and of.type == "map_type")
        before = node.prev_sibling  # what a Rust macro gets are bare tokens
        return parent.type == "token_tree" and before is not None and before.type == "."

    def _key(self, node: Node) -> str:
        """Java: a method and a field may share a name."""
        parent = node.parent
        is_method = parent is not None and parent.type in ("method_declaration", "method_invocation")
        own = is_method and parent is not None and parent.child_by_field_name("name") == node
        return f"{self.code.spelt(node)}()" if own else self.code.spelt(node)


def _used(node: Node) -> Iterator[Node]:
    """The names that a Rust `use` brings in, those with an alias left to their own rule."""
    stack = list(node.named_children)
    while stack:
        here = stack.pop()
        if here.type == "scoped_identifier" and (name := here.child_by_field_name("name")) is not None:
            yield name
        elif here.type in NAMES:
            yield here
        elif here.type == "scoped_use_list" and (listed := here.child_by_field_name("list")) is not None:
            stack.append(listed)
        elif here.type == "use_list":
            stack += here.named_children


def _is_prototype(node: Node) -> bool:
    """A C declarator with parameters and no body: they are seen nowhere else."""
    if node.type != "function_declarator":
        return False
    outer = node.parent
    while outer is not None and outer.type.endswith("_declarator"):
        outer = outer.parent
    return outer is None or outer.type != "function_definition"
