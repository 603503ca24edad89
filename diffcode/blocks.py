"""Where the block ends that a text begins: as far as a fill goes that nothing follows, or that has a line for itself.

With nothing behind the hole the base model writes on, function after function, for nothing tells it to stop. A person
wants the block that the cursor stands in, and no more.
"""

CLOSERS = ")]}"
TRIPLE_QUOTES = ('"""', "'''")


def block_end(head: str, text: str) -> int | None:
    """Offset in `text` behind the last line of the block it begins, None while it has not left it.

    `head` is what stands left of the text on its line. The block is left by a line of code further to the left than its
    first one; at the margin, where there is nothing further left, by one behind a blank line. A line that begins with a
    closing bracket still belongs to the block, and only what is indented deeper may follow it.
    """
    lines = f"{head}{text}".split("\n")
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None:
        return None
    least, closed, blank, behind = _indent(lines[first]), False, False, 0
    at, strings = 0, set[str]()  # the quotes of those that are open: their text may lie anywhere
    for number, line in enumerate(lines):
        shown = line.lstrip()
        if number > first and shown and not strings:
            indent = _indent(line)
            if shown[0] in CLOSERS and indent <= least:
                least, closed = indent, True
            elif indent < least or (indent == least and (closed or (blank and indent == 0))):
                return max(0, behind - len(head))
        if shown:
            behind = at + len(line.rstrip())
        blank = not shown
        strings ^= {quotes for quotes in TRIPLE_QUOTES if line.count(quotes) % 2}
        at += len(line) + 1
    return None


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
