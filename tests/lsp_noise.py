"""Moments when silence is right, and moments when it is not. `¦` is the cursor, two of them are a hole's ends.

Each quiet moment names the gate that must close, so that none can be dropped for another that closes too often.
"""

from dataclasses import dataclass

from diffcode.lsp.moment import RecentEdit, Trigger


@dataclass(frozen=True)
class Asked:
    """Before the model: `gate` must close, or with "" none may."""

    gate: str
    language: str | None
    text: str
    uri: str = "file:///w/a"
    deleted: str = ""  # just now, at the cursor
    trigger: Trigger = "automatic"
    many: bool | None = None


@dataclass(frozen=True)
class Shown:
    """After it: `gate` must close on `new`, or with "" none may and `becomes` is shown."""

    gate: str
    language: str | None
    text: str
    new: str
    becomes: str | None = None
    edits: tuple[RecentEdit, ...] = ()
    confidence: tuple[float, ...] = ()
    trigger: Trigger = "automatic"


PY = "def area(r):\n    pi = 3.14\n    return pi * r ** 2\n"
JS = "function area(r) {\n  const pi = 3.14;\n  return pi * r ** 2;\n}\n"

QUIET_ASKED = [
    # within a finished line
    Asked("inside_line", "python", "total = ¦ price * amount\n"),
    Asked("inside_line", "python", "print(¦ name)\n"),
    Asked("inside_line", "python", "x = compute(a)¦  # the sum\n"),
    Asked("inside_line", "python", "return¦ self.value\n"),
    Asked("inside_line", "python", "items = [1, ¦ 2, 3]\n"),
    Asked("inside_line", "javascript", "const a = ¦ b + c;\n"),
    Asked("inside_line", "typescript", "const a: ¦ number = 1;\n"),
    Asked("inside_line", "go", "package a\n\nfunc f() {\n\tx := ¦ g(1)\n}\n"),
    Asked("inside_line", "rust", "fn f() {\n    let x = ¦ g(1);\n}\n"),
    Asked("inside_line", "java", "class A { int f() {\n return ¦ 1 + 2;\n} }\n"),
    Asked("inside_line", "c", "int f(int a) {\n  return ¦ a * 2;\n}\n"),
    Asked("inside_line", "cpp", "int f(int a) {\n  return ¦ a * 2;\n}\n"),
    Asked("inside_line", None, "begin ¦ something long follows\n"),
    # in a word
    Asked("inside_word", "python", "pri¦nt(1)\n"),
    Asked("inside_word", "javascript", "con¦sole.log(1);\n"),
    Asked("inside_word", "go", "package a\n\nvar na¦me = 1\n"),
    Asked("inside_word", "python", "größ¦e = 1\n"),
    # behind a finished line
    Asked("finished_line", "python", "def f():\n    pass¦\n"),
    Asked("finished_line", "python", "for x in y:\n    break¦\n"),
    Asked("finished_line", "python", 'def f():\n    """Say so."""¦\n    return 1\n'),
    Asked("finished_line", "python", "def area(r):¦\n    return 3 * r\n"),
    Asked("finished_line", "python", "class A:¦\n    x = 1\n"),
    Asked("finished_line", "javascript", "const a = 1;¦\n"),
    Asked("finished_line", "javascript", "function f() {\n  g();\n}¦\n"),
    Asked("finished_line", "javascript", "function f() {¦\n  g();\n}\n"),
    Asked("finished_line", "typescript", "let a: string = 'b';  ¦\n"),
    Asked("finished_line", "rust", "fn f() {\n    g();¦\n}\n"),
    Asked("finished_line", "java", "class A {\n    int a;¦\n}\n"),
    Asked("finished_line", "c", "#include <a.h>\nint a = 1;¦\n"),
    Asked("finished_line", "cpp", "namespace n {\n}¦\n"),
    Asked("finished_line", "go", "package a\n\nfunc f() {\n\tg()\n}¦\n"),
    # comments
    Asked("comment", "python", "x = 1  # the number of¦\n"),
    Asked("comment", "python", "# TODO¦\n"),
    Asked("comment", "python", "# see¦ below\nx = 1\n"),
    Asked("comment", "javascript", "// adds two¦\n"),
    Asked("comment", "javascript", "/* adds ¦ two */\n"),
    Asked("comment", "typescript", "/**\n * Adds¦\n */\nfunction f() {}\n"),
    Asked("comment", "go", "package a\n\n// F adds¦\nfunc F() {}\n"),
    Asked("comment", "rust", "/// Adds¦\nfn f() {}\n"),
    Asked("comment", "java", "class A {\n  /* done */¦\n}\n"),
    Asked("comment", "c", "int a; /* a */ ¦\n"),
    Asked("comment", None, "# just a note¦\n"),
    # strings
    Asked("string", "python", 'print("hello ¦")\n'),
    Asked("string", "python", 'x = "abc¦\ny = 1\n'),
    Asked("string", "python", 'def f():\n    """Say ¦\n    so."""\n'),
    Asked("string", "python", 'x = """abc\n  def ¦\n'),
    Asked("string", "python", "open(f'{name}¦.txt')\n"),
    Asked("string", "javascript", "const a = 'it ¦ is';\n"),
    Asked("string", "javascript", "const a = `one ¦ ${two}`;\n"),
    Asked("string", "go", 'package a\n\nvar s = "a ¦"\n'),
    Asked("string", "rust", 'fn f() { println!("a ¦"); }\n'),
    Asked("string", "java", 'class A { String s = "a ¦"; }\n'),
    Asked("string", "c", 'char *s = "a ¦";\n'),
    Asked("string", "cpp", 'auto s = R"(a ¦)";\n'),
    # after a deletion
    Asked("just_deleted", "python", "x = ¦\n", deleted="compute(a)"),
    Asked("just_deleted", "javascript", "const a = ¦\n", deleted="b"),
    Asked("just_deleted", "go", "package a\n\nfunc f() {\n\t¦\n}\n", deleted="return 1"),
    # in front of code
    Asked("before_code", "python", "def f():\n  ¦  return 1\n"),
    Asked("before_code", "javascript", "{\n¦  a();\n}\n"),
    # behind a return
    Asked("after_leaving", "python", "def f():\n    return 1\n    ¦\n"),
    Asked("after_leaving", "python", "def f():\n    raise ValueError(1)\n    ¦\n"),
    Asked("after_leaving", "javascript", "function f() {\n  return 1;\n  ¦\n}\n"),
    Asked("after_leaving", "go", "package a\n\nfunc f() int {\n\treturn 1\n\t¦\n}\n"),
    # files
    Asked("secret", None, "KEY=¦\n", uri="file:///w/.env", trigger="invoked"),
    Asked("secret", None, "a¦\n", uri="file:///home/u/.ssh/id_rsa", trigger="invoked"),
    Asked("read_only", "python", "x = ¦\n", uri="git:/w/a.py?ref=HEAD", trigger="invoked"),
    Asked("read_only", "python", "x = ¦\n", uri="file:///v/lib/python3.11/site-packages/a.py"),
    Asked("read_only", "javascript", "x = ¦\n", uri="file:///w/node_modules/a/index.js"),
    Asked("no_code", None, "# Title\n\nSome words ¦\n", uri="file:///w/README.md"),
    Asked("no_code", None, "a,b\n1,¦\n", uri="file:///w/a.csv"),
    Asked("no_code", None, "fix ¦\n", uri="file:///w/.git2/COMMIT_EDITMSG"),
    Asked("no_code", None, '{"a": ¦\n', uri="file:///w/package-lock.json"),
    Asked("generated", "go", "// Code generated by x. DO NOT EDIT.\npackage a\n\nvar x = ¦\n"),
    Asked("generated", "javascript", "/** @generated */\nconst x = ¦\n"),
    Asked("binary", None, "\0\1\2 ¦", trigger="invoked"),
    Asked("huge", "javascript", f"var a = [{'1, ' * 1000}¦", trigger="invoked"),
    Asked("huge", "python", f"{'x = 1' + chr(10)}" * 200_000 + "y = ¦", trigger="invoked"),
    Asked("nothing_to_go_by", "python", "¦"),
    Asked("nothing_to_go_by", "rust", "\n\n¦\n"),
]

QUIET_SHOWN = [
    Shown("nothing", "python", "x = ¦\n", "   \n\n"),
    Shown("nothing", "python", "f(a¦)\n", ")"),
    Shown("nothing", "javascript", "function f() {\n  g();¦\n}\n", "\n}"),
    Shown("nothing", "python", "x = ¦ + 1\n", " + 1"),
    Shown("special_token", "python", "x = ¦\n", "1<|im_end|>"),
    Shown("special_token", "python", "x = ¦\n", "<|fim_middle|>1"),
    Shown("special_token", "javascript", "let x = ¦;\n", "'<fim_suffix>'"),
    Shown("special_token", "rust", "let x = ¦;\n", '"[MASK]"'),
    Shown("puts_back", "python", "x = ¦\n", "compute(a)", edits=(RecentEdit(4, "compute(a)", ""),)),
    Shown(
        "puts_back",
        "python",
        "x = com¦\n",
        "pute(a)",
        edits=(RecentEdit(4, "compute(a)", ""), RecentEdit(4, "", "com")),
    ),
    Shown(
        "puts_back", "python", "x = ¦\n", "compute(a) + 1", edits=(RecentEdit(4, "compute(a)", ""),), trigger="invoked"
    ),
    Shown("puts_back", "python", "x = ¦\n", "ab1", edits=tuple(RecentEdit(4 + i, "ab1"[i], "") for i in (2, 1, 0))),
    Shown("puts_back", "python", "x = ¦\n", "ab1", edits=tuple(RecentEdit(4, c, "") for c in "ab1")),
    Shown("puts_back", "go", "package a\n¦\n", 'import "fmt"', edits=(RecentEdit(10, 'import "fmt"\n', ""),)),
    Shown(
        "puts_back",
        "python",
        "# é\nx = ¦\n",
        "compute(a)",
        edits=(RecentEdit(4, "compute(a)", ""), RecentEdit(0, "", "# é\n")),
    ),
    Shown("nothing", "python", "a = 1\n¦\nb = 2\n", "b = 2"),
    Shown("nothing", "python", "def f():\n    ¦\n    return go(1)\n", "return go(1)"),
    Shown("nothing", "java", "class A {\n  ¦\n  int a;\n  int b;\n}\n", "int a;\n  int b;"),
    Shown("already_there", "python", "def f():\n    ¦\n\n\nrun(f)\n", "run(f)"),
    Shown("already_there", "javascript", "f(1);\ng(2);\n¦\nx();\n", "f(1);\ng(2);"),
    Shown("already_there", "java", "class A {\n  ¦\n    int a;\n    int b;\n}\n", "int a;\n  int b;"),
    Shown("loops", "python", "¦", "x = 1\nx = 1\nx = 1\nx = 1\n"),
    Shown("loops", "python", "log(1)\nlog(1)\n¦", "log(1)"),
    Shown("loops", "javascript", "¦", "a(1);\nb(2);\na(1);\nb(2);\na(1);\nb(2);\n"),
    Shown("loops", "python", "x = ¦\n", "foo.bar.foo.bar.foo.bar.foo.bar.foo.bar"),
    Shown("loops", None, "say ¦\n", "it is it is it is it is it is"),
    Shown("placeholder", "python", "def f(x):\n    ¦\n", "pass"),
    Shown("placeholder", "python", "def f(x):\n    ¦\n", "# TODO: implement this"),
    Shown("placeholder", "javascript", "function f() {\n  ¦\n}\n", "// your code here"),
    Shown("only_signs", "python", "x = f(1¦\n", ")"),
    Shown("only_signs", "javascript", "g(function () {\n}¦\n", ");"),
    Shown("unsure", "python", "x = ¦\n", "banana(1)", confidence=(0.2, 0.3, 0.1)),
    Shown("unsure", "go", "package a\n\nvar x = ¦\n", "banana(1)", confidence=(0.9, 0.01, 0.2)),
    Shown("makes_error", "python", "x = f(¦)\ny = 1\n", "1, 2]"),
    Shown("makes_error", "python", "def f():\n    x = ¦\n", "1 +* 2"),
    Shown("makes_error", "python", "x = ¦\ny = 2\n", '"abc'),
    Shown("makes_error", "python", "class A:\n  x = ¦\n  def f(:\n    pass\n\n\ny = 1\n", "1 +* 2"),
    Shown("makes_error", "python", "x = 1\n¦\n", "for in y:\n    pass2"),
    Shown("makes_error", "javascript", "const a = [1, 2];\n¦\n", "if (a) {\n  b(].;\n"),
    Shown("makes_error", "javascript", "f();\n¦\n", "b) {"),
    Shown("makes_error", "typescript", "let a: string = 'b';\n¦\n", "let : = 3;"),
    Shown("makes_error", "go", "package a\n\nfunc f() {\n\t¦\n}\n", "x := := 1"),
    Shown("makes_error", "rust", "fn f() {\n    ¦\n}\n", "let = mut x;", trigger="invoked"),
    Shown("makes_error", "java", "class A {\n  ¦\n}\n", "int int x = ;"),
    Shown("makes_error", "c", "int f() {\n  ¦\n}\n", "return return 1;"),
    Shown("makes_error", "cpp", "int f() {\n  ¦\n}\n", "std::cout << << 1;"),
]

LOUD_ASKED = [
    Asked("", "python", "def area(r):\n    return ¦\n", many=False),
    Asked("", "python", "def area(r):¦\n", many=True),
    Asked("", "python", "def area(r):\n    ¦\n", many=True),
    Asked("", "python", "def area(r):¦\n\n\nx = 1\n", many=True),
    Asked("", "python", PY + "\n\nprint(¦)\n", many=False),
    Asked("", "python", "x = [1, 2]\nfor i in ¦:\n", many=False),
    Asked("", "python", "import ¦\n", many=False),
    Asked("", "python", "x = ¦ + 1\n", many=False),
    Asked("", "python", "f(a, ¦, b)\n", many=False),
    Asked("", "python", "mean = sum(¦) / len(xs)\n", many=False),
    Asked("", "go", "package a\n\nvar x = f(a, ¦) + 1\n", many=False),
    Asked("", "python", "x = {'a': 1, ¦}\n", many=False),
    Asked("", "python", "# mean of the values\n¦\n", many=True),
    Asked("", "python", 'def mean(xs):\n    """The mean."""\n    ¦\n', many=True),
    Asked("", "python", "@cache\n¦\n", many=True),
    Asked("", "python", 'x = f"{¦}"\n', many=False),
    Asked("", "python", "total = 0\nfor x in xs:\n    ¦\n", many=True),
    Asked("", "python", "f(\n    a,\n    ¦\n)\n", many=False),
    Asked("", "python", "self.¦\n", many=False),
    Asked("", "python", "def f():\n    return 1\n\n\n¦\n", many=False),
    Asked("", "python", "def f():\n    if a:\n        return 1\n    ¦\n", many=True),
    Asked("", "javascript", JS + "\nconst b = ¦\n", many=False),
    Asked("", "javascript", "function f(a) {¦}\n", many=True),
    Asked("", "javascript", "const g = (x) => {\n  ¦\n};\n", many=True),
    Asked("", "javascript", "for (let i = 0;¦\n", many=False),
    Asked("", "javascript", "const a = `${¦}`;\n", many=False),
    Asked("", "typescript", "interface A {\n  ¦\n}\n", many=True),
    Asked("", "tsx", "const a = <b title={¦} />;\n", many=False),
    Asked("", "go", "package a\n\nfunc f() int {\n\t¦\n}\n", many=True),
    Asked("", "rust", "fn f<'a>(x: &'a str) -> u8 {\n    let y = ¦\n}\n", many=False),
    Asked("", "java", "class A {\n  int f() {\n    ¦\n  }\n}\n", many=True),
    Asked("", "c", "int f(int a) {¦\n\nint g(void) { return 1; }\n", many=True),
    Asked("", "cpp", "void f() { std::vector<int> v = ¦ }\n", many=False),
    Asked("", None, "puts ¦\n", uri="file:///w/a.rb", many=False),
    Asked("", "python", "x = 1¦\n", deleted="\n", many=False),
    Asked("", "python", "x = foo ¦ bar(1)\n", many=False),
    # asked by hand: nearly always
    Asked("", "python", "def area(r):¦\n    return 3 * r\n", trigger="invoked", many=False),
    Asked("", "python", "x = ¦ price * amount\n", trigger="invoked"),
    Asked("", "python", "# TODO¦\n", trigger="invoked", many=True),
    Asked("", "python", 'print("hello ¦")\n', trigger="invoked"),
    Asked("", "python", "pri¦nt(1)\n", trigger="invoked"),
    Asked("", "javascript", "const a = 1;¦\n", trigger="invoked"),
    Asked("", "python", "x = ¦\n", deleted="compute(a)", trigger="invoked"),
    Asked("", "python", "¦", trigger="invoked"),
    Asked("", None, "Some words ¦\n", uri="file:///w/README.md", trigger="invoked"),
]

LOUD_SHOWN = [
    # what was left open is closed, and what is broken at the end is cut
    Shown("", "javascript", "const a = 1;\n¦\n", "if (a) {\n  b();\n", "if (a) {\n  b();\n}"),
    Shown("", "go", "package a\n\nfunc f() {\n\t¦\n}\n", "for {\n\t\tg(h(1", "for {\n\t\tg(h(1))\n\t}"),
    Shown("", "typescript", "f(() => {\n  ¦\n});\n", "g();\n  h((x) => {\n    i", "g();\n  h((x) => {\n    i\n  })"),
    Shown("", "python", "def f(x):\n    ¦\n", "y = g(x)\n    if y ==", "y = g(x)"),
    Shown("", "python", "z = [x / max(¦) for x in xs]\n", "abs(x", "abs(x)"),
    Shown("", "javascript", "f(¦);\n", "g({ a: h(1", "g({ a: h(1)})"),
    Shown("", "python", "x = ¦\n", "compute(a)", "compute(a)"),
    Shown("", "python", "def area(r):\n    ¦\n", "return 3 * r\n", "return 3 * r"),
    Shown("", "python", "x = ¦\n", "compute(a)", edits=(RecentEdit(0, "", "x = "),)),
    Shown("", "python", "x = ¦\n", "compute(b)", edits=(RecentEdit(4, "compute(a)", ""),)),
    Shown("", "python", "x = f(¦\ny = 1\n", "a, b)", "a, b)"),
    Shown("", "python", "x = f(a, ¦)\n", "b)", "b"),
    Shown("", "python", "x = f(a, ¦)\n", "g(b))", "g(b)"),
    Shown("", "python", "return ¦\n", "return x + 1", "x + 1"),
    Shown("", "python", "x = ¦  # why\n", "1", "1"),
    Shown("", "python", "def f():\n    ¦\n", "    x = 1\n    return x", "x = 1\n    return x"),
    Shown("", "python", "if a:\n    b()\n¦", "else:\n    c()", "else:\n    c()"),
    Shown("", "python", "def f():\n  x = 1\n\ndef g():¦\n", "\n    y = 2\n    return y", "\n  y = 2\n  return y"),
    Shown(
        "",
        "python",
        "if a:\n\tb = 1\nif c:¦\n",
        "\n    d = 1\n    if d:\n        e = 1",
        "\n\td = 1\n\tif d:\n\t\te = 1",
    ),
    Shown("", "python", "if a:\n    b = 1\nif c:¦\n", "\n\td = 1", "\n    d = 1"),
    Shown("", "python", "if a:\n    b()\nif c:¦\n", "\n  d(1,\n    2)\n  e()", "\n    d(1,\n      2)\n    e()"),
    Shown("", "python", "if a:\n    b()\nif c:¦\n", "\n  d = 1 + \\\n     2", "\n    d = 1 + \\\n     2"),
    Shown("", "python", "a = 1\r\ndef f():¦\r\n", "\n    return 1", "\r\n    return 1"),
    Shown("", "python", "# <|im_end|> ends\nx = ¦\n", '"<|im_end|>"', '"<|im_end|>"'),
    Shown("", "javascript", "const a = f(¦);\n", "b) {", "b"),
    Shown("", "python", "x = f(\n¦", "a", confidence=(0.9, 0.8)),
    Shown("", "python", "x = ¦\n", "banana(1)", confidence=(0.2, 0.3, 0.1), trigger="invoked"),
    Shown("", "python", "x = [0, 0]\ny = ¦\n", "[0, 0, 0, 0, 0, 0, 0, 0]"),
    Shown("", "python", "x = 1\ny = ¦old(1)¦ + 2\n", "new(2)", "new(2)"),
    Shown("", "python", "def f():\n    a = 1\n    ¦\n\n\nclass B(\n", "return a", "return a"),
    Shown("", "javascript", "const xs = ys.map(¦)\n", "(y) => y + 1)", "(y) => y + 1"),
    Shown("", "javascript", "¦\n", "if (a) {", "if (a) {"),
    Shown("", "javascript", "function f() {\n  ¦\n}\n", "return 1;\n}", "return 1;"),
    Shown("", "typescript", "const a: ¦ = 1;\n", "number", "number"),
    Shown("", "tsx", "const a = <b title={¦} />;\n", "t(1)", "t(1)"),
    Shown(
        "",
        "go",
        "package a\n\nfunc f() int {\n\t¦\n}\n",
        "if x {\n        return 1\n    }\n    return 2",
        "if x {\n\t\treturn 1\n\t}\n\treturn 2",
    ),
    Shown("", "rust", "fn f() -> u8 {\n    ¦\n}\n", "let x = 1;\n    x + 1", "let x = 1;\n    x + 1"),
    Shown("", "java", "class A {\n  int f() {\n    ¦\n  }\n}\n", "return 1;", "return 1;"),
    Shown("", "c", "int f(int a) {\n  return ¦;\n}\n", "a * 2;", "a * 2"),
    Shown("", "cpp", "int f() {\n  std::vector<int> v¦\n}\n", " = {1, 2};", " = {1, 2};"),
    Shown("", None, "puts ¦\n", '"hello"', '"hello"'),
    Shown("", "python", "log(1)\n¦", "log(2)", "log(2)"),
]
