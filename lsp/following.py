"""Which ripples the user's last edits have: looked for beside the event loop, kept for each version of a document."""

import asyncio
from collections.abc import Sequence

from diffcode.lsp.desk import Desk
from diffcode.lsp.document import Snapshot
from diffcode.lsp.places import Ripple
from diffcode.lsp.ripple import ripples

LONGEST = 200_000  # characters: names are resolved in Python, some 0.2 s for that much


class Following:
    """Ripples of one connection's documents."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._found: dict[str, tuple[int, tuple[Ripple, ...]]] = {}

    async def ripples(self, snapshot: Snapshot) -> tuple[Ripple, ...]:
        """Of the newest burst of edits that has any."""
        version, found = self._found.get(snapshot.uri, (None, ()))
        if version == snapshot.version:
            return found
        trail, language = self.desk.trails.get(snapshot.uri), self.desk.language(snapshot)
        if trail is None or language is None or len(snapshot.text) > LONGEST or not self.desk.is_now(snapshot):
            return ()
        before = [str(text) for text in trail.past()]
        found = await asyncio.to_thread(_newest, before, str(snapshot), language) if before else ()
        self._found[snapshot.uri] = (snapshot.version, found)
        return found

    def forget(self, uri: str) -> None:
        self._found.pop(uri, None)


def _newest(before: Sequence[str], now: str, language: str) -> tuple[Ripple, ...]:
    for text in dict.fromkeys(before):
        if found := ripples(text, now, language):
            return found
    return ()
