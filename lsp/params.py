"""Reading params, which are plain dicts from a stranger. What is missing or has the wrong type raises BadParams."""

from typing import Any

from diffcode.lsp.document import Change
from diffcode.lsp.messages import BadParams, Params
from diffcode.lsp.text import Position, Range


def find(params: Any, path: str, default: Any = None) -> Any:
    """The value at a dotted path, or the default where any part of it is not there."""
    for name in path.split("."):
        if not isinstance(params, dict) or name not in params:
            return default
        params = params[name]
    return params


def string(params: Params, path: str) -> str:
    value = find(params, path)
    if not isinstance(value, str):
        raise BadParams(f"{path} is missing or no string")
    return value


def integer(params: Params, path: str) -> int:
    """Also 3.0, which is how some encoders write 3."""
    value = find(params, path)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise BadParams(f"{path} is missing or no integer")
    return value


def objects(params: Params, path: str) -> list[dict[str, Any]]:
    """A list of objects."""
    value = find(params, path)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadParams(f"{path} is missing or no list of objects")
    return value


def uri(params: Params) -> str:
    return string(params, "textDocument.uri")


def position(params: Params, path: str = "position") -> Position:
    found = Position(integer(params, f"{path}.line"), integer(params, f"{path}.character"))
    if found.line < 0 or found.character < 0:
        raise BadParams(f"{path} is negative")
    return found


def range_(params: Params, path: str = "range") -> Range:
    return Range(position(params, f"{path}.start"), position(params, f"{path}.end"))


def changes(params: Params) -> list[Change]:
    """The `contentChanges` of a didChange; `rangeLength`, deprecated and wrong in some editors, is not looked at."""
    found = []
    for item in objects(params, "contentChanges"):
        found.append(Change(None if item.get("range") is None else range_(item), string(item, "text")))
    return found
