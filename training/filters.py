"""Which files are code that somebody wrote: the rules of The Stack and StarCoder, and a few of our own.

Every rule looks at one file; the first that fails names the reason. Limits are fields of one object.
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

_LETTERS_AND_DIGITS = bytes(b for b in range(128) if chr(b).isalnum())
_DIGITS = b"0123456789"
_SPACE = b" \t\r\n\f\v"

# Other people's code under its own licence, and what tools put there.
_VENDORED = """
    node_modules bower_components vendor vendored _vendor _vendored third_party thirdparty 3rdparty third-party
    extern externs external deps site-packages
"""
_GENERATED_NAME = re.compile(
    r"_pb2(_grpc)?\.py$|\.pb\.(go|h|cc)$|[.-]min\.(js|mjs|cjs)$|\.(bundle|chunk|umd)\.js$|\.generated\.|_generated\.|"
    r"\.designer\.|^moc_|^ui_.*\.py$|^(parsetab|lextab|_version|versioneer)\.py$|Lexer\.py$|Parser_?tab\.py$",
    re.IGNORECASE,
)
_DECLARATIONS = (".pyi", ".d.ts", ".d.mts", ".d.cts")  # signatures without bodies: nothing to fill
_HEAD_LINES = 40
_GENERATED = re.compile(
    r"@generated|do not (edit|modify)|auto-?(matically)?[ -]?generated|(file|code|module) (is|was|has been) generated|"
    r"machine[ -]generated|webpackbootstrap|^[^a-z]*((this|file|code|source) )*generated (by|from|with|using|at|on)\b",
    re.IGNORECASE | re.MULTILINE,
)
_COMMENT = ("#", "//", "/*", "*", '"""', "'''", "--", ";", "<!--")
# Words out of base64's or hexadecimal's alphabet: a line that is one of 50 characters or more, quoted or not, or 256
# anywhere. A rule of `====` and a long name have too few digits.
_ENCODED_LINE = re.compile(r"""^[ \t"'bru#/*+(]*([A-Za-z0-9+/=\\]{50,})[ \t"'\\+,;)]*$""", re.MULTILINE)
_ENCODED_RUN = re.compile(r"[A-Za-z0-9+/=]{256}")
_ENCODED_DIGITS = 3


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file may be; the defaults are StarCoder's where it has one."""

    min_bytes: int = 100  # shorter: an empty __init__, a re-export
    max_bytes: int = 500_000  # longer: tables and bundles, hardly ever written by hand
    longest_line: int = 1000  # characters
    mean_line: float = 100.0  # characters
    alphanumeric: float = 0.25  # share of letters and digits, at least
    digits: float = 0.25  # share of digits in what is not white space, at most: above it are tables
    code_lines: int = 3  # lines that are neither empty nor a comment, at least
    encoded_lines: int = 8  # lines of base64 or hexadecimal, at most


def name_reason(name: str) -> str | None:
    """Why a file is left out for its name and folder alone; None if it is not."""
    path = PurePosixPath(name)
    if any(part.lower() in _VENDORED.split() for part in path.parts[:-1]):
        return "vendored"
    if path.name.endswith(_DECLARATIONS):
        return "declarations"
    return "generated" if _GENERATED_NAME.search(path.name) else None


def text_of(data: bytes) -> str | None:
    """Bytes as text with `\\n` line ends and no byte-order mark; None if they are no UTF-8 text."""
    if b"\0" in data:
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def size_reason(size: int, limits: Limits) -> str | None:
    if size < limits.min_bytes:
        return "too small"
    return "too large" if size > limits.max_bytes else None


def text_reason(text: str, limits: Limits) -> str | None:
    """Why a text is left out; None if it is code by somebody's hand."""
    lines = text.split("\n")
    if max(map(len, lines)) > limits.longest_line or len(text) / len(lines) > limits.mean_line:
        return "long lines"
    return _content_reason(text.encode("utf8", errors="surrogatepass"), limits) or _lines_reason(text, lines, limits)


def _content_reason(data: bytes, limits: Limits) -> str | None:
    if len(data) - len(data.translate(None, _LETTERS_AND_DIGITS)) < limits.alphanumeric * len(data):
        return "few letters"
    solid = data.translate(None, _SPACE)
    if len(solid) - len(solid.translate(None, _DIGITS)) > limits.digits * len(solid):
        return "data"
    return None


def _lines_reason(text: str, lines: list[str], limits: Limits) -> str | None:
    stripped = [line.strip() for line in lines]
    if sum(bool(line) and not line.startswith(_COMMENT) for line in stripped) < limits.code_lines:
        return "no code"
    head = "\n".join(line for line in stripped[:_HEAD_LINES] if line.startswith(_COMMENT))
    if _GENERATED.search(head):
        return "generated"
    encoded = sum(map(_is_encoded, _ENCODED_LINE.findall(text)))
    return "data" if encoded > limits.encoded_lines or any(map(_is_encoded, _ENCODED_RUN.findall(text))) else None


def _is_encoded(word: str) -> bool:
    return sum(map(str.isdigit, word)) >= _ENCODED_DIGITS
