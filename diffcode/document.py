"""What `diffcode fill --json` prints."""

from typing import TYPE_CHECKING, Any

from diffcode.positions import Lines

if TYPE_CHECKING:
    from diffcode.infill import Fill, SpanFill

VERSION = 1


def document(file: str, text: str, filled: "Fill") -> dict[str, Any]:
    """What --json prints; offsets count characters of the old text."""
    lines = Lines.of(text)
    return {
        "version": VERSION,
        "file": file,
        "edits": [_edit(span, text, lines) for span in filled.spans],
        "text": filled.text,
        "forwards": filled.forwards,
        "tokens": filled.tokens,
        "seconds": filled.seconds,
    }


def _edit(span: "SpanFill", text: str, lines: Lines) -> dict[str, Any]:
    drafts = ("span_proposed", "span_accepted", "ngram_proposed", "ngram_accepted")
    return {
        "start": _place(span.start, lines),
        "end": _place(span.end, lines),
        "old_text": text[span.start : span.end],
        "new_text": span.text,
        "tokens": list(span.tokens),
        "confidence": list(span.confidence),
        "steps": span.steps,
        "forwards": span.forwards,
        "milliseconds": span.seconds * 1000,
        "context_milliseconds": span.context_seconds * 1000,
        "finished": span.finished,
        "retries": span.retries,
        "others": span.others,
        "drafts": {name: getattr(span.drafts, name) for name in drafts},
    }


def _place(offset: int, lines: Lines) -> dict[str, int]:
    position = lines.position(offset)
    return {"line": position.line, "column": position.column, "offset": offset}
