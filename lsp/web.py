"""`diffcode lsp --web`: a page for a browser on this machine, and a WebSocket on which it speaks the protocol.

Whoever reaches the port can make the model work and read what it writes, and every page of every site that the user
visits reaches it. So an address has a random token in it, and the Host and Origin that a browser sends must be ours:
against sites that call this machine by a name of theirs, and against those that open a WebSocket to it.
"""

import hmac
import logging
import os
import secrets
import sys
import threading
import webbrowser
from email.utils import formatdate
from http import HTTPStatus

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from diffcode.lsp.endpoint import blame
from diffcode.lsp.frames import MAX_BODY
from diffcode.lsp.pages import page
from diffcode.lsp.runner import CannotListen, Connections, MakeServer, until_signal
from diffcode.lsp.sockets import SocketInlet, SocketOutlet
from diffcode.lsp.streams import FLUSH_SECONDS

log = logging.getLogger(__name__)
# The library's own words would quote the token and the user's text, and tell of every connection that a browser opens
# beforehand and never uses.
silent = logging.getLogger(f"{__name__}.connections")
silent.setLevel(logging.CRITICAL + 1)

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
SOCKET = "lsp"  # its path below the token
REFUSAL = "This is not the address that diffcode has printed.\n"


class Door:
    """Says who may come in, and answers every request but those for the socket."""

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(32)
        self.port = 0  # nobody comes in while it is 0

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}/{self.token}/"

    def answer(self, _connection: ServerConnection, request: Request) -> Response | None:
        """None lets a WebSocket's handshake go on."""
        token, _, name = request.path.partition("?")[0].removeprefix("/").partition("/")
        host = self._host(request)
        if host is None or not self._origin_fits(request, host, name) or not self._is_token(token):
            return _response(HTTPStatus.FORBIDDEN, REFUSAL.encode())
        if name == SOCKET:
            return None
        found = page(name, host)
        if found is None:
            return _response(HTTPStatus.NOT_FOUND, b"There is no such page.\n")
        return _response(HTTPStatus.OK, found.body, found.headers)

    def _host(self, request: Request) -> str | None:
        """What the browser calls this server, if that is one of its names."""
        given = request.headers.get_all("Host")
        known = {f"{name}:{self.port}" for name in NAMES} if self.port else set[str]()
        return given[0].lower() if len(given) == 1 and given[0].lower() in known else None

    def _origin_fits(self, request: Request, host: str, name: str) -> bool:
        """A browser says whose page opens a WebSocket; of the page itself, called by nobody, it says nothing."""
        given = request.headers.get_all("Origin")
        return given == [f"http://{host}"] or (not given and name != SOCKET)

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self.token.encode())


async def serve_web(make: MakeServer, port: int, show: bool) -> int:
    """Serve the page, and a server for every WebSocket, until a signal comes; port 0 takes a free one."""
    over = until_signal()
    connections = Connections(make)
    door = Door()

    async def talk(socket: ServerConnection) -> None:
        try:
            await connections.serve(SocketInlet(socket), SocketOutlet(socket))
        except Exception as error:
            log.error("a connection failed: %s", blame(error))

    try:
        listener = await serve(
            talk,
            HOST,
            port,
            process_request=door.answer,
            compression=None,  # costs time and memory, and saves nothing on one machine
            max_size=MAX_BODY,
            ping_interval=None,  # on one machine no connection goes silent
            close_timeout=FLUSH_SECONDS,
            server_header=None,
            logger=silent,
        )
    except OSError as error:
        raise CannotListen(f"cannot listen at {HOST}:{port} ({error.strerror}): name another --port") from None
    door.port = listener.sockets[0].getsockname()[1]
    print(f"open {door.address} (Ctrl-C ends)", file=sys.stderr, flush=True)
    if show:
        _open(door.address)
    code = await over
    listener.close(close_connections=False)
    await connections.close(code)
    return code


def _response(status: HTTPStatus, body: bytes, headers: dict[str, str] | None = None) -> Response:
    plain = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
    own = {"Date": formatdate(usegmt=True), "Connection": "close", "Content-Length": str(len(body))}
    return Response(status.value, status.phrase, Headers({**(headers or plain), **own}), body)


def _open(address: str) -> None:
    """In a thread that does not keep the process: some browsers' starters come back when the browser ends."""
    if _has_screen():
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def _has_screen() -> bool:
    """Without one, `webbrowser` would start a browser in this very terminal."""
    wanted = ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in wanted)
