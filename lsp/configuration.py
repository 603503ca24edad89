"""Keeps the settings up to date: those of `initialize`, those asked for, those sent along with a change."""

import logging
from collections.abc import Callable
from typing import Any

from diffcode.lsp.client import Client
from diffcode.lsp.endpoint import Endpoint, NoAnswer
from diffcode.lsp.messages import Params, RequestError
from diffcode.lsp.settings import SECTION, Reading, Settings, read

log = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0  # then the settings stay as they are
WARNING = 2  # MessageType


class Configuration:
    """The settings of one connection; `changed` is called with the old and the new ones."""

    def __init__(self, endpoint: Endpoint, changed: Callable[[Settings, Settings], None]) -> None:
        self.settings = Settings()
        self._endpoint = endpoint
        self._changed = changed
        self._client = Client()
        self._pulls = 0
        self._said: set[str] = set()

    def start(self, client: Client) -> None:
        """Read what `initialize` brought."""
        self._client = client
        self._take(None)

    def ready(self) -> None:
        """The editor may be asked now."""
        if self._client.supports("workspace.didChangeConfiguration.dynamicRegistration"):
            self._endpoint.spawn(self._register())
        if self._client.supports("workspace.configuration"):
            self._endpoint.spawn(self._pull())

    def did_change(self, params: Params) -> None:
        """`workspace/didChangeConfiguration`: editors that can be asked are; the others send the settings along."""
        if self._client.supports("workspace.configuration"):
            self._endpoint.spawn(self._pull())
        else:
            self._take(params.get("settings"))

    async def _pull(self) -> None:
        self._pulls += 1
        mine = self._pulls
        question = {"items": [{"section": SECTION}]}
        try:
            answer = await self._endpoint.ask("workspace/configuration", question, seconds=ANSWER_SECONDS)
        except (RequestError, NoAnswer) as error:
            log.warning("the settings stay as they are: %s", error)
            return
        if mine == self._pulls:  # else a newer question is under way
            self._take(answer[0] if isinstance(answer, list) and answer else None)

    async def _register(self) -> None:
        method = "workspace/didChangeConfiguration"
        one = {"id": method, "method": method, "registerOptions": {"section": SECTION}}
        try:
            await self._endpoint.ask("client/registerCapability", {"registrations": [one]}, seconds=ANSWER_SECONDS)
        except (RequestError, NoAnswer) as error:
            log.info("the editor may not tell of changed settings: %s", error)

    def _take(self, section: Any) -> None:
        reading = read(self._client.options, section)
        self._complain(reading)
        old, self.settings = self.settings, reading.settings
        if old != self.settings:
            self._changed(old, self.settings)

    def _complain(self, reading: Reading) -> None:
        """Every complaint is made once a connection."""
        unknown = sorted(set(reading.unknown) - self._said)
        if unknown:
            log.info("settings that diffcode does not know: %s", ", ".join(unknown))
        bad = [sentence for sentence in dict.fromkeys(reading.bad) if sentence not in self._said]
        if bad:
            message = f"{'; '.join(bad)}: the default is used"
            log.warning("%s", message)
            self._endpoint.notify("window/showMessage", {"type": WARNING, "message": message})
        self._said.update(unknown, bad)
