"""Programs that speak to the tester past the guest, or answer with what is a burden. None may pass or do harm."""

import time

import pytest
from hostile import best

from diffcode.evals.sandbox import PASSED, TIMED_OUT, Limits, Program, check, check_all

TEST = "def check(f):\n    for n in 1, 2, 3: assert f(n) == 2 * n\n"
WRONG = "\ndef twice(n): return 7\n"
RIGHT = Program("def twice(n): return 2 * n", TEST, "twice")
# The line to the tester is among what is open.
SEND = """
import os
for descriptor in range(3, 64):
    try: os.write(descriptor, {data!r})
    except OSError: pass
"""
NONSENSE, TOO_MUCH, ENDED = "answered nonsense", "returned too much", "ended before the test did"


def framed(text: bytes) -> bytes:
    return len(text).to_bytes(4) + text


def value(text: bytes, changed: bytes = b"null") -> bytes:
    """The messages that the guest would send: the program is loaded, and answers a call."""
    return framed(b'["loaded",[["twice","function",null]]]') + framed(b'["value",%b,%b]' % (text, changed))


MESSAGES = {
    "the verdict": (framed(b"passed"), NONSENSE),
    "the verdict without a frame": (b"passed", TOO_MUCH),
    "the verdict as JSON": (framed(b'"passed"'), NONSENSE),
    "the verdict in a list": (framed(b'["passed"]'), NONSENSE),
    "the verdict as an error": (framed(b'["error",["passed"]]'), "Exception"),
    "the verdict as the exit's error": (framed(b'["error",["SystemExit",0]]'), "SystemExit"),
    "nothing": (framed(b""), NONSENSE),
    "not ASCII": (framed(b"\xff\xfe"), NONSENSE),
    "an unknown type": (value(b'{"object":1}'), NONSENSE),
    "a type of the wrong thing": (value(b'{"int":[1]}'), NONSENSE),
    "two types": (value(b'{"int":"1","str":""}'), NONSENSE),
    "no type": (value(b"{}"), NONSENSE),
    "a set of lists": (value(b'{"set":[[1]]}'), NONSENSE),
    "a number of 5000 digits": (value(b"1" * 5000), NONSENSE),
    "a changed argument too many": (value(b"2", b"[1,1]"), NONSENSE),
    "a changed argument of another type": (value(b"7", b'["x"]'), "AssertionError"),
    "another answer than asked for": (framed(b'["value",2,null]'), NONSENSE),
    "answers ahead of time": (value(b"7") * 3, "AssertionError"),
    "definitions of what the test defines": (
        framed(b'["loaded",[["check","data",1],["range","data",1],["n","data",1],["twice","data",[]]]]') + value(b"7"),
        "TypeError",
    ),
    "a module by another name": (framed(b'["loaded",[["twice","module",null]]]'), NONSENSE),
    "half a character": (value(b'"\\ud800"'), "AssertionError"),
    "a digit of another script": (value(b'{"int":"\\uff17"}'), "AssertionError"),
    "no number as JSON must not have it": (value(b"NaN"), "AssertionError"),
    "a number without an end": (value(b"-Infinity"), "AssertionError"),
    "a type given twice": (value(b'{"int":"2","int":"7"}'), "AssertionError"),
    "a fraction by nought": (value(b'{"fraction":"2/0"}'), NONSENSE),
    "a number that complains when compared": (value(b'{"decimal":"sNaN"}'), "InvalidOperation"),
    "an iterator of the right answer": (value(b'{"iterator":[2]}'), "AssertionError"),
    "a deep tuple": (value(b'{"tuple":[' * 300 + b"2" + b"]}" * 300), "AssertionError"),
    "a bottomless tuple": (framed(b'{"tuple":[' * 100_000), NONSENSE),
    "4 GiB announced": (b"\xff" * 4, TOO_MUCH),
    "a deep message": (framed(b"[" * 500_000), NONSENSE),
    "wide nothing": (value(b"[" + b"[]," * 500_000 + b"[]]"), "AssertionError"),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_forged_message_is_no_pass(name: str):
    data, verdict = MESSAGES[name]
    program = Program(SEND.format(data=data) + WRONG, TEST, "twice")
    assert check(program, isolation=best(), limits=Limits(seconds=20)) == verdict != PASSED


SLOW = {
    "a little on every call": "import time\ndef twice(n):\n    time.sleep(0.2)\n    return 2 * n",
    "half a message": SEND.format(data=b"\0\0\0\7[") + "import time; time.sleep(60)",
    "a message letter by letter": SEND.format(data=b"\0\0\0\xff")
    + f"import time\nfor _ in range(99):\n    time.sleep(0.05)\n    exec({SEND.format(data=b'[')!r})",
    "a fraction as long as the memory": SEND.format(data=value(b'{"fraction":"1e999999999"}')) + WRONG,
}


@pytest.mark.parametrize("name", SLOW)
def test_time_is_one_for_all_messages(name: str):
    """However it is spread; and the next program has all of its own."""
    test = "def check(f):\n    for n in range(100): assert f(n) == 2 * n\n"
    programs = [Program(SLOW[name], test, "twice"), RIGHT]
    began = time.monotonic()
    assert list(check_all(programs, isolation=best(), limits=Limits(seconds=2), workers=1)) == [TIMED_OUT, PASSED]
    assert time.monotonic() - began < 10


LINE = """
import os, socket, stat
line = next(socket.socket(fileno=n) for n in range(3, 64) if attempt(n))
"""
OPEN = """
def attempt(number):
    try: return stat.S_ISSOCK(os.fstat(number).st_mode)
    except OSError: return False
"""


@pytest.mark.parametrize(
    ("more", "verdict"),
    [
        ("line.shutdown(socket.SHUT_RD)", ENDED),
        ("line.shutdown(socket.SHUT_WR)", ENDED),
        ("line.shutdown(socket.SHUT_RDWR)", ENDED),
        # Descriptors that the tester would run out of, and one of which it might take for the next program's line.
        ("for _ in range(99): socket.send_fds(line, [b''.join((b'\\0\\0\\0\\1', b'7'))], [0] * 9)", NONSENSE),
    ],
)
def test_line_that_is_tampered_with_is_no_pass(more: str, verdict: str):
    code = OPEN + LINE + more + WRONG
    hostile, after = check_all([Program(code, TEST, "twice"), RIGHT], isolation=best(), workers=1)
    assert hostile == verdict
    assert after == PASSED


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (SEND.format(data=b"\0\0\0\7[") + "os._exit(0)" + WRONG, ENDED),
        ("import os\nos.closerange(0, 64)" + WRONG, ENDED),
        ("import marshal\nmarshal.loads = lambda data: ('twice', [1], {})" + WRONG, "AssertionError"),
        ("import sys\nsys._getframe(1).f_globals.update(pack=str, tag=max)" + WRONG, NONSENSE),
        ("import sys\ndef twice(n):\n  sys._getframe(1).f_globals['pack'] = lambda x: 'true'", "AssertionError"),
        ("passed = type('passed', (Exception,), {})\nraise passed", "Exception"),
        ("def twice(n): raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("class Own(BaseException): pass\ndef twice(n): raise Own", "BaseException"),
        ("class Own(ExceptionGroup): pass\ndef twice(n): raise Own('', [Exception()])", "Exception"),
        ("def twice(n): raise StopIteration", "RuntimeError"),
    ],
)
def test_broken_line_or_odd_exception_is_no_pass(code: str, verdict: str):
    assert check(Program(code, TEST, "twice"), isolation=best()) == verdict


def test_no_handler_in_the_test_survives_the_end_of_the_program():
    test = "def check(f):\n    try: f(1)\n    except: pass\n"
    assert check(Program("import os\ndef twice(n): os._exit(0)", test, "twice"), isolation=best()) == ENDED
    assert check(Program("import sys\ndef twice(n): sys.exit(0)", test, "twice"), isolation=best()) == PASSED


@pytest.mark.parametrize("kind", ["GeneratorExit", "StopIteration", "StopAsyncIteration", "IndexError", "EOFError"])
@pytest.mark.parametrize("loop", ["all(f(n) == 2 * n for n in (1, 2))", "[*map(f, (1, 2))] == [2, 4]"])
def test_no_exception_ends_the_tests_loops_early(kind: str, loop: str):
    program = Program(f"def twice(n): raise {kind}", f"def check(f): assert {loop}\n", "twice")
    assert check(program, isolation=best()) == ("RuntimeError" if kind.startswith("Stop") else kind)


BURDENS = {
    "a giant text": ("return 'x' * (1 << 23)", TOO_MUCH),
    "a giant number": ("return 1 << (1 << 26)", TOO_MUCH),
    "a list larger than the memory": ("return [0] * (1 << 27)", "out of memory"),
    "an endless iterator": ("import itertools; return itertools.repeat('x' * 9)", TOO_MUCH),
    "a list in itself": ("value = []; value.append(value); return value", "RecursionError"),
    "a deep list": ("value = []\n    for _ in range(9999): value = [value]\n    return value", "RecursionError"),
    "a less deep list": ("value = []\n    for _ in range(400): value = [value]\n    return value", "AssertionError"),
    "half a terabyte by sharing": (
        "value = []\n    for _ in range(39): value = [value, value]\n    return value",
        ("out of memory", "timed out"),
    ),
    "colliding numbers": ("return {n * (2**61 - 1) for n in range(2000)}", "AssertionError"),
    "not a number": ("return float('nan')", "AssertionError"),
    "recursion without a limit": (
        "import sys; sys.setrecursionlimit(1 << 30)\n    def down(): return [down()]\n    return down()",
        ("out of memory", ENDED, "timed out"),
    ),
}


@pytest.mark.parametrize("name", BURDENS)
def test_value_that_is_a_burden_is_no_pass_and_hinders_nobody(name: str):
    body, verdict = BURDENS[name]
    programs = [Program(f"def twice(n):\n    {body}\n", TEST, "twice"), RIGHT]
    burden, after = check_all(programs, isolation=best(), limits=Limits(seconds=2), workers=1)
    assert burden in ([verdict] if isinstance(verdict, str) else verdict)
    assert after == PASSED
