"""The page of `diffcode lsp --web`: who may come in, what is served, and whether it is made from its sources."""

import hashlib
import http.client
import re
import socket
import subprocess
from pathlib import Path

import pytest
from lsp_web import web

from diffcode.lsp import pages

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "editors" / "web"
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


@pytest.fixture(scope="module")
def server():
    with web() as running:
        yield running


def get(port: int, path: str, **headers: str | None) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body; a header that is None is left out, `_` in names is -."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    link.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
    for name, value in {"Host": f"127.0.0.1:{port}", **headers}.items():
        for one in [value] if isinstance(value, str) else value or ():
            link.putheader(name.replace("_", "-"), one)
    link.endheaders()
    answer = link.getresponse()
    try:
        body = b"" if answer.status == 101 else answer.read()
        return answer.status, dict(answer.getheaders()), body
    finally:
        link.close()


# ---- who may come in

SOCKET = "/{token}/lsp"
REFUSED = [
    ("/", {}),
    ("/lsp", {"socket": True}),
    ("/{other}/", {}),
    ("/{other}/lsp", {"socket": True}),
    ("/{half}/", {}),
    ("/{token}x/", {}),
    ("//{token}/", {}),
    ("/?token={token}", {}),
    ("/%C3%A4/", {}),
    ("/{token}/", {"Host": None}),
    ("/{token}/", {"Host": "127.0.0.1"}),
    ("/{token}/", {"Host": "127.0.0.1:1"}),
    ("/{token}/", {"Host": "evil.example:{port}"}),
    ("/{token}/", {"Host": ["127.0.0.1:{port}", "evil.example"]}),
    ("/{token}/", {"Origin": "http://evil.example"}),
    ("/{token}/page.js", {"Origin": "null"}),
    (SOCKET, {"socket": True, "Host": "evil.example:{port}", "Origin": "http://evil.example:{port}"}),
    (SOCKET, {"socket": True, "Origin": None}),
    (SOCKET, {"socket": True, "Origin": "null"}),
    (SOCKET, {"socket": True, "Origin": "http://evil.example"}),
    (SOCKET, {"socket": True, "Origin": "https://127.0.0.1:{port}"}),
    (SOCKET, {"socket": True, "Origin": "http://127.0.0.1:1"}),
    (SOCKET, {"socket": True, "Origin": "http://127.0.0.1:{port}.evil.example"}),
    (SOCKET, {"socket": True, "Origin": "http://localhost:{port}"}),  # Host says 127.0.0.1
    (SOCKET, {"socket": True, "Origin": ["http://127.0.0.1:{port}", "http://evil.example"]}),
]


def fill_in(value, known: dict[str, object]):
    if isinstance(value, list):
        return [one.format_map(known) for one in value]
    return value.format_map(known) if isinstance(value, str) else value


@pytest.mark.parametrize(("path", "headers"), REFUSED)
def test_who_has_not_the_address_is_refused(server, path, headers):
    other = ("b" if server.token[0] == "a" else "a") + server.token[1:]
    known = {"port": server.port, "token": server.token, "other": other, "half": server.token[:20]}
    given = {name: fill_in(value, known) for name, value in headers.items()}
    if given.pop("socket", False):
        given = {"Origin": f"http://127.0.0.1:{server.port}", **UPGRADE, **given}
    path = path.format_map(known).encode().decode("latin-1")
    link = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    lines = [f"GET {path} HTTP/1.1"]
    for name, value in {"Host": f"127.0.0.1:{server.port}", **given}.items():
        lines += [f"{name}: {one}" for one in ([value] if isinstance(value, str) else value or ())]
    with link:
        link.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        answer = link.makefile("rb").read()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 403 "), head
    assert server.token.encode() not in answer
    assert b"not the address" in body


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LocalHost"])
def test_the_page_opens_a_socket_by_each_of_our_names(server, name):
    headers = {"Host": f"{name}:{server.port}", "Origin": f"http://{name.lower()}:{server.port}"}
    assert get(server.port, f"/{server.token}/lsp", **headers, **UPGRADE)[0] == 101


def test_the_token_is_new_every_time(server):
    with web() as other:
        assert other.token != server.token
        assert get(other.port, f"/{server.token}/")[0] == 403


# ---- what is served


@pytest.mark.parametrize(
    ("name", "kind"), [("", "text/html"), ("page.js", "text/javascript"), ("page.css", "text/css")]
)
def test_the_pages_files(server, name, kind):
    status, headers, body = get(server.port, f"/{server.token}/{name}?x=1")
    assert status == 200
    assert headers["Content-Type"] == f"{kind}; charset=utf-8"
    assert int(headers["Content-Length"]) == len(body) > 1000
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "Server" not in headers


@pytest.mark.parametrize("path", ["x", "index.html", "licences.txt", "..", "../settings.schema.json", "lsp/", "lsp/x"])
def test_nothing_else_is_served(server, path):
    assert get(server.port, f"/{server.token}/{path}", Origin=f"http://127.0.0.1:{server.port}")[0] == 404


def test_the_socket_is_no_page(server):
    assert get(server.port, f"/{server.token}/lsp", Origin=f"http://127.0.0.1:{server.port}")[0] == 426


def test_the_policy_lets_the_page_do_what_it_must_and_no_more(server):
    nonces = set()
    for host in (f"127.0.0.1:{server.port}", f"localhost:{server.port}"):
        _, headers, body = get(server.port, f"/{server.token}/", Host=host)
        policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
        nonce = re.search(r"'nonce-([\w-]{20,})'", policy["style-src"])[1]
        assert policy == {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": f"'self' 'nonce-{nonce}'",
            "img-src": "'self' data:",
            "connect-src": f"ws://{host}",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
        assert f'nonce="{nonce}"'.encode() in body
        assert pages.NONCE not in body
        nonces.add(nonce)
    assert len(nonces) == 2


def test_the_page_names_no_other_address():
    for name in ("index.html", "page.css"):
        text = (pages.FOLDER / name).read_text().replace("http://www.w3.org/2000/svg", "")
        assert "//" not in text.replace("/*", "")
        assert "style=" not in text
        assert "<script>" not in text


# ---- the bundle


def test_the_bundle_is_made_from_the_sources():
    if not SOURCES.is_dir():
        pytest.skip("not a checkout")
    said = re.match(r"/\* Made from editors/web, sources sha256:([0-9a-f]{64})", (pages.FOLDER / "page.js").read_text())
    names = ["build.mjs", "package-lock.json", "page.css", "page.html"]
    names += sorted(f"src/{path.name}" for path in (SOURCES / "src").iterdir())
    total = hashlib.sha256()
    for name in names:
        total.update(name.encode() + b"\0" + (SOURCES / name).read_bytes() + b"\0")
    assert said[1] == total.hexdigest(), "run `npm ci && npm run build` in editors/web"


def test_the_bundle_is_small_and_says_whose_it_is():
    assert (pages.FOLDER / "page.js").stat().st_size < 500_000
    licences = (pages.FOLDER / "licences.txt").read_text()
    for name in ("@codemirror/view", "@codemirror/lsp-client", "@lezer/python", "style-mod"):
        assert re.search(rf"^{name} [0-9.]+ \(MIT\)\n\n\S", licences, re.MULTILINE)
    assert "has no licence file" not in licences


needs_node = pytest.mark.skipif(not (SOURCES / "node_modules").is_dir(), reason="`npm ci` was not run in editors/web")


@needs_node
def test_a_build_gives_the_same_bundle(tmp_path):
    subprocess.run(["node", "build.mjs"], cwd=SOURCES, env={"OUT": str(tmp_path), "PATH": "/usr/bin:/bin"}, check=True)
    for path in pages.FOLDER.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


@needs_node
def test_the_scripts_own_tests():
    done = subprocess.run(["node", "--test", "test/"], cwd=SOURCES, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# fail 0" in done.stdout
