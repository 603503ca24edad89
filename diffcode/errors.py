"""Errors that a person may cause or meet. Each message is one line that says what to do next.

`exit_code` is what the command line ends with; scripts may rely on the numbers.
"""


class DiffcodeError(Exception):
    """Base of every error that is not a bug in diffcode."""

    exit_code = 1


class NothingToFill(DiffcodeError):
    """The text has no hole."""

    exit_code = 1


class BadHoles(DiffcodeError, ValueError):
    """Holes overlap or lie outside the text."""

    exit_code = 2


class BadOption(DiffcodeError, ValueError):
    """An option has a value that it may not have."""

    exit_code = 2


class UnreadableFile(DiffcodeError):
    """The file is missing, binary, not UTF-8 or too large."""

    exit_code = 3


class UnwritableFile(DiffcodeError):
    """The result cannot be written where it should go. The file is as it was."""

    exit_code = 4


class ModelUnavailable(DiffcodeError):
    """Weights or adapter cannot be had, are damaged, or are of a kind that diffcode does not run."""

    exit_code = 5


class Cancelled(DiffcodeError):
    """The caller asked to stop; no edit was made."""

    exit_code = 130


CANCELLED = "cancelled: nothing was changed"
