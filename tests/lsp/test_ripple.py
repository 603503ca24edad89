# ruff: noqa: E501  a case is a line before and a line after
"""What follows a rename or a change of signature; renames of real files against CPython's own symbol tables."""

import ast
import functools
import importlib.util
import re
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_texts import texts
from rename_oracle import Variable, variables

from diffcode.holes import apply_edits, check_holes
from diffcode.lsp.ripple import ripples
from diffcode.syntax import LANGUAGES

NEW = "zz_renamed"
MODULES = (
    "textwrap",
    "bisect",
    "heapq",
    "shlex",
    "csv",
    "contextlib",
    "dataclasses",
    "fractions",
    "string",
    "tempfile",
)

TRICKY = """
import os.path, sys as system
from a import (b, c as d)
x = 1
def f(x, y=x, *args, z: x = x, **kw):
    global g
    g = [x for x in x if (w := x)]
    def h(u):
        nonlocal y
        y = u + w
        return lambda y, q=y: y + u
    try:
        pass
    except E as err:
        print(err, f"{x!r:>{y}} {w}")
    for i, (j, *k) in z:
        del i
    with a as (m, n), b as o.p:
        kw.args = args
    return h, {i: j for i, j in k for k in i}
class A(b, metaclass=d):
    x = x
    y = [x for _ in x]
    def m(self, x: x = x):
        return x, self.x, A, g
    async def n(self):
        async with x as t:
            await t
match x:
    case A(x=q) | [q, *_]:
        print(q)
    case {"k": v, **rest} if v:
        rest = v
    case system.path as s:
        s += 1
g = os.path.join(x, g)
print(lambda *a, **b: (a, b), d, b)
"""


@functools.cache
def source_of(module: str) -> str:
    if module == "tricky":
        return TRICKY
    spec = importlib.util.find_spec(module)
    return Path(spec.origin).read_text(encoding="utf-8").replace("\r\n", "\n")


def eligible(source: str) -> list[Variable]:
    """Variables that only scopes decide about: attributes, keyword arguments and dotted imports are others' matter."""
    tree, found = variables(source)
    keywords = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    return [
        variable
        for variable in found
        if variable.scope != "class" and variable.name not in keywords and not variable.name.startswith("__")
        and variable.first.simple and not any(p.binds and not p.simple for p in variable.places if p is not variable.first)
        and not re.search(rf":\w+( \w+)? {variable.name}:", source)
    ]  # fmt: skip


def renamed_by_ast(source: str, name: str, line: int, column: int) -> str:
    tree, found = variables(source)
    (variable,) = (
        v for v in found if v.name == name and (v.first.line, v.first.column) == (line, column) and v.scope != "class"
    )
    first = variable.first
    for place in variable.places:
        place.rename(NEW, place is first)
    return ast.dump(tree)


def renamed_by_ripple(source: str, variable: Variable) -> str:
    lines = source.split("\n")
    line = lines[variable.first.line - 1].encode()
    start = variable.first.column
    assert line[start:].startswith(variable.name.encode())
    lines[variable.first.line - 1] = (
        line[:start] + NEW.encode() + line[start + len(variable.name.encode()) :]
    ).decode()
    after = "\n".join(lines)
    for ripple in ripples(source, after, "python"):
        assert (ripple.kind, ripple.old, ripple.new) == ("rename", variable.name, NEW)
        assert all(place.text is not None and place.sure for place in ripple.places)
        check_holes(after, [(place.hole.start, place.hole.end) for place in ripple.places])
        return apply_edits(
            after, [place.hole for place in ripple.places], [place.text or "" for place in ripple.places]
        )
    return after


def check_rename(source: str, variable: Variable) -> None:
    wanted = renamed_by_ast(source, variable.name, variable.first.line, variable.first.column)
    assert ast.dump(ast.parse(renamed_by_ripple(source, variable))) == wanted, (variable.name, variable.first)


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the oracle knows the tables of Python 3.11 and 3.12")
class TestAgainstSymbolTables:
    def test_every_variable_of_the_tricky_source(self):
        found = eligible(TRICKY)
        assert len(found) >= 20
        for variable in found:
            check_rename(TRICKY, variable)

    @given(st.sampled_from(MODULES), st.data())
    @settings(max_examples=60)
    def test_any_variable_of_real_modules(self, module: str, data: st.DataObject):
        source = source_of(module)
        found = eligible(source)
        check_rename(source, found[data.draw(st.integers(0, len(found) - 1))])


# ---- by hand: the edit is written as «old|new», what must follow as ‹text› (exact) or ⟦text⟧ (for the model), ? unsure


def taken_apart(marked: str) -> tuple[str, str]:
    before, after, rest = "", "", marked
    while "«" in rest:
        plain, rest = rest.split("«", 1)
        edit, rest = rest.split("»", 1)
        old, new = edit.split("|", 1)
        before, after = before + plain + old, after + plain + new
    return before + rest, after + rest


def shown(after: str, language: str, before: str) -> str:
    places = sorted((p for r in ripples(before, after, language) for p in r.places), key=lambda p: p.hole.start)
    check_holes(after, [(p.hole.start, p.hole.end) for p in places] or [(0, 0)])
    new = []
    for place in places:
        old = after[place.hole.start : place.hole.end]
        body = f"⟦{old}⟧" if place.text is None else f"‹{place.text}›"
        new.append(f"{place.before}{body}{place.behind}{'' if place.sure else '?'}")
    return apply_edits(after, [p.hole for p in places], new)


CASES = [
    # renames
    ("python", "def «f|g»(x):\n    return f(x - 1)\n\n\nf(2)  # f\nprint('f', a.f)\n",
     "def g(x):\n    return ‹g›(x - 1)\n\n\n‹g›(2)  # f\nprint('f', a.f)\n"),
    ("python", "def f(«a|b», c):\n    '''F.\n\n    :param a: it\n    :type a: int\n    '''\n    return a.a + [a for a in c]\n\nf(a=1, c=2)\ng(a=3)\n",
     "def f(b, c):\n    '''F.\n\n    :param ‹b›: it\n    :type ‹b›: int\n    '''\n    return ‹b›.a + [a for a in c]\n\nf(‹b›=1, c=2)\ng(a=3)\n"),
    ("python", "import «numpy|numpy as np»\nx = numpy.array(numpy)\n", "import numpy as np\nx = ‹np›.array(‹np›)\n"),
    ("python", "import numpy as «np|xp»\nx = np.array(1)\n", "import numpy as xp\nx = ‹xp›.array(1)\n"),
    ("python", "import «os.path|os.path as p»\nos.path.join(os.sep)\n", "import os.path as p\n‹p›.join(os.sep)\n"),
    ("python", "from a import «b|b as c»\nb(1)\n", "from a import b as c\n‹c›(1)\n"),
    ("python", "from a import «b|c»\nb(1)\n", "from a import c\n‹c›(1)\n"),
    ("python", "try:\n    import «a|z»\nexcept E:\n    import a\na.b\n", "try:\n    import z\nexcept E:\n    import ‹a as z›\n‹z›.b\n"),
    ("python", "__all__ = ['f', 'g']\n\ndef «f|h»(): pass\n", "__all__ = ['‹h›', 'g']\n\ndef h(): pass\n"),
    ("python", "«x|y» = 1\nz = «x|y» + 1\nprint(x, z)\n", "y = 1\nz = y + 1\nprint(‹y›, z)\n"),
    ("python", "é = 1\n«größe|size» = é\nprint(größe, '😀', größe)\n", "é = 1\nsize = é\nprint(‹size›, '😀', ‹size›)\n"),
    # no renames
    ("python", "x = 1\ny = 2\nprint(«x|y»)\nprint(x)\n", None),
    ("python", "x = 1\n«x|z» = 2\nprint(x)\n", None),
    ("python", "def f(«a|b», c):\n    b = a\n    return a\n", None),
    ("python", "«x|class» = 1\nprint(x)\n", None),
    ("python", "x = «1|2»\nprint(x)\n", None),
    ("python", "print(1)\n«|x = 2\n»print(2)\n", None),
    # attributes
    ("python", "class A:\n    def __init__(self, x):\n        self.«x|y» = x\n    def f(self):\n        return self.x\n\na.x = 1\n",
     "class A:\n    def __init__(self, x):\n        self.y = x\n    def f(self):\n        return self.‹y›\n\na.‹y›? = 1\n"),
    ("python", "class A:\n    def «f|g»(self):\n        return self.f\n    h = f\n\nclass B(A):\n    def k(self): return self.f()\n\nclass C:\n    def f(self): return self.f\n",
     "class A:\n    def g(self):\n        return self.‹g›\n    h = ‹g›\n\nclass B(A):\n    def k(self): return self.‹g›()\n\nclass C:\n    def f(self): return self.f\n"),
    ("python", "@dataclass(frozen=True)\nclass P:\n    «x|left»: int\n    y: int\n\np = P(x=1, y=2)\nprint(p.x, Q(x=1))\n",
     "@dataclass(frozen=True)\nclass P:\n    left: int\n    y: int\n\np = P(‹left›=1, y=2)\nprint(p.‹left›?, Q(x=1))\n"),
    ("python", "class A:\n    def f(self):\n        self.x = 1\n        self.«x|y» = 2\n        return self.x\n", None),
    ("python", "class A:\n    def f(self):\n        self.«x|y» = 1\n        self.y = 2\n        return self.x\n", None),
    # parameters
    ("python", "def f(a, b«|, c»):\n    return a\n\nf(1, 2)\nf(1, b=2)\nf(*x)\ng(1, 2)\n",
     "def f(a, b, c):\n    return a\n\nf(1, 2, ⟦⟧)\nf(1, b=2, c=⟦⟧)\nf(⟦*x⟧)\ng(1, 2)\n"),
    ("python", "def f(«|z, »a, b=1):\n    return a\n\nf(1, 2)\nf()\nf(a=1)\n",
     "def f(z, a, b=1):\n    return a\n\nf(⟦⟧, 1, 2)\nf(⟦⟧)\nf(⟦⟧, a=1)\n"),
    ("python", "def f(a, b«|, c=None»):\n    return a\n\nf(1, 2)\n", None),
    ("python", "def f(a«, b|»):\n    return a + b\n\nf(1, 2)\nf(1, b=(3, 4))\nf(\n    5,\n    6,\n)\n",
     "def f(a):\n    return a + ⟦b⟧\n\nf(1‹›)\nf(1‹›)\nf(\n    5‹›,\n)\n"),
    ("python", "def f(«a, |»b):\n    return b\n\nf(1, 2)\nf(b=2, a=1)\n", "def f(b):\n    return b\n\nf(‹›2)\nf(b=2‹›)\n"),
    ("python", "def f(«a, b|b, a»):\n    return a\n\nf(1, g(2))\nf(b=1, a=2)\n", "def f(b, a):\n    return a\n\nf(‹g(2)›, ‹1›)\nf(b=1, a=2)\n"),
    ("python", "def f(a, b«=1|»):\n    return a\n\nf(1)\nf(1, 2)\n", "def f(a, b):\n    return a\n\nf(1, ⟦⟧)\nf(1, 2)\n"),
    ("python", "def f(a«|, *, k»):\n    return a\n\nf(1)\nf(1, k=2)\n", "def f(a, *, k):\n    return a\n\nf(1, k=⟦⟧)\nf(1, k=2)\n"),
    ("python", "class A:\n    def f(self, a«|, b»):\n        return self.f(a)\n\nx.f(1)\n",
     "class A:\n    def f(self, a, b):\n        return self.f(a, ⟦⟧)\n\nx.f(1, ⟦⟧?)\n"),
    ("python", "class A:\n    def f(self, a«|, b»):\n        return self.f(a)\n\nclass B:\n    def f(self, a): pass\n\nx.f(1)\n",
     "class A:\n    def f(self, a, b):\n        return self.f(a, ⟦⟧)\n\nclass B:\n    def f(self, a): pass\n\nx.f(1)\n"),
    ("python", "class A:\n    def __init__(self, a«|, b»):\n        pass\n\nA(1)\nB(1)\n",
     "class A:\n    def __init__(self, a, b):\n        pass\n\nA(1, ⟦⟧)\nB(1)\n"),
    ("python", "def f(a«|, b»):\n    return a\n\nf(1«|, 2»)\nf(3)\n", "def f(a, b):\n    return a\n\nf(1, 2)\nf(3, ⟦⟧)\n"),
    # returns
    ("python", "def f(a):\n    if a:\n        return 1, 2«|, 3»\n    return 4, 5\n\nx, y = f(1)\nz = f(2)\n",
     "def f(a):\n    if a:\n        return 1, 2, 3\n    return ⟦4, 5⟧\n\n⟦x, y⟧ = f(1)\nz = f(2)\n"),
    ("python", "def f(a):\n    return a«|, 1»\n\nx = f(1)\n", "def f(a):\n    return a, 1\n\n⟦x⟧? = f(1)\n"),
    # the others
    ("javascript", "function f(«a|b», {c}) { return {a, c}; }\nf(1, {c: 2}); a;\n", "function f(b, {c}) { return {‹a: b›, c}; }\nf(1, {c: 2}); a;\n"),
    ("javascript", "const «a|b» = 1;\n{ const a = 2; a; }\nfor (let a of x) a;\nexport {a};\n",
     "const b = 1;\n{ const a = 2; a; }\nfor (let a of x) a;\nexport {‹b as a›};\n"),
    ("javascript", "import «a|z» from 'm';\nvar g = (a) => a, h = () => a;\n", "import z from 'm';\nvar g = (a) => a, h = () => ‹z›;\n"),
    ("javascript", "function f(a«|, b») { return a; }\nf(1);\n", "function f(a, b) { return a; }\nf(1, ⟦⟧);\n"),
    ("javascript", "const f = («a, |»b) => b;\nf(1, 2);\n", "const f = (b) => b;\nf(‹›2);\n"),
    ("typescript", "class A { «x|y» = 1; m(x: number) { return this.x + x; } }\nclass B { x = 2; m() { return this.x; } }\n",
     "class A { y = 1; m(x: number) { return this.‹y› + x; } }\nclass B { x = 2; m() { return this.x; } }\n"),
    ("typescript", "interface «I|J» { a: I[] }\nfunction f(x: I): I { return x as I; }\n", "interface J { a: ‹J›[] }\nfunction f(x: ‹J›): ‹J› { return x as ‹J›; }\n"),
    ("tsx", "function «A|B»() { return <b>{x}</b>; }\nconst c = <A y={1} />;\n", "function B() { return <b>{x}</b>; }\nconst c = <‹B› y={1} />;\n"),
    ("go", "package a\n\nfunc f(«x|y» int) int {\n\tif x := g(x); x > 0 {\n\t\treturn x\n\t}\n\treturn x + T{x: 1}.x\n}\n",
     "package a\n\nfunc f(y int) int {\n\tif x := g(‹y›); x > 0 {\n\t\treturn x\n\t}\n\treturn ‹y› + T{x: 1}.x\n}\n"),
    ("rust", "fn f() -> u8 {\n    let «x|y» = 1;\n    let x = x + 1;\n    x\n}\n", "fn f() -> u8 {\n    let y = 1;\n    let x = ‹y› + 1;\n    x\n}\n"),
    ("rust", "fn f(«x|y»: u8) -> u8 {\n    let x = x + 1;\n    x\n}\n", "fn f(y: u8) -> u8 {\n    let x = ‹y› + 1;\n    x\n}\n"),
    ("rust", "fn «f|g»(x: u8) -> S {\n    println!(\"{}\", f(x).f);\n    S { x }\n}\n", "fn g(x: u8) -> S {\n    println!(\"{}\", ‹g›(x).f);\n    S { x }\n}\n"),
    ("java", "class A {\n  int «x|y»;\n  int f(int x) { return this.x + x; }\n  int g() { return x + x(); }\n}\n",
     "class A {\n  int y;\n  int f(int x) { return this.‹y› + x; }\n  int g() { return ‹y› + x(); }\n}\n"),
    ("java", "class A {\n  int «f|g»(int f) { return f + f(1) + this.f(2); }\n}\n", "class A {\n  int g(int f) { return f + ‹g›(1) + this.‹g›(2); }\n}\n"),
    ("c", "static int «f|g»(int a) { return a; }\nint h(struct S f) { return f.a; }\nint k(void) { return f(1); }\n",
     "static int g(int a) { return a; }\nint h(struct S f) { return f.a; }\nint k(void) { return ‹g›(1); }\n"),
    ("c", "int f(int a«|, int b») { return a; }\nint k(void) { return f(1); }\n", "int f(int a, int b) { return a; }\nint k(void) { return f(1, ⟦⟧); }\n"),
    ("cpp", "int f(int «a|b») { auto g = [&](int a) { return a; }; return g(a) + n::a; }\n", "int f(int b) { auto g = [&](int a) { return a; }; return g(‹b›) + n::a; }\n"),
]  # fmt: skip


@pytest.mark.parametrize(("language", "marked", "expected"), CASES)
def test_what_follows(language: str, marked: str, expected: str | None):
    before, after = taken_apart(marked)
    assert shown(after, language, before) == (after if expected is None else expected)


def test_titles_and_kinds():
    before = "def f(a):\n    return a\n\nf(1)\n"
    (ripple,) = ripples(before, before.replace("f(a)", "g(a)"), "python")
    assert (ripple.kind, ripple.old, ripple.new, ripple.title) == ("rename", "f", "g", "Rename f to g in 1 other place")
    (ripple,) = ripples(before, before.replace("f(a)", "f(a, b)"), "python")
    assert (ripple.kind, ripple.old, ripple.new) == ("parameters", "a", "a, b")
    (ripple,) = ripples(before.replace("(1)", "(1)\nx, y = f(2)"), "x", "python") or [None]
    assert ripple is None
    assert ripples(before, before + "x", None) == ()


EDITS = ["x", "def f(x):\n", "    return x\n", "import a\n", "(", "class A:\n", "self.x = ", "\r\n", "é"]


@given(st.lists(st.sampled_from(EDITS) | texts, max_size=6).map("".join), texts, st.sampled_from(LANGUAGES), st.data())
@settings(max_examples=60)
def test_any_two_texts_give_good_holes(text: str, new: str, language: str, data: st.DataObject):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    after = text[:start] + new + text[end:]
    for ripple in ripples(text, after, language):
        check_holes(after, [(place.hole.start, place.hole.end) for place in ripple.places])


def test_a_long_file_takes_a_moment():
    source = source_of("dataclasses") * 2
    after = source.replace("def _is_dataclass_instance", "def _is_one", 1)
    began = time.perf_counter()
    (ripple,) = ripples(source, after, "python")
    assert time.perf_counter() - began < 2
    assert len(ripple.places) >= 4
