"""Engines that are not diffcode's: llama.cpp, and servers with OpenAI's completion interface.

Both get what diffcode's own decoders get. llama.cpp takes the place of the model below `Infiller`: prompt ids, token
healing, stop rule, budget and rounds over several holes are the same code. A server gets the text on both sides of the
hole, and what it returns is cut by the same stop rule.
"""

import atexit
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from diffcode import canvas
from diffcode.errors import BadOption, DiffcodeError
from diffcode.evals.decoders import Filled, PolicyDecoder, Rules
from diffcode.evals.problems import Problem
from diffcode.holes import Hole, apply_edits
from diffcode.stops import Cut, StopRule
from diffcode.tokens import Tokens

if TYPE_CHECKING:
    import torch

    from diffcode.engine import Model
    from diffcode.infill import Infiller
    from diffcode.policies import Guess
    from diffcode.rows import Noise

TIMEOUT = 600  # seconds for one completion
ROOM_TO_SPARE = 64  # tokens


class ServerFailed(DiffcodeError):
    """A completion server cannot be reached or does not answer in its interface."""

    exit_code = 5


# ---- llama.cpp


def import_llama_cpp() -> Any:
    """The package llama-cpp-python. Raises BadOption."""
    try:
        import llama_cpp
    except ImportError:
        raise BadOption("llama-cpp needs a package: run pip install llama-cpp-python, or leave it out") from None
    return llama_cpp


def llama_cpp(name: str, library: Any, path: str, infiller: "Infiller", room: int) -> PolicyDecoder:
    """Left-to-right decoding by llama.cpp: the file at `path`, with `room` tokens, in place of the infiller's model."""
    import torch

    from diffcode.infill import Infiller

    llama = library.Llama(path, n_ctx=room + ROOM_TO_SPARE, n_threads=torch.get_num_threads(), verbose=False)
    atexit.register(llama.close)  # left to the interpreter's end, it complains about modules that are gone
    model = LlamaModel(library, llama, infiller.model.tokens, infiller.model.noise)
    return PolicyDecoder(name, Infiller(cast("Model", model), infiller.window), policy="leftmost")


class LlamaSession:
    """`denoise.Session` without drafts and span rows. A llama.cpp model has one canvas: a new session clears it."""

    def __init__(self, library: Any, llama: Any, noise: "Noise | None", temperature: float, favour: tuple[int, float]):
        self._library, self._llama = library, llama
        self._noise, self._temperature, self._favour = noise, temperature, favour
        self._sent = 0
        llama.reset()

    def keep(self, rows: int) -> None:
        self._llama.n_tokens -= self._sent - rows  # the next eval drops what stands behind

    def close(self) -> None:
        pass

    def step(
        self,
        fresh: Sequence[int],
        drafts: Sequence[int],
        window: Sequence[int | None],
        anchors: Sequence[int],
        first_place: int,
        allowed: Sequence[list[int] | None],
    ) -> "tuple[tuple[Guess, ...], tuple[tuple[Guess, ...], ...]]":
        from diffcode.policies import Guess

        assert not drafts
        assert not window
        self._llama.eval(list(fresh))
        self._sent = len(fresh)
        logits_V = self._logits()
        (ids,) = allowed
        if ids is not None:
            barred = logits_V.new_full(logits_V.shape, float("-inf"))
            barred[ids] = logits_V[ids]
            logits_V = barred
        favoured_V = logits_V.clone()
        favoured_V[self._favour[0]] += self._favour[1]
        scores_V = favoured_V / self._temperature + self._noise(first_place).cpu() if self._noise else favoured_V
        token = int(scores_V.argmax())
        return (Guess(token, float(logits_V.softmax(0)[token])),), ((),)

    def _logits(self) -> "torch.Tensor":
        """Of the last row, [V]."""
        import numpy as np
        import torch

        pointer = self._library.llama_get_logits_ith(self._llama.ctx, -1)
        return torch.from_numpy(np.ctypeslib.as_array(pointer, (self._llama.n_vocab(),)).copy())


class LlamaModel:
    """What `Infiller` needs of a model, by llama.cpp."""

    adapter = None
    Session: type[LlamaSession] = LlamaSession

    def __init__(self, library: Any, llama: Any, tokens: Tokens, noise: "Callable[[int], Noise]"):
        self._library, self._llama = library, llama
        self.tokens, self.noise = tokens, noise

    def session(
        self,
        noise: "Noise | None" = None,
        temperature: float = 0.0,
        contexts: object = None,
        flag: object = None,
        end_bias: float = 0.0,
        open_ended: bool = False,
    ) -> LlamaSession:
        return self.Session(self._library, self._llama, noise, temperature, (self.tokens.fim.end, end_bias))


# ---- a completion server


class CompletionServer:
    """`openai:URL#MODEL`: POST URL/completions with `prompt` and `suffix`, one hole after the other.

    Several holes are gone through twice like diffcode's own, each seeing the others' fills. A key, where the server
    wants one, is read from OPENAI_API_KEY.
    """

    in_process = False

    def __init__(self, name: str):
        self.name = name
        address, _, self._model = name.removeprefix("openai:").partition("#")
        if not address.startswith(("http://", "https://")):
            raise BadOption(
                f"{name!r} names no server: write openai:http://HOST:PORT/v1, and #MODEL behind it if need be"
            )
        self._url = address.rstrip("/").removesuffix("/completions") + "/completions"

    def fill(self, problem: Problem, rules: Rules, sample: int) -> Filled:
        began = time.perf_counter()
        text, holes = problem.text, [Hole(*hole) for hole in problem.holes]
        fills, ends, tokens = [""] * len(holes), [""] * len(holes), [0] * len(holes)
        seen: list[list[str]] = [[] for _ in holes]
        for index in (*range(len(holes)),) * min(2, len(holes)):
            around = [*fills[:index], *fills[index + 1 :]]
            if not ends[index] or around != seen[index]:  # else nothing that this hole can see has changed
                seen[index] = around
                cut, tokens[index] = self._fill_hole(text, holes, fills, index, rules, rules.seed_of(problem, sample))
                fills[index], ends[index] = cut.text, cut.reason
        return Filled(tuple(fills), tuple(ends), sum(tokens), time.perf_counter() - began)

    def _fill_hole(
        self, text: str, holes: Sequence[Hole], fills: Sequence[str], index: int, rules: Rules, seed: int
    ) -> tuple[Cut, int]:
        """The completion, cut, and its number of tokens."""
        hole = holes[index]
        before = apply_edits(text[: hole.start], holes[:index], fills[:index])
        behind = [Hole(other.start - hole.end, other.end - hole.end) for other in holes[index + 1 :]]
        after = apply_edits(text[hole.end :], behind, fills[index + 1 :])
        written, finished, tokens = self._ask(before, after, rules, seed)
        reach = canvas.reach_of(text, hole)._asdict()
        rule = StopRule(after, rules.stops, head=before.rpartition("\n")[2], **reach)
        return cut_from_left(rule, written, finished), tokens

    def _ask(self, before: str, after: str, rules: Rules, seed: int) -> tuple[str, str, int]:
        """(text, "eos" or "budget", tokens)."""
        question: dict[str, Any] = {"prompt": before, "suffix": after, "max_tokens": rules.max_tokens}
        question |= {"temperature": rules.temperature, "seed": seed, "n": 1, "stream": False}
        question |= {"stop": list(rules.stops)} if rules.stops else {}
        question |= {"model": self._model} if self._model else {}
        answer = self._post(json.dumps(question).encode())
        try:
            choice = answer["choices"][0]
            tokens = int(answer["usage"]["completion_tokens"])
            # JSON can spell half a character, which no file can hold.
            text = str(choice["text"]).encode(errors="replace").decode()
            return text, "budget" if choice.get("finish_reason") == "length" else "eos", tokens
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise ServerFailed(f"{self._url} is not OpenAI-compatible: its answer lacks {error}") from error

    def _post(self, body: bytes) -> Any:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self._url, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            said = error.read(300).decode(errors="replace")
            raise ServerFailed(f"{self._url} answered {error.code} {error.reason}: {' '.join(said.split())}") from error
        except (OSError, ValueError) as error:
            raise ServerFailed(f"{self._url} cannot be used ({error}): start the server, or leave it out") from error


def cut_from_left(rule: StopRule, text: str, reason: str) -> Cut:
    """Where the rule would have ended a text that came bit by bit; `reason` is why the engine ended it."""
    for end in range(1, len(text) + 1):
        if cut := rule.check(text[:end]):
            return cut
    return rule.finish(text, reason)
