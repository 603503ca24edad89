# ruff: noqa: E501  a case is a line
"""Placeholders are found, and what only looks like one is not. «» mark what must be found."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd_texts import texts

from diffcode.canvas import Reach, reach_of
from diffcode.holes import apply_edits, check_holes
from diffcode.lsp.stubs import Stub, find_stubs
from diffcode.syntax import LANGUAGES, Code, faults

FOUND = [
    ("python", "x = «???»\n", "marker"),
    ("python", "def f():\n    «???»\n", "marker"),
    ("python", "f(a, «???», b)\n", "marker"),
    ("python", "def f(x):\n    «...»\n", "ellipsis"),
    ("python", "def f(x): «...»\n", "ellipsis"),
    ("python", 'def f(x):\n    """Doc."""\n    «...»\n', "ellipsis"),
    ("python", "async def f(x):\n    «...  # TODO: soon»\n", "ellipsis"),
    ("python", "def f(x):\n    «pass  # TODO»\n", "pass"),
    ("python", "def f(x):\n    # FIXME: sum them\n    «pass»\n", "pass"),
    ("python", "if x:\n    «pass  # TODO: what then»\n", "pass"),
    ("python", "def f(x):\n    «raise NotImplementedError»\n", "raise"),
    ("python", 'def f(x):\n    """Doc."""\n    «raise NotImplementedError("f")»\n', "raise"),
    ("python", "class A:\n    @property\n    def f(self):\n        «raise NotImplementedError»\n", "raise"),
    ("python", "if y:\n    «raise NotImplementedError  # TODO»\n", "raise"),
    ("python", "def f(x):\n    «# TODO: sum them»\n\n\ny = 1\n", "empty"),
    ("python", "class A:\n    def f(self):\n        «# TODO: sum\n        # them»\n\n    def g(self):\n        return 1\n", "empty"),
    ("javascript", "function f() {\n  «throw new Error(\"Not implemented\");»\n}\n", "throw"),
    ("javascript", "const f = () => {\n  «throw new Error('TODO')»\n};\n", "throw"),
    ("javascript", "class A { m() { «throw new Error('not yet implemented');» } }\n", "throw"),
    ("javascript", "function f() {\n  «// TODO: sum»\n}\n", "empty"),
    ("javascript", "let x = «???»;\n", "marker"),
    ("typescript", "function f(a: string): number {\n  «throw new Error(\"not implemented\");»\n}\n", "throw"),
    ("typescript", "class A {\n  m(): void {\n    «/* TODO */»\n  }\n}\n", "empty"),
    ("tsx", "const A = () => {\n  «throw new Error(\"unimplemented\");»\n};\n", "throw"),
    ("go", "package a\n\nfunc f() int {\n\t«panic(\"not implemented\")»\n}\n", "throw"),
    ("go", "package a\n\nfunc (t *T) f() int {\n\t«panic(\"TODO\")»\n}\n", "throw"),
    ("go", "package a\n\nfunc f() {\n\t«// TODO: sum»\n}\n", "empty"),
    ("rust", "fn f() -> u8 {\n    «todo!()»\n}\n", "todo"),
    ("rust", "fn f() -> u8 { «unimplemented!(\"later\")» }\n", "todo"),
    ("rust", "fn f(x: u8) -> u8 {\n    match x {\n        0 => 1,\n        _ => «todo!()»,\n    }\n}\n", "todo"),
    ("rust", "fn f() {\n    «// TODO: sum»\n}\n", "empty"),
    ("java", "class A {\n  int f() {\n    «throw new UnsupportedOperationException();»\n  }\n}\n", "throw"),
    ("java", "class A {\n  int f() {\n    «throw new RuntimeException(\"Not implemented yet: not implemented\");»\n  }\n}\n", "throw"),
    ("java", "class A {\n  void f() {\n    «// TODO Auto-generated method stub»\n  }\n}\n", "empty"),
    ("c", "int f(int a) {\n  «/* TODO: sum */»\n}\n", "empty"),
    ("c", "int f(int a) {\n  «assert(0 && \"not implemented\");»\n}\n", "throw"),
    ("cpp", "int A::f() {\n  «throw std::logic_error(\"not implemented\");»\n}\n", "throw"),
    ("cpp", "int f() {\n  «// TODO»\n}\n", "empty"),
]  # fmt: skip

LEFT_ALONE = [
    ("python", "from typing import Protocol\nclass P(Protocol):\n    def f(self) -> int: ...\n"),
    ("python", "class P(Protocol[T]):\n    def f(self) -> int:\n        ...\n"),
    ("python", "class A(ABC):\n    @abstractmethod\n    def f(self):\n        raise NotImplementedError\n"),
    ("python", "class A(metaclass=abc.ABCMeta):\n    def f(self):\n        raise NotImplementedError\n"),
    ("python", "class A:\n    @abc.abstractmethod\n    def f(self): ...\n"),
    ("python", "@overload\ndef f(x: int) -> int: ...\n@typing.overload\ndef f(x: str) -> str: ...\n"),
    ("python", "if TYPE_CHECKING:\n    def f(x: int) -> int: ...\n"),
    ("python", "try:\n    f()\nexcept ValueError:\n    pass\n"),
    ("python", "class E(Exception):\n    pass\n\n\nclass F(Exception): ...\n"),
    ("python", "def f():\n    pass\n"),
    ("python", "x = a[..., 1]\ny: tuple[int, ...] = b\nz = f(...)\n"),
    ("python", "def f(x=...):\n    return x\n"),
    ("python", "def f(x):\n    if x:\n        return 1\n    raise NotImplementedError(x)\n"),
    ("python", "def f(x):\n    ...\n    return 1\n"),
    ("python", "def f(x):\n    '''Doc.'''\n    g(x)\n    raise NotImplementedError\n"),
    ("python", "x = '??? TODO ... pass'\n# what??? ... pass\n"),
    ("python", "# TODO: later\nx = 1\n"),
    ("python", "def f():\n    # TODO: later\n    return 1\n"),
    ("python", "except_ = NotImplementedError\nraise KeyError\n"),
    ("python", "def f():\n    return '''\n    pass  # TODO\n    '''\n"),
    ("python", "a = b????c\n"),
    ("javascript", "const s = 'not implemented';\nfunction f() { return 1; } // TODO\n"),
    ("javascript", "function f(x) {\n  if (x) return 1;\n  throw new Error('not implemented');\n}\n"),
    ("javascript", "function f(x) {\n  throw new Error('x is null');\n}\n"),
    ("javascript", "const a = b ?? c;\nconst r = /???/;\n"),
    ("typescript", "abstract class A { abstract f(): void; }\ninterface B { f(): void; }\n"),
    ("typescript", "class A {\n  // TODO: fields\n}\n"),
    ("go", "package a\n\nfunc f(x int) {\n\tif x > 0 {\n\t\tg()\n\t}\n\tpanic(\"not implemented\")\n}\n"),
    ("go", "package a\n\nfunc f() {\n\tpanic(\"bad\")\n}\n"),
    ("rust", "fn f() { println!(\"todo!() later\"); }\n// todo!()\n"),
    ("rust", "fn f() { todo_list(); }\n"),
    ("java", "class A {\n  void remove() {\n    throw new UnsupportedOperationException(\"unmodifiable\");\n  }\n}\n"),
    ("java", "interface A { void f(); }\nabstract class B { abstract void f(); }\n"),
    ("c", "int f(int a); /* TODO */\nstruct S { /* TODO */ };\n"),
    ("cpp", "int f() { return 1; /* TODO */ }\n"),
]  # fmt: skip


def bare(text: str) -> str:
    return text.replace("«", "").replace("»", "")


@pytest.mark.parametrize(("language", "text", "kind"), FOUND)
def test_a_placeholder_is_found(language: str, text: str, kind: str):
    start = text.index("«")
    end = text.index("»") - 1
    (stub,) = find_stubs(Code(bare(text), language))
    assert (stub.start, stub.end, stub.kind) == (start, end, kind)


@pytest.mark.parametrize(("language", "text"), LEFT_ALONE)
def test_what_is_meant_is_left_alone(language: str, text: str):
    assert find_stubs(Code(text, language)) == []


def test_stub_files_have_only_markers():
    code = Code("def f(x: int) -> int: ...\ny: int = ???\n", "python")
    assert [stub.kind for stub in find_stubs(code, "/w/a.pyi")] == ["marker"]
    assert [stub.kind for stub in find_stubs(code, "/w/a.py")] == ["ellipsis", "marker"]


def test_titles_name_the_function_and_the_wish():
    for language, text, title in [
        (
            "python",
            "def mean(xs):\n    ...  # TODO: without outliers\n",
            "Fill the body of mean: TODO: without outliers",
        ),
        ("python", "def mean(xs):\n    # TODO it\n", "Fill the body of mean: TODO it"),
        ("python", "x = ???\n", "Fill ???"),
        ("go", 'package a\nfunc F() {\n\tpanic("TODO")\n}\n', "Fill the body of F"),
        ("c", "int *area(int r) {\n  /* TODO */\n}\n", "Fill the body of area: TODO"),
        ("c", "int area(int r) {\n  /* TODO */\n}\n", "Fill the body of area: TODO"),
        ("rust", "fn area() -> u8 {\n    todo!()\n}\n", "Fill the body of area"),
        ("javascript", "if (a) {\n  // TODO more\n}\n", "Fill the body: TODO more"),
    ]:
        assert [stub.title for stub in find_stubs(Code(text, language))] == [title]


def test_a_body_on_its_own_line_may_become_several_lines():
    for end in ("\n", "\r\n"):
        text = f"def f(x):{end}    ...{end}"
        (stub,) = find_stubs(Code(text, "python"))
        assert stub.multi_line
        assert text[stub.hole.start : stub.hole.end] == "..."
        assert reach_of(text, stub.hole) == Reach(False, False, True)
    (stub,) = find_stubs(Code("def f(x): ...\n", "python"))
    assert not stub.multi_line
    assert reach_of("def f(x): ...\n", stub.hole).one_line


def test_a_wish_stays_where_it_is():
    text = "function f() {\n  // TODO: sum\n}\n"
    (stub,) = find_stubs(Code(text, "javascript"))
    assert apply_edits(text, [stub.hole], ["\n  return 1;"]) == "function f() {\n  // TODO: sum\n  return 1;\n}\n"


@pytest.mark.parametrize("language", LANGUAGES)
def test_filled_stubs_parse_and_are_no_stubs(language: str):
    fill = {"python": "return 1", "rust": "g()", "go": "g()"}.get(language, "g();")
    for text in [bare(text) for of, text, kind in FOUND if of == language and kind != "marker"]:
        stubs = find_stubs(Code(text, language))
        leads = [re.search(r"[ \t]*\Z", text[: stub.start])[0] for stub in stubs]
        new = [f"\n{lead}{fill}" if stub.multi_line else fill for stub, lead in zip(stubs, leads, strict=True)]
        done = Code(apply_edits(text, [s.hole for s in stubs], new), language)
        assert find_stubs(done) == []
        assert len(faults(done.root)) <= len(faults(Code(text, language).root))


PIECES = [
    "def f():\n",
    "    ...\n",
    "    pass  # TODO\n",
    "???",
    "todo!()",
    "{",
    "}",
    "// TODO\n",
    'panic("TODO")',
    "\r\n",
    "é😀",
]


@given(st.lists(st.sampled_from(PIECES) | texts, max_size=8).map("".join), st.sampled_from(LANGUAGES))
def test_holes_of_any_text_are_good_holes(text: str, language: str):
    stubs = find_stubs(Code(text, language))
    assert all(isinstance(stub, Stub) and stub.title for stub in stubs)
    assert all(0 <= stub.start < stub.end <= len(text) for stub in stubs)
    if stubs:
        check_holes(text, [(stub.hole.start, stub.hole.end) for stub in stubs])
