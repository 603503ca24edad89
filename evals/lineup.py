"""The decoders of a run, from their names. What can be wrong is found before a model is loaded."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from diffcode import hub
from diffcode.errors import BadOption
from diffcode.evals import outside
from diffcode.evals.decoders import LLAMA_CPP, OPENAI, Decoder, PolicyDecoder
from diffcode.evals.results import Settings

if TYPE_CHECKING:
    from diffcode.infill import Infiller


def assemble(settings: Settings, load: "Callable[[], Infiller]") -> list[Decoder]:
    """One decoder a name, in order; `load` is called if any of them needs diffcode's model."""
    found: dict[str, Decoder] = {
        name: outside.CompletionServer(name) for name in settings.decoders if name.startswith(OPENAI)
    }
    llama = outside.import_llama_cpp() if LLAMA_CPP in settings.decoders else None
    weights = weights_file(settings) if llama else ""
    here = [name for name in settings.decoders if name not in found]
    infiller = load() if here else None
    for name in here:
        assert infiller is not None
        found[name] = PolicyDecoder(name, infiller)
    if llama and infiller:
        room = settings.context + settings.max_tokens
        found[LLAMA_CPP] = outside.llama_cpp(LLAMA_CPP, llama, weights, infiller, room)
    return [found[name] for name in settings.decoders]


def weights_file(settings: Settings) -> str:
    """The GGUF file that both llama.cpp and diffcode read. Raises BadOption where they would differ."""
    if settings.infill != "none" and (settings.infill or settings.model is None):
        raise BadOption(f"{LLAMA_CPP} runs the file as it is: add --infill none, so that all have the same weights")
    if settings.model is None:
        return str(hub.pull())
    if Path(settings.model).suffix != ".gguf":
        raise BadOption(f"{LLAMA_CPP} runs GGUF files only: leave it out, or name a .gguf file with --model")
    return settings.model
