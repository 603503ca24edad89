"""Drafts from the text itself: code repeats, so what followed the same few tokens before may follow again."""

from collections.abc import Sequence

LONGEST, SHORTEST = 4, 2  # tokens that must match; one token matches too often to mean anything


class NGrams:
    """An index of runs of 2 to 4 tokens, kept up to date as tokens are committed."""

    def __init__(self, tokens: Sequence[int] = ()):
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # a run to the offset behind its latest place
        self.extend(tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        """Add tokens to the end. A run is indexed once something follows it."""
        for token in tokens:
            at = len(self._tokens)
            for n in range(SHORTEST, min(LONGEST, at) + 1):
                self._after[tuple(self._tokens[at - n :])] = at
            self._tokens.append(token)

    def follow(self, tentative: Sequence[int]) -> int | None:
        """The token that followed the longest earlier match of the end of what stands here plus `tentative`."""
        tail = (*self._tokens[-LONGEST:], *tentative)[-LONGEST:]
        for n in range(len(tail), SHORTEST - 1, -1):
            at = self._after.get(tail[-n:])
            if at is not None:
                return self._tokens[at]
        return None


def likeliest_outcomes(chances: Sequence[float], count: int) -> tuple[int, ...]:
    """How many of the drafts a check may keep: the `count` likeliest numbers, ascending.

    `chances[i]`: that draft i is right where all before it were.
    """
    outcomes, run = [], 1.0
    for chance in chances:
        outcomes.append(run * (1 - chance))
        run *= chance
    outcomes.append(run)
    order = sorted(range(len(outcomes)), key=lambda kept: -outcomes[kept])
    return tuple(sorted(order[:count]))
