"""The Emacs part in a real Emacs without a screen, by Eglot over the real server process with a made-up model."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from lsp_editors import ENVIRONMENT, ROOT, SERVER, running, wait_for

PART = ROOT / "editors" / "emacs" / "diffcode.el"
PRELUDE = """
(setq debug-on-error nil make-backup-files nil create-lockfiles nil eglot-sync-connect t eglot-autoshutdown t
      eglot-send-changes-idle-time 0.5 eglot-confirm-server-initiated-edits 'confirm)
(load {part} nil t)
(setq diffcode-command '({command} :initializationOptions (:debounce 0 :leastConfidence 0)))
(defun until (what) (let ((end (+ (float-time) 10)))
  (while (not (funcall what))
    (when (> (float-time) end) (error "Waited for nothing: %S %S" (buffer-string) what))
    (accept-process-output nil 0.02))))
(defun ghost () (and diffcode--ghost (car (overlay-get diffcode--ghost 'diffcode))))
(defun type (keys) (execute-kbd-macro (kbd keys)))
(global-set-key (kbd "C-/") #'undo-only) ; every macro is a chain of undo of its own
(defun line () (buffer-substring-no-properties (line-beginning-position) (line-end-position)))
(defun text () (buffer-substring-no-properties (point-min) (point-max)))
(defun visit (file) (switch-to-buffer (find-file-noselect file)) (python-mode) (buffer-enable-undo)
  (apply #'eglot (eglot--guess-contact)))
(defun tell (&rest values) (princ (concat "\\n@@" (json-encode (vconcat values)) "\\n")))
"""


@pytest.fixture(scope="session")
def emacs() -> str:
    found = os.environ.get("DIFFCODE_TEST_EMACS") or shutil.which("emacs")
    if found is None:
        pytest.skip("no Emacs: apt-get install emacs-nox elpa-eglot, or set DIFFCODE_TEST_EMACS")
    done = subprocess.run([found, "--batch", "--eval", "(require 'eglot)"], capture_output=True, timeout=60)
    if done.returncode:
        pytest.skip("this Emacs has no Eglot: it comes with Emacs 29, or with elpa-eglot")
    return found


def command(emacs: str, folder: Path, text: str, script: str, setting: str = "") -> tuple[list[str], dict[str, str]]:
    file = folder / "a.py"
    file.write_text(text)
    (folder / "home").mkdir()
    words = " ".join(json.dumps(part) for part in SERVER)
    begin = PRELUDE.replace("{part}", json.dumps(str(PART))).replace("{command}", words)
    whole = f"{begin}\n{setting}\n(diffcode-use 'python-mode)\n(visit {json.dumps(str(file))})\n{script}"
    (folder / "script.el").write_text(whole)
    environment = {**os.environ, **ENVIRONMENT, "HOME": str(folder / "home")}
    return [emacs, "--batch", "-l", str(folder / "script.el")], environment


def told(emacs: str, folder: Path, text: str, script: str, setting: str = "") -> list[Any]:
    """What the script told, call by call."""
    arguments, environment = command(emacs, folder, text, script, setting)
    done = subprocess.run(arguments, env=environment, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [json.loads(line[2:]) for line in done.stdout.splitlines() if line.startswith("@@")]


FUNCTION = "def add(a, b):\n    \n\n\nprint(add(1, 2))\n"


def test_ghost_text_accepting_and_undo(emacs: str, tmp_path: Path):
    script = """
(goto-char (point-min)) (forward-line 1) (end-of-line)
(type "return SPC") (until #'ghost) (tell (ghost) (line))
(type "a") (until #'ghost) (tell (ghost) (line))
(type "M-<right>") (until #'ghost) (tell (ghost) (line))
(type "TAB") (tell (ghost) (line))
(type "C-/") (tell (ghost) (line))
(type "C-/") (tell (ghost) (line))
(diffcode-suggest) (until #'ghost) (type "C-g") (tell (ghost) (line))
(diffcode-suggest) (until #'ghost) (type "<left>") (tell (ghost) (line))
"""
    assert told(emacs, tmp_path, FUNCTION, script) == [
        ["a + b", "    return "],
        [" + b", "    return a"],
        [" b", "    return a +"],
        [None, "    return a + b"],
        [None, "    return a +"],
        [None, "    return a"],
        [None, "    return a"],
        [None, "    return a"],
    ]


def test_where_point_rests_is_told(emacs: str, tmp_path: Path):
    script = """
(goto-char (point-min)) (forward-line 1) (end-of-line) (type "return SPC") (until #'ghost)
(type "M->")
(defun figures () (jsonrpc-request (diffcode--server) :workspace/executeCommand '(:command "diffcode.status")))
(until (lambda () (> (plist-get (figures) :read) 0))) (tell "read")
"""
    assert told(emacs, tmp_path, FUNCTION, script) == [["read"]]


def test_characters_outside_of_ascii_and_several_lines(emacs: str, tmp_path: Path):
    script = """
(goto-char (point-min)) (end-of-line) (type "RET") (until #'ghost) (tell (ghost))
(type "TAB") (tell (text)) (type "C-/") (tell (line))
(erase-buffer) (insert "def f(name):\\n    '😀é' and print('é😀'); é") (insert "\\n\\n\\nf('x')\\n") (goto-char 14)
(end-of-line) (type "SPC = SPC") (until #'ghost) (type "TAB") (tell (line))
"""
    assert told(emacs, tmp_path, "def both(a, b):\n\n\nprint(both(1, 2))\n", script) == [
        ["c = a\n    return c + b"],
        ["def both(a, b):\n    c = a\n    return c + b\n\n\nprint(both(1, 2))\n"],
        ["    "],
        ["    '😀é' and print('é😀'); é = '😀' + name"],
    ]


HOLES = "x = ???\n\n\ndef twice(n):\n    return n * 2\n\n\ny = ???\n"
FILLED = HOLES.replace("???", "first", 1).replace("???", "second")


def test_filling_is_one_step_of_undo(emacs: str, tmp_path: Path):
    script = """
(goto-char (point-min)) (type "z SPC = SPC 1 RET")
(diffcode-fill t) (until (lambda () (string-match "second" (text)))) (accept-process-output nil 0.1)
(tell (text)) (type "C-/") (tell (text)) (type "C-/") (tell (text))
(goto-char (point-max)) (forward-line -1)
(diffcode-fill nil) (until (lambda () (string-match "second" (text)))) (tell (line))
(diffcode-vary 100) (until (lambda () (string-match "something" (text)))) (accept-process-output nil 0.1)
(type "C-/") (tell (line))
(let (said)
  (advice-add 'message :before (lambda (form &rest more) (setq said (apply #'format form more))))
  (diffcode-fill nil) (until (lambda () (string-match "nothing to do" (or said "")))) (tell said)
  (diffcode-status) (until (lambda () (string-match ":state normal" said)))
  (goto-char (point-min)) (insert "\n\nsomething\n") (goto-char (1+ (point-min)))
  (diffcode-suggest) (until (lambda () (string-match "nothing to suggest" said))) (tell said))
"""
    assert told(emacs, tmp_path, HOLES, script) == [
        ["z = 1\n" + FILLED],
        ["z = 1\n" + HOLES],
        ["z = 1" + HOLES],  # the step before: the new line
        ["y = second"],
        ["y = second"],
        ["diffcode: fill: there is nothing to do here"],
        ["diffcode: nothing to suggest: nothing is left to say"],
    ]


def test_as_an_item_of_completion_and_by_eglots_own_code_actions(emacs: str, tmp_path: Path):
    script = """
(goto-char (point-min)) (forward-line 1) (end-of-line)
(insert "return ") (completion-at-point) (tell (line))
(goto-char (point-max)) (insert "y = ???")
(let* ((server (eglot-current-server)) (actions (eglot-code-actions (point) (point) "quickfix"))
       (action (car actions)))
  (tell (plist-get action :title))
  (let ((command (plist-get action :command)))
    (eglot-execute-command server (intern (plist-get command :command)) (plist-get command :arguments))))
(until (lambda () (string-match "second" (text)))) (tell (line))
"""
    found = told(emacs, tmp_path, FUNCTION, script, "(setq diffcode-ghost-text nil)")
    assert found == [["    return a + b"], ["Fill ???"], ["y = second"]]


def test_the_server_goes_with_an_emacs_that_is_killed(emacs: str, tmp_path: Path):
    number = '(format "%d " (process-id (jsonrpc--process (eglot-current-server))))'
    arguments, environment = command(
        emacs, tmp_path, FUNCTION, f'(write-region {number} nil "number") (while t (accept-process-output nil 1))'
    )
    with subprocess.Popen(
        arguments, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        file = tmp_path / "number"
        server = int(wait_for(lambda: file.exists() and file.read_text()))
        assert running(server)
        process.send_signal(signal.SIGKILL)
    wait_for(lambda: not running(server))
