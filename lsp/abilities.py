"""What a connection can do: the features that `diffcode lsp` serves with, and the model that they share."""

from functools import cache

from diffcode.lsp.actions import Actions
from diffcode.lsp.ahead import Ahead
from diffcode.lsp.desk import Desk
from diffcode.lsp.feature import Feature
from diffcode.lsp.lens import Lens
from diffcode.lsp.next_edit import NextEdit
from diffcode.lsp.session import Session
from diffcode.lsp.suggest import Suggest
from diffcode.lsp.workshop import Workshop


@cache
def the_session() -> Session:
    """The process's one model."""
    return Session()


def abilities(session: Session | None = None) -> list[Feature]:
    """New ones for a connection."""
    desk = Desk(session or the_session())
    workshop, ahead = Workshop(desk), Ahead(desk)
    actions = Actions(desk, workshop, ahead)
    return [desk, ahead, Suggest(desk, ahead), actions, NextEdit(desk, workshop), Lens(desk)]
