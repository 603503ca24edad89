"""The page of `diffcode lsp --web`: its files, and the headers that keep everything else out of it.

The files are made by `npm run build` in editors/web.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "page"
TYPES = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}
NAMES = {"": "index.html", "page.js": "page.js", "page.css": "page.css"}
NONCE = b"__NONCE__"  # in index.html: CodeMirror makes style sheets, and says by it that they are the page's own
# What the page may do: run its own script, use its own styles, talk to this server.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data:; "
    "connect-src ws://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Page:
    """A file and its headers."""

    body: bytes
    headers: dict[str, str]


def page(name: str, host: str) -> Page | None:
    """The file behind a path below the token, for a browser that calls this server `host`; None if there is none."""
    if name not in NAMES:
        return None
    file = FOLDER / NAMES[name]
    nonce = secrets.token_urlsafe(16)
    body = file.read_bytes()
    if file.suffix == ".html":
        body = body.replace(NONCE, nonce.encode())
    policy = POLICY.format(nonce=nonce, host=host)
    return Page(body, {**HEADERS, "Content-Type": TYPES[file.suffix[1:]], "Content-Security-Policy": policy})
