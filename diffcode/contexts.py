"""Contexts that were read already, kept for the next fill of the same text.

Typing appends to the prefix, which stands last on the canvas: nearly all of the next fill's context is the one before.
"""

import threading
from collections.abc import Sequence

from diffcode.kernels.cpu.engine import EngineSession

WORTH = 16  # tokens: a shorter common beginning is read again as fast
# Tokens that would be lost if a session went on from a common beginning: from so many on it is copied instead. A narrow
# window's suffix is the beginning of a wide one's, and while somebody types both are wanted, one after the other.
DEAR = 32


class Contexts:
    """Sessions of the CPU engine that nobody uses now, by what they have read; the least recently used go first."""

    def __init__(self, most_bytes: int = 256 << 20):
        self.most_bytes = most_bytes
        self._lock = threading.Lock()
        self._idle: list[tuple[tuple[int, ...], EngineSession, bool]] = []

    def take(self, context: Sequence[int], open_ended: bool = False) -> tuple[EngineSession, int] | None:
        """A session that has read a beginning of `context`, and how many tokens of it; never all of them. One that has
        read much else besides stays here too. `open_ended`: with which weights (Model.session)."""
        with self._lock:
            at, length = self._best(context, open_ended)
            if not length:
                return None
            tokens, session, kind = self._idle.pop(at)
            if len(tokens) - length < DEAR:
                return session, length
            self._idle.append((tokens, session, kind))
            return session.fork(length), length

    def known(self, context: Sequence[int], open_ended: bool = False) -> int:
        """How many tokens of `context` need not be read again."""
        with self._lock:
            return self._best(context, open_ended)[1]

    def _best(self, context: Sequence[int], open_ended: bool) -> tuple[int, int]:
        """(which session has read the longest beginning of `context`, how many tokens); 0 tokens where it is not worth
        it."""
        lengths = [common(tokens, context[:-1]) if kind == open_ended else 0 for tokens, _, kind in self._idle]
        best = max(range(len(lengths)), key=lengths.__getitem__, default=None)
        return (0, 0) if best is None or lengths[best] < WORTH else (best, lengths[best])

    def give(self, tokens: Sequence[int], session: EngineSession, open_ended: bool = False) -> None:
        """Keep a session that has read `tokens`."""
        with self._lock:
            self._idle.append((tuple(tokens), session, open_ended))
            while self._idle and sum(session.bytes for _, session, _ in self._idle) > self.most_bytes:
                self._idle.pop(0)


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts have in common at their beginning."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
