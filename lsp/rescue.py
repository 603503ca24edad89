"""Text that does not parse as it is, made to: what it leaves open is closed, the last lines go.

A model that sees the brackets behind the cursor may take one of them for its own, and one that ran out of tokens ends
anywhere; what it wrote before that is still good.
"""

from collections.abc import Iterator

from diffcode.blocks import CLOSERS
from diffcode.lsp.spot import indentation
from diffcode.stops import OPENERS, brackets

VERSIONS = 8  # each costs a parse


def rescued(new: str, head: str, cut: bool = True) -> Iterator[str]:
    """Versions of `new`, the longest first; all of it where nothing may be `cut`. `head` is what stands left of it on
    its line."""
    lines = new.split("\n")
    for count in range(len(lines), max(0, len(lines) - (VERSIONS if cut else 1)), -1):
        version = "\n".join(lines[:count]).rstrip()
        if version.strip() and (whole := _closed(version, head)) not in (None, new):
            yield str(whole)


def _closed(new: str, head: str) -> str | None:
    """With every bracket closed that it opens, blocks on lines of their own; None if it ends with an open one."""
    text = head + new
    opened = [at for at in brackets(text)[0] if at >= len(head)]
    if opened and opened[-1] == len(text) - 1:
        return None
    last = None  # the line of the bracket that was closed before
    for at in reversed(opened):
        start = text.rfind("\n", 0, at) + 1
        ends_line = not text[at + 1 :].split("\n", 1)[0].strip(OPENERS)
        lead = "\n" + indentation(text[start:]) if ends_line and start != last else ""
        new, last = new + lead + CLOSERS[OPENERS.index(text[at])], start
    return new
