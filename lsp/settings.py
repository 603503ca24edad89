"""The settings that an editor may give, as one frozen dataclass; settings.schema.json is made from it.

`python -m diffcode.lsp.settings > lsp/settings.schema.json` makes it anew; a test compares the two.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from diffcode.config import POLICY_NAMES

SECTION = "diffcode"
_TYPES: dict[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "array": (list,),
    "null": (type(None),),
}


def _setting(default: Any, about: str, kind: str | list[str], **limits: Any) -> Any:
    """A field with its JSON schema."""
    return field(default=default, metadata={"schema": {"type": kind, "description": about, **limits}})


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user may set. The editor calls the fields in camelCase: maxTokens in the section `diffcode`."""

    enabled: bool = _setting(True, "Offer anything at all.", "boolean")
    inline_completion: bool = _setting(True, "Suggest code at the cursor while typing.", "boolean")
    completion: str = _setting(
        "auto",
        "Suggest in the list of completions: auto does so in editors that have no inline completion.",
        "string",
        enum=["auto", "on", "off"],
    )
    code_actions: bool = _setting(True, "Offer to fill holes, rewrite, vary and repair.", "boolean")
    next_edit: bool = _setting(True, "Offer to change the places that must follow an edit.", "boolean")
    doubt_lens: bool = _setting(False, "Mark code that the model finds unlikely.", "boolean")
    doubt_below: float = _setting(
        0.01, "Least probability of a token that 'Doubt lens' leaves unmarked.", "number", minimum=0, maximum=1
    )
    live_preview: bool = _setting(True, "Show the text in the progress message while it is refined.", "boolean")
    multi_line: str = _setting(
        "auto",
        "Suggest several lines: auto does so where the syntax asks for a block.",
        "string",
        enum=["auto", "always", "never"],
    )
    debounce: int | None = _setting(
        None,
        "Milliseconds without a key before a suggestion is begun; null adapts to how fast you type.",
        ["integer", "null"],
        minimum=0,
        maximum=5000,
    )
    max_tokens: int = _setting(64, "Tokens that a suggestion has at most.", "integer", minimum=1, maximum=1024)
    context_tokens: int = _setting(
        1024,
        "Tokens round the cursor that the model sees at most. Of a text that is new to it a suggestion reads as many "
        "as can be read in time; with prefetch the rest is read while nobody waits.",
        "integer",
        minimum=64,
        maximum=8192,
    )
    prefetch: bool = _setting(
        True,
        "Work ahead while the model has nothing else to do: look for the next suggestion when one was taken, and read "
        "what stands round a cursor that rests.",
        "boolean",
    )
    least_confidence: float = _setting(
        0.6,
        "How sure the model must be of a suggestion that nobody asked for: the mean probability of its tokens.",
        "number",
        minimum=0,
        maximum=1,
    )
    strength: float = _setting(
        0.3, "Share of the tokens that 'Vary selection' changes by itself.", "number", minimum=0.05, maximum=1
    )
    max_file_size: int = _setting(1_000_000, "Characters; nothing is offered in longer files.", "integer", minimum=1000)
    disabled_languages: tuple[str, ...] = _setting(
        (), "Language identifiers, such as markdown, in which nothing is offered.", "array", items={"type": "string"}
    )
    exclude: tuple[str, ...] = _setting(
        ("**/.env", "**/.env.*", "**/*.pem", "**/*.key"),
        "Glob patterns of files in which nothing is offered.",
        "array",
        items={"type": "string"},
    )
    policy: str = _setting("verified", "Which tokens a denoising step commits.", "string", enum=list(POLICY_NAMES))
    threshold: float | None = _setting(
        None, "How sure the policy must be; null is its own default.", ["number", "null"], minimum=0
    )
    temperature: float = _setting(0.0, "0: no chance involved.", "number", minimum=0, maximum=2)
    seed: int = _setting(0, "Same seed, same suggestions.", "integer")
    model: str | None = _setting(
        None, "A GGUF file or Hugging Face folder instead of the default model.", ["string", "null"]
    )
    adapter: str | None = _setting(None, "A span adapter's folder, or none.", ["string", "null"])
    infill: str | None = _setting(None, "The infilling adapter's folder, or none.", ["string", "null"])
    device: str | None = _setting(None, "cpu, cuda, cuda:1, ...; null takes the fastest one.", ["string", "null"])


SCHEMAS: dict[str, dict[str, Any]] = {f.name: f.metadata["schema"] for f in fields(Settings)}


def camel(name: str) -> str:
    """max_tokens to maxTokens."""
    return re.sub("_([a-z])", lambda match: match[1].upper(), name)


NAMES = {camel(name): name for name in SCHEMAS}


@dataclass(frozen=True, slots=True)
class Reading:
    """Settings that were read, and what could not be."""

    settings: Settings
    unknown: tuple[str, ...]
    bad: tuple[str, ...]  # sentences


def read(*sources: Any) -> Reading:
    """The defaults with each source laid over them. A source is the section, or an object that holds the section."""
    values: dict[str, Any] = {}
    unknown: list[str] = []
    bad: list[str] = []
    for source in sources:
        for key, value in _section(source):
            name = NAMES.get(key)
            if name is None:
                unknown.append(key)
            elif problem := _problem(value, SCHEMAS[name]):
                bad.append(f"{SECTION}.{key} {problem}")
            else:
                values[name] = tuple(value) if isinstance(value, list) else value
    return Reading(Settings(**values), tuple(unknown), tuple(bad))


def schema() -> dict[str, Any]:
    """The JSON schema of the section."""
    defaults = Settings()
    properties = {}
    for key, name in NAMES.items():
        default = getattr(defaults, name)
        properties[key] = {**SCHEMAS[name], "default": list(default) if isinstance(default, tuple) else default}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": SECTION,
        "description": "Settings of `diffcode lsp`, in the section `diffcode` or as initializationOptions.",
        "type": "object",
        "properties": properties,
    }


def _section(source: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(source, dict) and isinstance(source.get(SECTION), dict):
        source = source[SECTION]
    return source.items() if isinstance(source, dict) else ()


def _problem(value: Any, wanted: dict[str, Any]) -> str | None:
    """What is wrong with a value, to be said behind its name; None where nothing is."""
    kinds = [wanted["type"]] if isinstance(wanted["type"], str) else wanted["type"]
    types = tuple(t for kind in kinds for t in _TYPES[kind])
    if not isinstance(value, types) or (isinstance(value, bool) and "boolean" not in kinds):
        return f"must be of type {' or '.join(kinds)}"
    if "enum" in wanted and value not in wanted["enum"]:
        return f"must be one of {', '.join(wanted['enum'])}"
    least, most = wanted.get("minimum"), wanted.get("maximum")
    if isinstance(value, int | float) and not (value >= least if least is not None else True):
        return f"must be {least} or more"
    if isinstance(value, int | float) and not (value <= most if most is not None else True):
        return f"must be {most} or less"
    if isinstance(value, list) and not all(isinstance(item, str) for item in value):
        return "must be a list of strings"
    return None


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))
