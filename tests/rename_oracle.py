"""Renames of Python done on its own syntax tree, with CPython's own symbol tables: nothing here knows tree-sitter."""

import ast
import re
import symtable
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass
class Place:
    line: int
    column: int  # bytes
    binds: bool
    rename: Callable[[str, bool], None]  # new name, whether it is the one that the user typed over
    simple: bool = True  # its place in the text is known and what stands there is the name


@dataclass
class Variable:
    name: str
    scope: str  # "module", "function" or "class"
    places: list[Place] = field(default_factory=list)

    @property
    def first(self) -> Place:
        return min((p for p in self.places if p.binds), key=lambda p: (p.line, p.column))


def variables(source: str) -> tuple[ast.Module, list[Variable]]:
    """The tree, and every variable that the source binds; renaming one changes the tree."""
    tree = ast.parse(source)
    walk = _Walk(source)
    walk.visit(tree)
    return tree, [v for v in walk.found.values() if any(p.binds for p in v.places)]


class _Walk(ast.NodeVisitor):
    """Goes through the tree in the order in which CPython makes its tables, so that each is met at its node."""

    def __init__(self, source: str):
        self.lines = source.split("\n")
        top = symtable.symtable(source, "<text>", "exec")
        self.tables = [top]
        self.children: dict[int, Iterator[symtable.SymbolTable]] = {}
        self.found: dict[tuple[int, str], Variable] = {}
        self.exported: dict[str, list[ast.Constant]] = defaultdict(list)

    # ---- tables

    def enter(self, name: str, line: int) -> None:
        here = self.tables[-1]
        table = next(self.children.setdefault(here.get_id(), iter(here.get_children())))
        assert (table.get_name(), table.get_lineno()) == (name, line), "the orders differ"
        self.tables.append(table)

    def home(self, name: str) -> symtable.SymbolTable:
        symbol = self.tables[-1].lookup(name)
        if symbol.is_global() or len(self.tables) == 1:
            return self.tables[0]
        if symbol.is_local() and not symbol.is_free():
            return self.tables[-1]
        for table in reversed(self.tables[1:-1]):
            if table.get_type() == "function" and name in table.get_identifiers():
                above = table.lookup(name)
                if above.is_local() and not above.is_free():
                    return table
        raise AssertionError(name)

    def note(self, name: str, place: Place) -> None:
        table = self.home(name)
        found = self.found.setdefault((table.get_id(), name), Variable(name, str(table.get_type())))
        found.places.append(place)

    # ---- names

    def visit_Name(self, node: ast.Name) -> None:
        binds = not isinstance(node.ctx, ast.Load)
        self.note(node.id, Place(node.lineno, node.col_offset, binds, lambda new, _: setattr(node, "id", new)))

    def visit_Global(self, node: ast.Global | ast.Nonlocal) -> None:
        for i, name in enumerate(node.names):
            place = Place(node.lineno, node.col_offset, False, lambda new, _, i=i: node.names.__setitem__(i, new))
            self.note(name, place)

    visit_Nonlocal = visit_Global

    def visit_alias(self, node: ast.alias) -> None:
        name = node.asname or node.name.split(".")[0]
        if name == "*":
            return

        def rename(new: str, typed: bool) -> None:
            if node.asname or not typed:
                node.asname = new
            else:
                node.name = ".".join([new, *node.name.split(".")[1:]])

        column = node.end_col_offset - len(node.asname.encode()) if node.asname else node.col_offset
        self.note(name, Place(node.lineno, column, True, rename, simple="." not in node.name or bool(node.asname)))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module != "__future__":
            self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.type:
            self.visit(node.type)
        if node.name:
            end = node.type.end_col_offset
            self.note(
                node.name, Place(node.type.end_lineno, end, True, lambda new, _: setattr(node, "name", new), False)
            )
        for child in node.body:
            self.visit(child)

    def visit_MatchAs(self, node: ast.MatchAs | ast.MatchStar) -> None:
        self.generic_visit(node)
        if node.name:
            place = Place(node.lineno, node.col_offset, True, lambda new, _: setattr(node, "name", new), False)
            self.note(node.name, place)

    visit_MatchStar = visit_MatchAs

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        self.generic_visit(node)
        if node.rest:
            place = Place(node.lineno, node.col_offset, True, lambda new, _: setattr(node, "rest", new), False)
            self.note(node.rest, place)

    def visit_Assign(self, node: ast.Assign | ast.AugAssign) -> None:
        self.generic_visit(node)
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if len(self.tables) == 1 and any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
            for child in ast.walk(node.value):
                if isinstance(child, ast.Constant) and isinstance(child.value, str):
                    place = Place(
                        child.lineno, child.col_offset, False, lambda new, _, c=child: setattr(c, "value", new)
                    )
                    key = (self.tables[0].get_id(), child.value)
                    self.found.setdefault(key, Variable(child.value, "module")).places.append(place)

    visit_AugAssign = visit_Assign

    # ---- scopes, in the order of Python/symtable.c

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.named(node)
        self.each(node.args.defaults, node.args.kw_defaults)
        arguments = self.arguments(node.args)
        self.each([a.annotation for a in arguments], [node.returns], node.decorator_list)
        self.enter(node.name, node.lineno)
        self.parameters(arguments)
        self.each(node.body)
        self.tables.pop()

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.each(node.args.defaults, node.args.kw_defaults)
        self.enter("lambda", node.lineno)
        self.parameters(self.arguments(node.args))
        self.visit(node.body)
        self.tables.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.named(node)
        self.each(node.bases, node.keywords, node.decorator_list)
        self.enter(node.name, node.lineno)
        self.each(node.body)
        self.tables.pop()

    def visit_Try(self, node: ast.Try) -> None:
        self.each(node.body, node.orelse, node.handlers, node.finalbody)

    visit_TryStar = visit_Try

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        self.visit(node.target)

    def comprehension(self, node: ast.expr, name: str, *parts: ast.expr) -> None:
        first, *others = node.generators
        self.visit(first.iter)
        self.enter(name, node.lineno)
        self.visit(first.target)
        self.each(first.ifs, others, parts)
        self.tables.pop()

    def visit_ListComp(self, node: ast.ListComp) -> None:
        self.comprehension(node, "listcomp", node.elt)

    def visit_SetComp(self, node: ast.SetComp) -> None:
        self.comprehension(node, "setcomp", node.elt)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        self.comprehension(node, "genexpr", node.elt)

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self.comprehension(node, "dictcomp", node.value, node.key)

    # ---- small things

    def named(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        line = self.lines[node.lineno - 1].encode()
        head = re.compile(rb"\s*(?:(?:async\s+)?def|class)\s+").match(line, node.col_offset)
        self.note(node.name, Place(node.lineno, head.end(), True, lambda new, _: setattr(node, "name", new)))

    def arguments(self, args: ast.arguments) -> list[ast.arg]:
        listed = [*args.posonlyargs, *args.args, args.vararg, args.kwarg, *args.kwonlyargs]
        return [arg for arg in listed if arg is not None]

    def parameters(self, arguments: list[ast.arg]) -> None:
        for arg in arguments:
            self.note(arg.arg, Place(arg.lineno, arg.col_offset, True, lambda new, _, a=arg: setattr(a, "arg", new)))

    def each(self, *lists: object) -> None:
        for node in (node for nodes in lists for node in nodes if node is not None):
            self.visit(node)
