"""Where log records go: standard error, a file, and the editor's own log. None of them quotes the user's text.

A record reaches the editor in whose connection's context it is made; records of other threads reach no editor.
"""

import logging
import sys
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

from diffcode.errors import UnwritableFile
from diffcode.lsp.endpoint import blame
from diffcode.lsp.traffic import bodies

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
ROOT = "diffcode"
# MessageType. 4 is the lowest that editors before 3.18 know.
MESSAGE_TYPES = {logging.ERROR: 1, logging.WARNING: 2, logging.INFO: 3, logging.DEBUG: 4}

editor: ContextVar[Callable[[int, str], None] | None] = ContextVar("editor", default=None)

_ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class _Formatter(logging.Formatter):
    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802
        return "" if ei[1] is None else blame(ei[1])


class _EditorHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tell = editor.get()
        if tell is not None and record.name != bodies.name:
            tell(MESSAGE_TYPES.get(record.levelno, 4), self.format(record))


def configure(level: str | None, file: Path | None) -> None:
    """Set up the handlers. Without a level the editor and the file get `info` and standard error only warnings: some
    editors show every line that comes there as an error."""
    logger = logging.getLogger(ROOT)
    logger.setLevel(LEVELS[level or "info"])
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    dated = _Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(LEVELS[level or "warning"])
    handlers: list[logging.Handler] = [terminal]
    if file is not None:
        handlers.append(_file_handler(file))
    for handler in handlers:
        handler.setFormatter(dated)
    told = _EditorHandler()
    told.setFormatter(_Formatter("%(message)s"))
    for handler in (*handlers, told):
        logger.addHandler(handler)


def _file_handler(file: Path) -> logging.Handler:
    try:
        return logging.FileHandler(file, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UnwritableFile(f"cannot write {file} ({error.strerror}): name another file with --log") from None
