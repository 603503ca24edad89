"""`diffcode lsp`: the language server. Importing this loads no torch: a model is loaded when a fill needs it."""

import asyncio
import logging
import os
import re
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffcode.errors import BadOption, DiffcodeError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from diffcode.lsp.endpoint import Inlet, Outlet
    from diffcode.lsp.feature import Feature
    from diffcode.lsp.runner import MakeServer
    from diffcode.lsp.server import Server

LEVELS = ("debug", "info", "warning", "error")
# A thread that does not stop must not keep the process when the editor has gone.
LEAVE_SECONDS = 3.0
# How long the model's thread may keep the interpreter while an answer waits to be written. With Python's 5 ms a storm
# of 500 requests took 2.5 and 3.1 s instead of 1.6 and 1.7, and pings 2.1 and 2.3 ms at p95 instead of 1.7.
SWITCH_SECONDS = 0.0005
EPILOG = """\b
Editors start this by themselves once they are told the command:
  Neovim 0.11+    vim.lsp.config('diffcode', {cmd = {'diffcode', 'lsp'}}); vim.lsp.enable('diffcode')
  Helix           [language-server.diffcode]  command = "diffcode"  args = ["lsp"]
  Emacs (Eglot)   (add-to-list 'eglot-server-programs '(python-mode . ("diffcode" "lsp")))
\b
Settings come from the editor, in the section `diffcode`; lsp/settings.schema.json of this
package describes them.
\b
Examples:
  diffcode lsp --log lsp.log --log-level debug    what went wrong?
  diffcode lsp --tcp 127.0.0.1:9257               one server, one model, several editors
  diffcode lsp --web                              no editor at hand: a page in your browser
\b
Exit codes: 0 after shutdown and exit, 1 when the editor left without a word or died,
2 for wrong usage, 130 after Ctrl-C.
"""


@click.command("lsp", epilog=EPILOG, context_settings={"show_default": True})
@click.option("--stdio", is_flag=True, help="Talk on standard input and output: the default.")
@click.option("--tcp", metavar="HOST:PORT", help="Listen for editors; port 0 takes a free one.")
@click.option("--web", is_flag=True, help="Serve a page to try it in, for this machine alone, and open it.")
@click.option("--port", type=click.IntRange(0, 65535), metavar="N", help="The page's port. [default: a free one]")
@click.option("--no-open", is_flag=True, help="Only print the page's address.")
@click.option("--log", "log_file", type=click.Path(path_type=Path), metavar="FILE", help="Also log to this file.")
@click.option(
    "--log-level", type=click.Choice(LEVELS), help="Least important records. [default: info; warning on standard error]"
)
@click.option("--log-bodies", is_flag=True, help="Log whole messages, your code included, here and in --log.")
def command(
    stdio: bool,
    tcp: str | None,
    web: bool,
    port: int | None,
    no_open: bool,
    log_file: Path | None,
    log_level: str | None,
    log_bodies: bool,
) -> int:
    """Serve an editor: code at the cursor, holes filled, edits followed up.

    Speaks the language server protocol 3.18. The text stays on this machine and out of the logs.
    """
    if stdio + (tcp is not None) + web > 1:
        raise BadOption("--stdio, --tcp and --web exclude each other: choose one")
    if not web and (port is not None or no_open):
        raise BadOption("--port and --no-open are about the page: add --web")
    address = _address(tcp) if tcp is not None else None
    from diffcode.lsp import logs
    from diffcode.lsp.server import Server

    def make(inlet: "Inlet", outlet: "Outlet") -> "Server":
        return Server(inlet, outlet, features(), log_bodies=log_bodies)

    sys.setswitchinterval(SWITCH_SECONDS)
    logs.configure("info" if log_bodies and log_level is None else log_level, log_file)
    code = asyncio.run(_serve(make, address, (port or 0, not no_open) if web else None))
    _end_model(code)
    leave = threading.Timer(LEAVE_SECONDS, os._exit, (code,))
    leave.daemon = True
    leave.start()
    return code


def _serve(
    make: "MakeServer", address: tuple[str, int] | None, page: tuple[int, bool] | None
) -> "Coroutine[None, None, int]":
    """On standard input and output; at an address; or as a page: its port, and whether it is opened."""
    from diffcode.lsp import runner

    if page is not None:
        from diffcode.lsp import web

        return web.serve_web(make, *page)
    return runner.serve_tcp(make, *address) if address else runner.serve_stdio(make)


def features() -> "list[Feature]":
    """The one place where features come in: new ones for every connection."""
    from diffcode.lsp.abilities import abilities

    return abilities()


def _end_model(code: int) -> None:
    """Let the model's thread end. Where it is loading it cannot: Python must not be taken down under it."""
    from diffcode.lsp.abilities import the_session

    if not the_session().close():
        logging.shutdown()
        os._exit(code)


def _address(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^:]*)):([0-9]{1,5})", text)
    if match is None or int(match[3]) > 65535:
        raise BadOption(f"--tcp {text} is no address: write for example --tcp 127.0.0.1:9257")
    return match[1] or match[2] or "127.0.0.1", int(match[3])


def main() -> None:
    """For `python -m diffcode.lsp.command`; `diffcode lsp` has its own way of telling errors."""
    try:
        sys.exit(command.main(standalone_mode=False))
    except (click.ClickException, DiffcodeError) as error:
        click.echo(
            f"diffcode: {error.format_message() if isinstance(error, click.ClickException) else error}", err=True
        )
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
