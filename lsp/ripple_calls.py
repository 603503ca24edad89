"""What follows a change of a function: calls when parameters come, go or move; returns when their number changes."""

from collections.abc import Iterator, Sequence

from diffcode.holes import Hole
from diffcode.lsp.places import Edit, Place, Ripple, in_order
from diffcode.lsp.scopes import names_of
from diffcode.lsp.signatures import (
    Argument,
    Parameter,
    arguments,
    arity,
    calls,
    functions,
    name_node,
    parameters,
    parameters_node,
    returns,
)
from diffcode.syntax import Node


def changed_parameters(edit: Edit) -> Iterator[Ripple]:
    after = None
    for function, now in _changed(edit):
        listed = parameters_node(function)
        if listed is None or not edit.changes.touched(*edit.changes.before.span(listed)):
            continue
        after = after or names_of(edit.changes.after)
        old, new = parameters(edit.names, function), parameters(after, now)
        if places := _follow(edit, function, old, new):
            name = _title(edit, function)
            written = ", ".join(p.name for p in old), ", ".join(p.name for p in new)
            yield Ripple("parameters", *written, f"Update calls of {name} to its new parameters", places)


def _changed(edit: Edit) -> Iterator[tuple[Node, Node]]:
    """Functions with an edit in them, and what each of them is now."""
    now = {}
    for node in functions(edit.changes.after.touching(*edit.changes.window_after)):
        name = name_node(node)
        if name is not None:
            now[edit.changes.after.span(name)[0]] = node
    for node in functions(edit.changes.before.touching(*edit.changes.window_before)):
        name = name_node(node)
        if name is None:
            continue
        place = edit.changes.place_of(edit.changes.before.span(name)[0])
        if place in now:
            yield node, now[place]


def _title(edit: Edit, function: Node) -> str:
    name = name_node(function)
    return edit.names.code.spelt(name) if name is not None else "it"


def _follow(edit: Edit, function: Node, old: Sequence[Parameter], new: Sequence[Parameter]) -> tuple[Place, ...]:
    """Places at the calls, and uses of a parameter that is gone."""
    names_before, names_now = [p.name for p in old], [p.name for p in new]
    renamed = {p.old: p.new for p in edit.changes.pairs if p.new in names_now and p.new not in names_before}
    kept = [renamed.get(name, name) for name in names_before]
    gone = [p for p, name in zip(old, kept, strict=True) if name not in names_now]
    needed = [
        p for p in new if not p.optional and not p.variadic and (p.name not in kept or _was_optional(p, old, kept))
    ]
    moved = [name for name in kept if name in names_now] != [name for name in names_now if name in kept]
    places: list[Place | None] = []
    for call, sure in calls(edit.names, function) if gone or needed or moved else ():
        places += _call(edit, call, sure, [(p, n) for p, n in zip(old, kept, strict=True)], new, needed, moved)
    for parameter in gone:
        places += _orphans(edit, function, parameter)
    return in_order(places)


def _was_optional(parameter: Parameter, old: Sequence[Parameter], kept: Sequence[str]) -> bool:
    return any(p.optional for p, name in zip(old, kept, strict=True) if name == parameter.name)


def _orphans(edit: Edit, function: Node, gone: Parameter) -> list[Place | None]:
    """Uses of a parameter that is no more: something else must stand there."""
    scopes = [scope for scope in edit.names.scopes if scope.node == function and gone.name in scope.bound]
    uses = [name for scope in scopes for name in edit.names.of(scope.bound[gone.name][0])]
    parameters_end = parameters_node(function)
    if parameters_end is None or any(u.binds and u.start > parameters_end.end_byte for u in uses):
        return []  # it lives on as a variable
    return [edit.place(use.node, None) for use in uses if not use.binds]


def _call(
    edit: Edit,
    call: Node,
    sure: bool,
    old: Sequence[tuple[Parameter, str]],
    new: Sequence[Parameter],
    needed: Sequence[Parameter],
    moved: bool,
) -> list[Place | None]:
    """What must be done to one call: exact where arguments only go or change places, else for the model."""
    given = arguments(edit.names.code, call)
    positional = [a for a in given or () if not a.keyword]
    slots = [(p, name) for p, name in old if not p.keyword_only and not p.variadic]
    if given is None or len(positional) > len(slots):
        return [_whole(edit, call, sure)]
    passed = {name: argument for (_, name), argument in zip(slots, positional, strict=False)}
    passed |= {name: a for a in given for p, name in old if a.keyword in (p.name, name)}
    passed |= {p.name: a for a in given for p in new if a.keyword == p.name}  # the user has been there
    unknown = [a for a in given if a.keyword and a not in passed.values()]
    stay = {p.name for p in new}
    drop = [a for name, a in passed.items() if name not in stay]
    missing = [p for p in needed if p.name not in passed]
    if unknown or (moved and (drop or missing)) or (drop and missing):
        return [_whole(edit, call, sure)]
    if moved:
        return _reordered(edit, call, positional, passed, new, sure)
    if drop:
        return [_removed(edit, call, given, argument, sure) for argument in drop]
    return [_added(edit, call, given, missing, new, sure)] if missing else []


def _whole(edit: Edit, call: Node, sure: bool) -> Place | None:
    """All that stands between the brackets of a call."""
    listed = call.child_by_field_name("arguments")
    if listed is None:
        return None
    start, end = edit.names.code.span(listed)
    hole = edit.changes.moved(start, end)
    return Place(Hole(hole.start + 1, hole.end - 1), None, sure) if hole is not None else None


def _reordered(
    edit: Edit,
    call: Node,
    positional: Sequence[Argument],
    passed: dict[str, Argument],
    new: Sequence[Parameter],
    sure: bool,
) -> list[Place | None]:
    """Each positional argument gives way to the one that belongs there now."""
    order = [passed[p.name] for p in new if p.name in passed and not passed[p.name].keyword]
    leading = [p.name for p in new if not p.keyword_only][: len(positional)]
    if any(name not in passed or passed[name].keyword for name in leading):
        return [_whole(edit, call, sure)]  # one would now have to be named
    code = edit.names.code
    swaps = [(a, b) for a, b in zip(positional, order, strict=True) if a is not b]
    return [edit.place(a.node, code.spelt(b.node), sure) for a, b in swaps]


def _removed(edit: Edit, call: Node, given: Sequence[Argument], argument: Argument, sure: bool) -> Place | None:
    """An argument with the comma before it, or behind it if it is the first."""
    code, place = edit.names.code, given.index(argument)
    start, end = code.span(argument.node)
    if place:
        start = code.span(given[place - 1].node)[1]
    elif len(given) > 1:
        end = code.span(given[1].node)[0]
    hole = edit.changes.moved(start, end)
    return Place(hole, "", sure) if hole is not None else None


def _added(
    edit: Edit,
    call: Node,
    given: Sequence[Argument],
    missing: Sequence[Parameter],
    new: Sequence[Parameter],
    sure: bool,
) -> Place | None:
    """A gap for one new argument, with its comma and, where those before it are named or left out, its name."""
    listed = call.child_by_field_name("arguments")
    if len(missing) > 1 or listed is None or edit.changes.touched(*edit.names.code.span(listed)):
        return _whole(edit, call, sure)
    code, parameter = edit.names.code, missing[0]
    index = [p.name for p in new].index(parameter.name)
    positional = [a for a in given if not a.keyword]
    named = parameter.keyword_only or index > len(positional)
    if named and code.language != "python":
        return _whole(edit, call, sure)
    index = len(given) if named else index
    lead = f"{parameter.name}=" if named else ""
    if index:
        at = edit.changes.offset(code.span(given[index - 1].node)[1], behind=True)
        return Place(Hole(at, at), None, sure, f", {lead}") if at is not None else None
    at = edit.changes.offset(code.span(listed)[0] + 1, behind=True)
    return Place(Hole(at, at), None, sure, lead, ", " if given else "") if at is not None else None


# ---- returns


def changed_returns(edit: Edit) -> Iterator[Ripple]:
    """A function that gives another number of values: its other returns, and where they are taken apart."""
    for function, now in _changed(edit):
        old, new = returns(function), returns(now)
        if len(old) != len(new):
            continue
        grown = [(arity(a), arity(b)) for a, b in zip(old, new, strict=True) if arity(a) != arity(b)]
        if not grown or 0 in grown[0]:
            continue
        was, is_now = grown[0]
        others = [a.named_children[0] for a, b in zip(old, new, strict=True) if arity(a) == arity(b) == was]
        places = [edit.place(node, None) for node in others]
        places += [edit.place(node, None, was > 1) for node in _taken(edit, function, was)]
        title = f"Follow {_title(edit, function)}, which returns {is_now} value{'s' * (is_now > 1)} now"
        yield Ripple("returns", str(was), str(is_now), title, in_order(places))


def _taken(edit: Edit, function: Node, count: int) -> Iterator[Node]:
    """What the function's values are assigned to, where that is as many names."""
    for call, _ in calls(edit.names, function):
        statement = call.parent
        if statement is not None and statement.type == "expression_list":  # Go
            statement = statement.parent
        left = statement.child_by_field_name("left") if statement is not None else None
        if left is None or statement is None or "augmented" in statement.type:
            continue
        several = left.type in ("pattern_list", "tuple_pattern", "expression_list", "list_pattern")
        if (left.named_child_count if several else 1) == count:
            yield left
