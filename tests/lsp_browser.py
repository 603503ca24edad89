"""A headless Chromium over the DevTools protocol: enough of it to use a page as a person does."""

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--hide-scrollbars", "--remote-debugging-port=0",
    "--window-size=1000,640",
)  # fmt: skip
KEYS = {  # name: (key, code, number)
    "Tab": ("Tab", "Tab", 9),
    "Enter": ("Enter", "Enter", 13),
    "Escape": ("Escape", "Escape", 27),
    "Backspace": ("Backspace", "Backspace", 8),
    "ArrowLeft": ("ArrowLeft", "ArrowLeft", 37),
    "End": ("End", "End", 35),
    "]": ("]", "BracketRight", 221),
}
ALT, CONTROL, SHIFT = 1, 2, 8
WAIT = 20.0  # seconds


def find_browser() -> str | None:
    named = os.environ.get("DIFFCODE_CHROMIUM")
    return named or next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """One page, what it asked the network for, and what it complained of."""

    def __init__(self, link: ClientConnection) -> None:
        self.complaints: list[str] = []
        self.addresses: list[str] = []
        self._link = link
        self._ids = 0
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        self._ids += 1
        self._link.send(json.dumps({"id": self._ids, "method": method, "params": params}))
        while True:
            message = json.loads(self._link.recv(timeout=WAIT))
            if message.get("id") == self._ids:
                assert "error" not in message, message
                return message["result"]
            self._note(message.get("method"), message.get("params"))

    def _note(self, method: str, params: Any) -> None:
        if method == "Network.requestWillBeSent":
            self.addresses.append(params["request"]["url"])
        elif method == "Network.webSocketCreated":
            self.addresses.append(params["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(params["args"]))

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def until(self, script: str, wanted: Any = None) -> Any:
        """The expression's value, once it is `wanted`, or anything true."""
        end = time.monotonic() + WAIT
        while True:
            value = self.run(script)
            if (value == wanted) if wanted is not None else value:
                return value
            assert time.monotonic() < end, f"{script} stayed {value!r}, wanted {wanted!r}"
            time.sleep(0.02)

    def go(self, address: str) -> None:
        self.call("Page.navigate", url=address)

    def press(self, name: str, modifiers: int = 0) -> None:
        key, code, number = KEYS.get(name) or (name, f"Key{name.upper()}", ord(name.upper()))
        given = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": modifiers}
        text = {"text": "\r"} if name == "Enter" and not modifiers else {}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **given, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **given)

    def type(self, text: str) -> None:
        """Key by key."""
        for character in text:
            if character == "\n":
                self.press("Enter")
            else:
                self.call("Input.dispatchKeyEvent", type="keyDown", key=character, text=character)
                self.call("Input.dispatchKeyEvent", type="keyUp", key=character)

    def click(self, selector: str) -> None:
        x, y = self.run(
            f"(r => [r.x + r.width / 2, r.y + r.height / 2])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def media(self, **features: str) -> None:
        given = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=given)

    def size(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextmanager
def browser(program: str, folder: Path):
    """The first tab of a browser whose profile lies in `folder`."""
    command = [program, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = _port(process, folder / "DevToolsActivePort")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=WAIT) as answer:
            (page,) = (one for one in json.load(answer) if one["type"] == "page")
        with connect(page["webSocketDebuggerUrl"], max_size=None, compression=None, proxy=None) as link:
            yield Tab(link)
    finally:
        process.kill()
        process.wait()


def _port(process: subprocess.Popen, file: Path) -> int:
    end = time.monotonic() + WAIT
    while time.monotonic() < end and process.poll() is None:
        if file.exists() and (lines := file.read_text().split("\n"))[1:]:
            return int(lines[0])
        time.sleep(0.05)
    raise AssertionError(f"the browser did not start: exit code {process.poll()}")
