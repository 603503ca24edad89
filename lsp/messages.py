"""JSON-RPC messages: what a frame's body says, and what is wrong with it. Params stay plain dicts, so that unknown
enum values and fields of newer editors pass through."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

Id: TypeAlias = int | float | str | None
Params: TypeAlias = dict[str, Any]


class Code(IntEnum):
    """Error codes of JSON-RPC and the language server protocol."""

    PARSE_ERROR = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    INTERNAL_ERROR = -32603
    NOT_INITIALIZED = -32002
    REQUEST_FAILED = -32803  # for an error that a person can do something about
    SERVER_CANCELLED = -32802
    CONTENT_MODIFIED = -32801
    CANCELLED = -32800


class RequestError(Exception):
    """A handler's way to answer with an error; also what the editor's own error answers are raised as."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class BadParams(RequestError):
    """Params that lack something or have the wrong type. The message names the place, never the value."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.INVALID_PARAMS, message)


@dataclass(frozen=True, slots=True)
class Request:
    """Wants an answer."""

    id: int | str
    method: str
    params: Any


@dataclass(frozen=True, slots=True)
class Notification:
    """Wants none."""

    method: str
    params: Any


@dataclass(frozen=True, slots=True)
class Answer:
    """To a request of ours."""

    id: Id
    result: Any
    error: Any


@dataclass(frozen=True, slots=True)
class Invalid:
    """No message at all. It is answered with the id, as far as one can be made out."""

    id: Id
    code: Code
    reason: str


Message: TypeAlias = Request | Notification | Answer | Invalid


def read(body: bytes) -> Message:
    """What a frame's body says; never raises."""
    try:
        value = json.loads(decode(body))
    except (ValueError, RecursionError):
        return Invalid(None, Code.PARSE_ERROR, "the message is no JSON")
    if isinstance(value, list):
        return Invalid(None, Code.INVALID_REQUEST, "batches are not part of the language server protocol")
    if not isinstance(value, dict):
        return Invalid(None, Code.INVALID_REQUEST, "the message is no JSON object")
    return _read_object(value)


def decode(body: bytes) -> str:
    """UTF-8, forgiving: an editor that lets through one odd byte of a buffer must not lose the whole change."""
    try:
        return body.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return body.decode("utf-8", "replace")


def encode(message: Mapping[str, Any]) -> bytes:
    """A message as a frame's body. Raises TypeError or ValueError for what JSON has no words for."""
    try:
        return json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which only an escape can say; an id comes back as it came
        return json.dumps(message, allow_nan=False, separators=(",", ":")).encode()


def _read_object(value: dict[str, Any]) -> Message:
    id_ = value.get("id")
    if "method" not in value:
        if "result" in value or "error" in value:
            return Answer(id_ if _may_be_id(id_) else None, value.get("result"), value.get("error"))
        if _may_be_id(id_):  # Lua drops `result: null`, so that this may be an answer; the endpoint knows its own ids
            return Answer(id_, None, None)
        return Invalid(None, Code.INVALID_REQUEST, "the message has no method")
    if not isinstance(value["method"], str):
        return Invalid(id_ if _may_be_id(id_) else None, Code.INVALID_REQUEST, "the method is no string")
    if "id" not in value:
        return Notification(value["method"], value.get("params"))
    if isinstance(id_, str) or type(id_) is int:
        return Request(id_, value["method"], value.get("params"))
    reason = "the id of a request is an integer or a string"
    return Invalid(id_ if _may_be_id(id_) else None, Code.INVALID_REQUEST, reason)


def _may_be_id(value: Any) -> bool:
    return isinstance(value, str) or type(value) is int or (type(value) is float and math.isfinite(value))
