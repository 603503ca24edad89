"""Ripples of an edit: after a rename or a change of signature, the other places of the file that must follow.

A rename is exact: scopes are known, so no model is needed. What calls must pass, or how many values are taken from one,
is for the model; these places come as holes.
"""

import keyword
import re
from collections.abc import Iterator
from typing import Literal

from diffcode.holes import Hole
from diffcode.lsp import members
from diffcode.lsp.bindings import Binding, Name, Names
from diffcode.lsp.changes import Changes, Pair, renamed_tokens
from diffcode.lsp.places import Edit, Place, Ripple, in_order
from diffcode.lsp.ripple_calls import changed_parameters, changed_returns
from diffcode.lsp.scopes import names_of
from diffcode.lsp.signatures import FUNCTIONS, called_by, calls, parameters_node
from diffcode.syntax import LANGUAGES, Code, Node, walk

__all__ = ["Place", "Ripple", "ripples"]

IMPORTS = ("import_statement", "import_from_statement")
FIELD = r":(?:param|parameter|arg|argument|key|keyword|type)(?:[ \t]+[^:\n]*?)?[ \t]+({})[ \t]*:"


def ripples(before: str, after: str, language: str | None) -> tuple[Ripple, ...]:
    """What the edit from `before` to `after` asks for, be it one or several small ones; holes are in `after`."""
    if before == after or language not in LANGUAGES:
        return ()
    changes = Changes(Code(before, language), Code(after, language))
    edit = Edit(changes, names_of(changes.before))
    found = [*_renames(edit), *_imports(edit), *changed_parameters(edit), *changed_returns(edit)]
    return tuple(ripple for ripple in found if ripple.places)


# ---- renames


def _renames(edit: Edit) -> Iterator[Ripple]:
    done: set[int] = set()
    for pair in renamed_tokens(edit.changes):
        name = edit.names.at.get(edit.byte(pair.before.start))
        home = name.home if name is not None and name.binds else None
        if (owner := _owner(edit, pair, home)) is not None:
            yield from _attribute(edit, pair, owner, "()" if home is not None and home.name.endswith("()") else "")
        elif name is not None and home is not None and id(home) not in done:
            done.add(id(home))
            if _is_rename(edit.names, home, name, pair.new):
                yield _ripple(pair, "rename", _rename(edit, home, pair))


def _ripple(pair: Pair, kind: Literal["rename", "attribute"], places: tuple[Place, ...]) -> Ripple:
    title = f"Rename {pair.old} to {pair.new} in {len(places)} other place{'s' * (len(places) != 1)}"
    return Ripple(kind, pair.old, pair.new, title, places)


def _is_rename(names: Names, home: Binding, name: Name, new: str) -> bool:
    """The first place that binds was changed, and the new name means nothing yet where the old one is seen."""
    first = min(n.start for n in names.of(home) if n.binds)
    return name.start == first and not keyword.iskeyword(new) and not _clashes(names, home, new)


def _clashes(names: Names, home: Binding, new: str) -> bool:
    spelt = new + "()" * home.name.endswith("()")
    return any(name.text == spelt for name in names.within(home.scope))


def _rename(edit: Edit, home: Binding, pair: Pair) -> tuple[Place, ...]:
    places = [edit.place(name.node, _written(edit.names.code, name.node, pair)) for name in edit.names.of(home)]
    function = home.scope.node
    if function.type in FUNCTIONS and _is_parameter(edit, function, home):
        places += _keywords(edit, calls(edit.names, function), pair)
        places += _documented(edit, function, pair)
    if home.scope.kind == "module" and edit.names.code.language == "python":
        places += _exported(edit, pair)
    return in_order(places)


def _written(code: Code, node: Node, pair: Pair) -> str | None:
    """The new name as it must stand at `node`: `{a}` of JavaScript or Rust is a field and a variable at once."""
    parent = node.parent
    if parent is not None and parent.type in ("dotted_name", "import_specifier") and _is_imported(parent):
        return f"{pair.old} as {pair.new}" if parent.named_child_count == 1 else None
    short = node.type.startswith("shorthand") or (parent is not None and parent.type == "shorthand_field_initializer")
    if short:
        return f"{pair.old}: {pair.new}"
    if parent is not None and parent.type == "export_specifier" and parent.child_by_field_name("alias") is None:
        return f"{pair.new} as {pair.old}"
    return pair.new


def _is_imported(item: Node) -> bool:
    """True for an imported name without an alias: another file says how it is called."""
    return item.parent is not None and item.parent.type in (*IMPORTS, "named_imports")


def _is_parameter(edit: Edit, function: Node, home: Binding) -> bool:
    listed = parameters_node(function)
    return listed is not None and any(
        name.binds and listed.start_byte <= name.start < listed.end_byte for name in edit.names.of(home)
    )


def _keywords(edit: Edit, found: Iterator[tuple[Node, bool]], pair: Pair) -> Iterator[Place | None]:
    """`f(old=1)` at the calls of a function whose parameter, or a class whose field, has a new name."""
    for call, sure in found:
        listed = call.child_by_field_name("arguments")
        for argument in listed.named_children if listed is not None else ():
            name = argument.child_by_field_name("name") if argument.type == "keyword_argument" else None
            if name is not None and edit.names.code.spelt(name) == pair.old:
                yield edit.place(name, pair.new, sure)


def _documented(edit: Edit, function: Node, pair: Pair) -> Iterator[Place | None]:
    """`:param old:` in the function's docstring."""
    body = function.child_by_field_name("body")
    first = body.named_children[0] if body is not None and body.named_children else None
    if first is None or not first.named_children or first.named_children[0].type != "string":
        return
    start, _ = edit.names.code.span(first)
    for match in re.finditer(FIELD.format(re.escape(pair.old)), edit.names.code.spelt(first)):
        hole = edit.changes.moved(start + match.start(1), start + match.end(1))
        yield Place(hole, pair.new) if hole is not None else None


def _exported(edit: Edit, pair: Pair) -> Iterator[Place | None]:
    """The name in `__all__`: the only string that means a variable."""
    for name in edit.names.names:
        statement = name.node.parent if name.text == "__all__" and name.binds else None
        for node in walk(statement) if statement is not None else ():
            if node.type == "string_content" and edit.names.code.spelt(node) == pair.old:
                yield edit.place(node, pair.new)


# ---- attributes


def _owner(edit: Edit, pair: Pair, home: Binding | None) -> Node | None:
    """The class whose attribute was renamed where it is defined."""
    if home is not None:
        return members.owner_of(home.scope) if home.scope.kind == "class" else None
    member = edit.names.member_at.get(edit.byte(pair.before.start))
    if member is not None:
        of_class = members.is_itself(edit.names, member) and members.is_target(member)
        return members.class_of(member.node) if of_class else None
    leaf = next(edit.names.code.round(pair.before.start, pair.before.end))
    declared = leaf.parent is not None and leaf.parent.type in members.DEFINED
    return members.class_of(leaf) if declared else None


def _attribute(edit: Edit, pair: Pair, owner: Node, call: str) -> Iterator[Ripple]:
    names, old = edit.names, pair.old + call
    defined = members.definitions(names, owner, old)
    is_first = bool(defined) and defined[0].start_byte == edit.byte(pair.before.start)
    if (
        not is_first
        or members.definitions(names, owner, pair.new + call)
        or pair.old.startswith("__")
        or keyword.iskeyword(pair.new)
    ):
        return
    sure, maybe = members.uses(names, owner, old)
    if any(members.definitions(names, other, old) for other in members.all_classes(names) if other != owner):
        maybe = []
    places = [edit.place(node, pair.new) for node in sure] + [edit.place(node, pair.new, False) for node in maybe]
    if members.has_fields(names.code, owner):
        places += _keywords(edit, _constructed(edit, owner), pair)
    yield _ripple(pair, "attribute", in_order(places))


def _constructed(edit: Edit, owner: Node) -> Iterator[tuple[Node, bool]]:
    name = owner.child_by_field_name("name")
    known = edit.names.at.get(name.start_byte) if name is not None else None
    for use in edit.names.of(known.home) if known is not None and known.home is not None else ():
        if (call := called_by(use.node)) is not None:
            yield call, True


# ---- imports


def _imports(edit: Edit) -> Iterator[Ripple]:
    """An import that binds another name than before: an alias added, taken away or changed."""
    old, new = (_imported(code, window) for code, window in _sides(edit.changes))
    if len(old) != len(new):
        return
    for (name, was), now in zip(old, new, strict=True):
        pair = Pair(Hole(0, 0), Hole(0, 0), was, now[1])
        known = edit.names.at.get(name.start_byte)
        replaced = any(edit.byte(p.before.start) == name.start_byte for p in renamed_tokens(edit.changes))
        if was == pair.new or replaced or known is None or known.home is None:
            continue
        if _clashes(edit.names, known.home, pair.new.split(".")[0]):
            continue
        uses = [use.node for use in edit.names.of(known.home) if not use.binds]
        nodes = [node for use in uses if (node := _dotted(edit.names.code, use, was)) is not None]
        yield _ripple(
            pair, "rename", in_order(edit.place(node, _written(edit.names.code, node, pair)) for node in nodes)
        )


def _sides(changes: Changes) -> tuple[tuple[Code, tuple[int, int]], tuple[Code, tuple[int, int]]]:
    return (changes.before, changes.window_before), (changes.after, changes.window_after)


def _imported(code: Code, window: tuple[int, int]) -> list[tuple[Node, str]]:
    """For every item imported on these lines, what binds its name and how it is used: `a.b` of `import a.b`."""
    found = []
    for node in code.touching(*window):
        if node.type not in IMPORTS:
            continue
        for item in walk(node):
            name = item.child_by_field_name("alias")
            plain = item.type == "dotted_name" and item in node.children_by_field_name("name")
            if name is None and (plain or item.type == "import_specifier") and item.named_children:
                found.append((item.named_children[0], code.spelt(item)))
            elif name is not None and item.type in ("aliased_import", "import_specifier"):
                found.append((name, code.spelt(name)))
    return found


def _dotted(code: Code, use: Node, dotted: str) -> Node | None:
    """The whole `a.b` that `use` is the first name of."""
    node = use
    while code.spelt(node) != dotted:
        parent = node.parent
        if parent is None or parent.type != "attribute" or not dotted.startswith(code.spelt(node) + "."):
            return None
        node = parent
    return node
