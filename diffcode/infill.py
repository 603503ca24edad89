"""The Python API: fill the holes of a text.

infiller = Infiller.from_pretrained()
fill = infiller.fill("def area(r):\\n    return ???\\n", marker="???")
print(fill.text)
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from diffcode import hub
from diffcode.config import RETRIES, DenoiseOptions, WindowOptions
from diffcode.contexts import Contexts
from diffcode.denoise import Frame
from diffcode.doubts import TokenDoubt, read_doubts
from diffcode.engine import Model
from diffcode.errors import BadOption
from diffcode.filling import Fill, Filling, Request, SpanFill
from diffcode.holes import check_holes, find_marker
from diffcode.planning import span_rows
from diffcode.soundness import sound

__all__ = ["Fill", "Infiller", "SpanFill"]

MEMORY = 256 << 20  # bytes; a context of 1024 tokens takes 25 MB


class Infiller:
    """A model that fills holes. Make one, keep it: loading takes a second, the weights about 0.6 GB in 8 bits."""

    def __init__(self, model: Model, window: WindowOptions | None = None, memory: int = MEMORY):
        self.model = model
        self.window = window or WindowOptions()
        self.contexts = Contexts(memory)
        self.span_rows = span_rows(model)

    @classmethod
    def from_pretrained(
        cls,
        model: str | None = None,
        *,
        adapter: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        window: WindowOptions | None = None,
        report: hub.Report | None = None,
        infill: str | None = None,
        memory: int = MEMORY,
    ) -> "Infiller":
        """Load the default model (pulling its weights if need be), a `.gguf` file, or a Hugging Face folder.

        `adapter`: a folder, "none", or None for the shipped one; `infill` likewise, the adapter that is merged into
        the weights so that they know where a hole ends. `device`: a torch device, None for CUDA where there
        is one. `dtype`: "int8" (the CPU engine, default on a CPU), "int5" or "int4" (that in fewer bits), "bfloat16" or
        "float32". `memory`: bytes for contexts that were read and may come again, as they do while somebody types.
        `report` is called with the progress of a download.
        Raises ModelUnavailable, BadOption.
        """
        return cls(Model.load(model, adapter, device, dtype, report, infill), window, memory)

    def seeing(self, window: WindowOptions) -> "Infiller":
        """The same model and memory, with another window."""
        other = copy.copy(self)
        other.window = window
        return other

    def fill(
        self,
        text: str,
        holes: Sequence[tuple[int, int]] | None = None,
        *,
        marker: str | None = None,
        policy: str = "verified",
        threshold: float | None = None,
        max_tokens: int = 256,
        max_steps: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        stop: str | Sequence[str] | None = None,
        drafts: Sequence[str] | None = None,
        language: str | None = None,
        retries: int = RETRIES,
        best_of: int = 1,
        on_step: Callable[[Frame], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Fill:
        """Replace each hole of `text` by code that fits what stands on both sides of it.

        `holes` are character offsets (start, end) into `text`, start == end inserts; or every `marker` is a hole.
        Several holes see each other: after a first pass each is looked at again in the light of the others.
        `max_tokens` and `max_steps` count for one hole; `stop` ends a fill before any of these strings.
        `drafts`: for each hole, in order of place, what may well stand there, such as what is left of an earlier fill
        ("" for nothing); it is checked as any draft is, so that with `verified` it changes nothing but the time.
        `language`, one of `diffcode.syntax.LANGUAGES`: fills that make a syntax error are tried again, at most
        `retries` times, each time from the place where the model wavered most; the first that makes none is taken,
        and the first of all where each makes one.
        `best_of`: up to so many fills of a hole are written, each from another place where the model wavered, and the
        one is taken behind which the text reads on best; where nothing follows, the first.
        `on_step` gets a Frame after every denoising step, `cancelled` is asked before each; an `interrupt.Stop` also
        ends a step of the CPU engine that has begun.
        The same arguments give the same bytes. Raises NothingToFill, BadHoles, BadOption, Cancelled.
        """
        tries = {"retries": retries, "best_of": best_of}
        options = DenoiseOptions(policy, threshold, max_tokens, max_steps, temperature, seed, **tries)
        more: Any = {"stop": stop, "drafts": drafts, "language": language, "on_step": on_step, "cancelled": cancelled}
        return self.fill_with(text, holes, options, marker=marker, **more)

    def fill_with(
        self,
        text: str,
        holes: Sequence[tuple[int, int]] | None,
        options: DenoiseOptions,
        *,
        marker: str | None = None,
        stop: str | Sequence[str] | None = None,
        drafts: Sequence[str] | None = None,
        language: str | None = None,
        on_step: Callable[[Frame], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Fill:
        """`fill` with every setting of the denoising loop."""
        _check_text(text)
        if self.model.adapter is None and options.policy not in ("verified", "leftmost"):
            raise BadOption(f"policy {options.policy} needs a span adapter: load one, or take verified or leftmost")
        places = check_holes(text, [(h.start, h.end) for h in find_marker(text, marker)] if marker else holes or ())
        stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
        if any(not s for s in stops):
            raise BadOption("a stop string is empty: leave it out or write what should end the fill")
        if drafts is not None and len(drafts) != len(places):
            raise BadOption(f"there are {len(places)} holes and {len(drafts)} drafts: give one for each")
        accept = sound(text, places, language) if language is not None and options.judged else None
        request = Request(text, places, options, stops, drafts, accept, on_step, cancelled)
        return Filling(self.model, self.window, self.contexts, self.span_rows, request).run()

    def doubts(
        self, text: str, start: int, end: int, cancelled: Callable[[], bool] | None = None
    ) -> tuple[TokenDoubt, ...]:
        """How likely each token of characters [start, end) is, given what stands before it and behind `end`.

        One reading of the context and of these characters. Raises BadHoles, BadOption, Cancelled.
        """
        _check_text(text)
        return read_doubts(self.model, text, start, end, self.window, self.contexts, cancelled)

    def fill_many(self, texts: Iterable[str], holes: Iterable[Any] | None = None, **options: Any) -> list[Fill]:
        """`fill` for each of several texts; `holes`, if given, has one list for each text."""
        if holes is None:
            return [self.fill(text, **options) for text in texts]
        return [self.fill(text, h, **options) for text, h in zip(texts, holes, strict=True)]


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadOption(
            f"the text has half a character (a lone surrogate) at offset {error.start}: repair it"
        ) from error
