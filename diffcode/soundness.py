"""Whether a filled text is in order: what a fill is judged by before it is tried again."""

import ast
import textwrap
import warnings
from collections.abc import Callable, Sequence

from diffcode.errors import BadOption
from diffcode.holes import Hole, apply_edits, line_start
from diffcode.syntax import LANGUAGES, Code, Node, damage, faults, parse

Accept = Callable[[str], bool]


def sound(text: str, holes: Sequence[Hole], language: str) -> Accept:
    """Tells of `text` with its holes filled whether the fills make no syntax error.

    Errors elsewhere are the text's own; one on a line that holds a hole counts as the hole's. Raises BadOption.
    """
    if language not in LANGUAGES:
        raise BadOption(f"there is no grammar for {language!r}: choose one of {', '.join(LANGUAGES)}, or none")
    # The text's own errors show where nothing is missing; with a name or nothing in the holes more may break.
    own = min(_damage_elsewhere(text, holes, word, language) for word in ("x", ""))

    def accept(filled: str) -> bool:
        count, size = damage(faults(parse(filled, language).root_node))
        return count <= own[0] and size <= own[1] and (count > 0 or language != "python" or parses(filled))

    return accept


def _damage_elsewhere(text: str, holes: Sequence[Hole], word: str, language: str) -> tuple[int, int]:
    """The damage that is on no line of a hole, `word` standing in each."""
    code = Code(apply_edits(text, holes, [word] * len(holes)), language)
    lines, longer = [], 0
    for hole in holes:
        at = hole.start + longer
        end = code.text.find("\n", at)
        lines.append((line_start(code.text, at), end if end >= 0 else len(code.text)))
        longer += len(word) - (hole.end - hole.start)

    def elsewhere(fault: Node) -> bool:
        start, end = code.span(fault)
        return not any(start <= last and end >= first for first, last in lines)

    return damage(filter(elsewhere, faults(code.root)))


def parses(text: str) -> bool:
    """Whether Python can read it, a piece of a class too. It is looked at, not run.

    Its own grammar is stricter than tree-sitter's, of blocks above all.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(textwrap.dedent(text.removeprefix("\ufeff")))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
    return True
