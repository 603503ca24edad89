"""The measure of the server under load: it must find what goes wrong."""

import random
import subprocess
import sys

from diffcode.evals import stress
from diffcode.evals.cuts import Line
from diffcode.evals.editor import EditorProcess

LINE = Line("def triple(x):\n\n\nprint(triple(2))\n", len("def triple(x):\n"), "    return 2 * x")
# Answers everything, and the third request twice.
TWICE = r"""
import json, sys
seen = 0
while header := sys.stdin.buffer.readline():
    sys.stdin.buffer.readline()
    message = json.loads(sys.stdin.buffer.read(int(header.split(b":")[1])))
    if message["method"] == "exit":
        break
    if "id" in message:
        seen += 1
        body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": None}).encode()
        sys.stdout.buffer.write((b"Content-Length: %d\r\n\r\n" % len(body) + body) * (2 if seen == 3 else 1))
        sys.stdout.buffer.flush()
"""


def test_a_storm_and_a_long_day_end_well_with_a_server_that_is_right(editor: EditorProcess) -> None:
    found = stress.storm(editor, LINE, 50)
    assert (found.n, found.met) == (50, True), found
    assert "50 answered" in found.value
    assert "49 cancelled" in found.value
    day = stress.long_day(editor, [LINE], 30)
    assert day.met, day
    assert day.n >= 30
    assert " 0 errors" in day.what


def test_an_answer_too_many_is_found() -> None:
    with EditorProcess([sys.executable, "-c", TWICE]) as editor:
        assert editor.strays == 0
        for _ in range(3):
            editor.ask("$/ping", None)
        assert editor.strays == 1
        assert not stress.storm(editor, LINE, 5).met, "nothing was cancelled, and one answered twice"


def test_what_is_late_or_was_never_timed_is_not_met() -> None:
    assert stress.timed("quick", [0.001] * 30, 5).met
    late = stress.timed("late", [0.001] * 20 + [0.1] * 10, 5)
    assert (late.met, late.n, late.goal) == (False, 30, "p95 under 5 ms")
    assert not stress.timed("nothing", [], 5).met


def test_cancels_count_what_was_ready_before(editor: EditorProcess) -> None:
    found = stress.cancels(editor, [LINE], random.Random(1))
    assert (found.n, found.met) == (0, False)
    assert "1 were ready before" in found.what


def test_a_killed_process_is_gone_and_this_one_is_not() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert not stress.gone(process.pid, 0)
        process.kill()
    assert stress.gone(process.pid, 0)


def test_a_server_does_not_outlive_its_editor() -> None:
    """The real server, with its model in the middle of a suggestion."""
    found = stress.dead_editor()
    assert found.met, found
    assert "was gone" in found.value
