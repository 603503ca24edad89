"""How long to wait for the next key before the model is asked."""

import time
from collections import deque
from collections.abc import Callable

PAUSE = 1.0  # seconds; longer gaps are thinking, not typing
LONGEST = 0.4  # seconds that a suggestion is ever put off
FIRST_GAP, FIRST_WORK = 0.18, 0.3  # seconds, before anything was measured: a quick typist, the default model
OVER = 1.3  # the next key would have come by this many gaps: so the user has paused
# Gaps between keys that a suggestion may take and is begun at once all the same. What the next key stops has cost the
# battery something, and left behind what it read and wrote; waiting costs the user a gap before every pause.
PATIENT = 2.0
HABIT = 0.2  # weight of the newest measurement
# The quickest of this many last suggestions is what the next one may take: the others read a context that was new,
# which says nothing of the next key's. Guessing low costs a fill that the next key stops; guessing high, as the mean
# did, put off suggestions of 125 ms by 250.
KEPT = 6


class Pace:
    """One user's typing and one model's time. A suggestion that is thrown away costs the battery, one that waits costs
    the user's time: where the model answers within two gaps between keys nothing is put off, else one is waited for."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.gap = FIRST_GAP  # seconds between two keys
        self.work = FIRST_WORK  # seconds until a suggestion is there
        self.worked = self.waited = 0.0  # seconds of the last suggestion: the model's, and put off before
        self.made = 0  # suggestions by the model
        self._works: deque[float] = deque(maxlen=KEPT)
        self._clock = clock
        self._last: float | None = None

    def key(self) -> None:
        """The text has changed."""
        now = self._clock()
        if self._last is not None and 0 < now - self._last < PAUSE:
            self.gap += HABIT * (now - self._last - self.gap)
        self._last = now

    def took(self, seconds: float) -> None:
        """A suggestion was made in that time."""
        self.worked, self.made = seconds, self.made + 1
        self._works.append(seconds)
        self.work = min(self._works)

    @property
    def since_key(self) -> float:
        """Seconds since the last key; infinite before the first."""
        return float("inf") if self._last is None else self._clock() - self._last

    def delay(self, fixed: float | None = None) -> float:
        """Seconds to wait from now on; `fixed` is what the user has set, counted from the last key."""
        if fixed is None:
            fixed = 0.0 if self.work < PATIENT * self.gap else min(OVER * self.gap, LONGEST)
        return max(0.0, fixed - self.since_key)
