"""How much of a text can be read in time, and reading the rest while nobody waits.

A context that is new costs its tokens before the first one of a fill is there: a thousand take 0.9 to 1.5 s on two
cores. Somebody who types has gone on by then.
"""

from dataclasses import replace

from diffcode.canvas import JUMPS, Block, make_block
from diffcode.holes import Hole
from diffcode.infill import Infiller
from diffcode.interrupt import Stop

SHARES = (1, 3 / 4, 1 / 2, 3 / 8, 1 / 4)  # of the infiller's window
LEAST = 256  # tokens of the narrowest window
LITTLE = 0.03  # seconds that nobody notices
TELLING = 64  # tokens; fewer say little about how fast they are read
FIRST_RATE = 0.001  # seconds a token, before anything was measured: two cores of today
HABIT = 0.3  # weight of the newest measurement


class Reader:
    """One model's windows, the widest first. One thread at a time."""

    def __init__(self, infiller: Infiller):
        widest, *budgets = (int(share * infiller.window.budget) for share in SHARES)
        budgets = [widest, *(budget for budget in budgets if budget >= LEAST)]
        jump = infiller.window.jump or widest // JUMPS  # of all: with each, a narrow window is read anew as well
        self.views = [infiller.seeing(replace(infiller.window, budget=budget, jump=jump)) for budget in budgets]
        self.rate = FIRST_RATE

    def outlook(self, text: str, hole: Hole, seconds: float) -> tuple[Infiller, int]:
        """The infiller with the widest window that can be read in time, or else the narrowest one; and how many tokens
        of its context are yet to be read.

        In time: within so many seconds, and in no more than twice the time that the narrowest window takes. Where that
        one is known, as it is while somebody types, nothing is waited for.
        """
        narrow = self._unread(self.views[-1], text, hole)
        most = min(seconds, 2 * narrow * self.rate + LITTLE)
        known = narrow * self.rate <= LITTLE  # then only what `read` has read can be known too
        for view in self.views[: 1 if known else -1]:
            if (unread := self._unread(view, text, hole)) * self.rate <= most:
                return view, unread
        return self.views[-1], narrow

    def took(self, tokens: int, seconds: float) -> None:
        """So many tokens of context were read in that time."""
        if tokens >= TELLING:
            self.rate += HABIT * (seconds / tokens - self.rate)

    def read(self, text: str, hole: Hole, stop: Stop, least: bool = False) -> None:
        """Read all that the widest window shows, or the narrowest one, for the next fill there. Raises Cancelled."""
        view = self.views[-1 if least else 0]
        if view.model.engine is None:
            return  # torch keeps nothing
        block = self._block(view, text, hole)
        session = view.model.session(contexts=view.contexts, flag=stop.flag, open_ended=block.open_ended)
        try:
            session.step(block.context, (), (), (), 0, [None])
            session.keep(len(block.context))
        finally:
            session.close()

    def _unread(self, view: Infiller, text: str, hole: Hole) -> int:
        block = self._block(view, text, hole)
        return len(block.context) - view.contexts.known(block.context, block.open_ended)

    def _block(self, view: Infiller, text: str, hole: Hole) -> Block:
        return make_block(text, (hole,), ("",), 0, view.model.tokens, view.window)
