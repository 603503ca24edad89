"""Where the block ends that a fill begins, with nothing behind the hole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcode.blocks import block_end
from diffcode.stops import Cut, StopRule

BODY = "    total = 0\n    for x in xs:\n        total += x\n\n    return total"
CASES = [
    # what stands left of the hole on its line, what the model writes, what of it is the block
    ("", BODY + "\n\n\ndef other():\n    pass\n", BODY),
    ("", BODY + "\n", BODY + "\n"),  # it ended by itself
    ("    ", "return 1\n\nprint(f())\n", "return 1"),
    ("        ", "go()\n    return 1\n", "go()"),
    ("    total = ", "sum(xs)\n    return total\n\ndef g():\n    pass\n", "sum(xs)\n    return total"),
    ("def f(", "x):\n    return x\n\n\ndef g(x):\n    return x\n", "x):\n    return x"),
    ("", "\n\nx = 1\ny = 2\n\nz = 3\n", "\n\nx = 1\ny = 2"),
    ("", "if x:\n    go()\nelse:\n    stop()\n\nrest()\n", "if x:\n    go()\nelse:\n    stop()"),
    ("", "x = f(\n    a,\n\n    b,\n)\ny = 1\n", "x = f(\n    a,\n\n    b,\n)"),
    ("  ", "return 1;\n}\n\nfunction g() {\n  return 2;\n}\n", "return 1;\n}"),
    ("  ", "a();\n} else {\n  b();\n}\nc();\n", "a();\n} else {\n  b();\n}"),
    ("    ", '"""Say it.\n\nTo all.\n"""\n    return 1\nx = 2\n', '"""Say it.\n\nTo all.\n"""\n    return 1'),
    ("\t", "return 1\n\nx = 2", "return 1"),
    ("", "", ""),
    ("", "\n  \n", "\n  \n"),
]


@pytest.mark.parametrize(("head", "text", "wanted"), CASES)
def test_a_block(head: str, text: str, wanted: str):
    end = block_end(head, text)
    assert text[:end] == wanted
    assert (end is None) == (wanted == text)


@pytest.mark.parametrize(("head", "text", "wanted"), CASES)
@pytest.mark.parametrize("suffix", ["", "\n", "  \n\n"])
def test_a_fill_ends_with_it(head: str, text: str, wanted: str, suffix: str):
    rule = StopRule(suffix, head=head, one_block=True)
    cuts = (rule.check(text[:n]) for n in range(len(text) + 1))
    met = next((cut for cut in cuts if cut), None)
    assert met == (None if wanted == text else Cut(wanted, "block"))
    assert rule.finish(text, "eos") == Cut(wanted, "eos")


def test_other_ends_come_first_where_they_are_met_first():
    assert StopRule("\nz = 3\n", head="    ").check("x\ny = 2\n") is None
    assert StopRule("", ("b",), head="    ", one_block=True).check("a b\nc") == Cut("a ", "stop")


@given(st.text(alphabet="ab:( )\n\"'", max_size=40), st.sampled_from(("", "  ", "    x = ")))
def test_a_block_ends_once(text: str, head: str):
    """What was cut has no further end in it, and is a beginning of the text that keeps all visible of its block."""
    end = block_end(head, text)
    kept = text[:end]
    assert block_end(head, kept) is None
    assert kept == text or text[len(kept) :].strip()
