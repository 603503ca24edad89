"""What the server is about, for an editor's status line."""

import logging
from typing import Literal

from diffcode.lsp.endpoint import Endpoint

log = logging.getLogger(__name__)

State = Literal["normal", "busy", "inactive", "error"]
METHOD = "diffcode/status"


class Status:
    """Sends `diffcode/status {state, reason}` when it changes.

    Only to editors that ask for it with the client capability `experimental.diffcodeStatus`: to lsp-mode an unknown
    notification is worth a warning each. Why nothing is offered is logged for all of them.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.wanted = False
        self._endpoint = endpoint
        self._last: tuple[State, str | None] = ("normal", None)
        self._logged: set[str | None] = set()

    def set(self, state: State, reason: str | None = None) -> None:
        """The state from now on; `inactive` and `error` come with the reason, as one sentence for a person."""
        if (state, reason) == self._last:
            return
        self._last = (state, reason)
        if state in ("inactive", "error") and reason not in self._logged:
            self._logged.add(reason)  # each reason once, however often one changes between two files
            log.log(logging.ERROR if state == "error" else logging.INFO, "%s", reason)
        self.send()

    def send(self) -> None:
        state, reason = self._last
        if self.wanted:
            self._endpoint.notify(METHOD, {"state": state, "reason": reason})
