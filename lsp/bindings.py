"""Names of a text and what they are bound to: scopes, bindings, uses. How languages declare names is not known here."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from diffcode.syntax import Code, Node

ScopeKind = Literal["module", "function", "class", "block"]


@dataclass(eq=False, slots=True)
class Scope:
    kind: ScopeKind
    parent: "Scope | None"
    node: Node
    bound: dict[str, list["Binding"]] = field(default_factory=dict)
    globals: set[str] = field(default_factory=set)
    nonlocals: set[str] = field(default_factory=set)

    def chain(self) -> Iterable["Scope"]:
        """This scope and those round it, innermost first."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent

    @property
    def module(self) -> "Scope":
        return list(self.chain())[-1]

    def nearest(self, *kinds: ScopeKind) -> "Scope":
        return next((scope for scope in self.chain() if scope.kind in kinds), self.module)


@dataclass(eq=False, slots=True)
class Binding:
    """One variable, function, class ...: what a name means in a scope, from byte `since` on."""

    name: str
    scope: Scope
    since: int = 0


@dataclass(eq=False, slots=True)
class Name:
    """One place where a name is written. `home` is what it means, None for what the file does not bind."""

    node: Node
    text: str
    scope: Scope
    binds: bool = False
    home: Binding | None = None

    @property
    def start(self) -> int:
        return self.node.start_byte


@dataclass(frozen=True, slots=True)
class Member:
    """One place `of.name`: an attribute or a field."""

    node: Node  # of the name
    text: str
    of: Node
    scope: Scope


class Names:
    """All names of a code, resolved."""

    def __init__(self, code: Code, names: list[Name], members: list[Member], scopes: list[Scope]):
        self.code, self.names, self.members, self.scopes = code, names, members, scopes
        self.at = {name.start: name for name in names}
        self.member_at = {member.node.start_byte: member for member in members}
        self._of: dict[int, list[Name]] = defaultdict(list)
        for name in names:
            self._of[id(name.home)].append(name)

    def of(self, binding: Binding) -> list[Name]:
        """Every place of one binding, in order."""
        return self._of[id(binding)]

    def within(self, scope: Scope) -> list[Name]:
        """Every name written in a scope or in those inside it."""
        return [name for name in self.names if any(scope is outer for outer in name.scope.chain())]


class Collector(ABC):
    """One pass over a tree. A language says in `visit` what a node declares and in which scope its children stand."""

    sees_class_names = True  # from within a method, by the bare name

    def __init__(self, code: Code):
        self.code = code
        self.names: list[Name] = []
        self.members: list[Member] = []
        self.scopes: list[Scope] = []
        # Start byte of a name that binds: in which scope, from which byte on, and whether it hides one of that scope.
        self.binders: dict[int, tuple[Scope, int, bool]] = {}

    @abstractmethod
    def visit(self, node: Node, scope: Scope) -> list[tuple[Node, Scope]]:
        """Note what `node` says; its children that are to be visited, each with its scope."""

    def run(self) -> Names:
        stack = [(self.code.root, self.scope("module", None, self.code.root))]
        while stack:
            node, scope = stack.pop()
            stack.extend(reversed(self.visit(node, scope)))
        for name in self.names:
            if name.home is None:
                name.home = self.resolve(name)
        names = sorted(self.names, key=lambda name: name.start)
        return Names(self.code, names, self.members, self.scopes)

    def scope(self, kind: ScopeKind, parent: Scope | None, node: Node) -> Scope:
        self.scopes.append(Scope(kind, parent, node))
        return self.scopes[-1]

    def record(self, node: Node, scope: Scope, text: str = "") -> None:
        """A name, which binds if it was marked before."""
        name = Name(node, text or self.code.spelt(node), scope)
        if node.start_byte in self.binders:
            name.binds = True
            name.home = self.declare(name.text, *self.binders[node.start_byte])
        self.names.append(name)

    def declare(self, text: str, scope: Scope, since: int = 0, anew: bool = False) -> Binding | None:
        """The binding of `text` in `scope`; None where it is another scope's (nonlocal), to be resolved later."""
        if text in scope.nonlocals:
            return None
        target = scope.module if text in scope.globals else scope
        known = target.bound.setdefault(text, [])
        if not known or anew:
            known.append(Binding(text, target, since))
        return known[-1]

    def resolve(self, name: Name) -> Binding | None:
        for scope in name.scope.chain():
            if name.text in scope.globals:
                return next(iter(scope.module.bound.get(name.text, ())), None)
            hidden = scope.kind == "class" and scope is not name.scope and not self.sees_class_names
            known = [b for b in scope.bound.get(name.text, ()) if b.since <= name.start]
            if known and not hidden:
                return known[-1]
        return None
