"""Frames on the wire: a header with the body's length, an empty line, the body. Knows bytes only, no streams."""

import re

MAX_BODY = 256 * 2**20  # bytes; more is no message but a broken peer
MAX_LINE = 4096  # bytes of a header line that are kept while its end has not come
# Searched for anywhere in a line: so the frame behind a body that was longer than announced is still found.
_LENGTH = re.compile(rb"content-length[ \t]*:[ \t]*([0-9]{1,18})[ \t]*\Z", re.IGNORECASE)
_HEADER = re.compile(rb"[A-Za-z][A-Za-z-]*[ \t]*:")


def frame(body: bytes) -> bytes:
    """A body with its header."""
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


class Frames:
    """Finds the bodies in a stream of bytes. Header names count in any case, unknown headers and \\n for \\r\\n pass.

    Bytes that belong to no frame are skipped up to the next header that names a length, and counted in `skipped`.
    Once a frame announces more bytes than any message has, nothing behind it can be trusted: `refused` has its length.
    """

    def __init__(self) -> None:
        self.skipped = 0
        self.refused: int | None = None
        self._buffer = bytearray()
        self._searched = 0  # so far the buffer has no line end
        self._announced: int | None = None  # the length that the present header names
        self._body: int | None = None  # the length of the body that comes next; None while in a header

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that are complete with these bytes."""
        self._buffer += data
        bodies: list[bytes] = []
        while self.refused is None:
            if self._body is None:
                if not self._take_line():
                    return bodies
            elif len(self._buffer) < self._body:
                return bodies
            else:
                bodies.append(bytes(self._buffer[: self._body]))
                self._drop(self._body)
                self._body = None
        return bodies

    def _take_line(self) -> bool:
        """Read one line of a header, if one is complete."""
        end = self._buffer.find(b"\n", self._searched)
        if end < 0:
            self._forget_long_line()
            self._searched = len(self._buffer)
            return False
        line = bytes(self._buffer[:end]).rstrip(b"\r")
        self._drop(end + 1)
        if match := _LENGTH.search(line):
            self.skipped += match.start()
            self._announced = int(match[1])
            if self._announced > MAX_BODY:
                self.refused = self._announced
        elif not line.strip():
            self._body, self._announced = self._announced, None
        elif not _HEADER.match(line):  # `Content-Type` and whatever else is a header may stand there
            self.skipped += end + 1
        return True

    def _forget_long_line(self) -> None:
        surplus = len(self._buffer) - MAX_LINE
        if surplus > 0:
            self.skipped += surplus
            self._drop(surplus)

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self._searched = 0
