"""A tokenised corpus on disk: one memory-mapped array of ids, cut into documents.

A folder with `tokens.bin` (uint32, little-endian, documents end to end), `index.npy` (int64, where each document
starts, and the end), `languages.npy` (uint8) and `card.json` (what is in it and how it was made). The tokenizer is
lossless, so the text of any stretch of ids can be had back exactly.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from diffcode.errors import UnreadableFile, UnwritableFile
from diffcode.syntax import LANGUAGES

Ids = npt.NDArray[np.uint32]
OTHER = "other"
NAMES = (*LANGUAGES, OTHER)


class DatasetWriter:
    """Writes a set beside its place and renames it at the end, so that a cut run leaves no half set behind."""

    def __init__(self, folder: Path):
        self._folder = folder
        if folder.exists() and not (folder / "card.json").exists() and any(folder.iterdir()):
            raise UnwritableFile(f"{folder} holds something that is no data set: give another --out")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            self._tokens = (self._staging / "tokens.bin").open("wb")
        except OSError as error:
            raise UnwritableFile(f"{folder} cannot be written ({error}): give another --out") from error
        self._starts = [0]
        self._languages: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tokens.close()
        shutil.rmtree(self._staging, ignore_errors=True)  # after close() there is nothing left of it

    def add(self, ids: Sequence[int] | Ids, language: str) -> None:
        """One document."""
        self._tokens.write(np.asarray(ids, dtype="<u4").tobytes())
        self._starts.append(self._starts[-1] + len(ids))
        self._languages.append(NAMES.index(language if language in NAMES else OTHER))

    def close(self, card: dict[str, Any]) -> None:
        """Put the set in its place."""
        self._tokens.close()
        np.save(self._staging / "index.npy", np.asarray(self._starts, dtype=np.int64))
        np.save(self._staging / "languages.npy", np.asarray(self._languages, dtype=np.uint8))
        (self._staging / "card.json").write_text(json.dumps(card, indent=1), encoding="utf8")
        if self._folder.exists():
            shutil.rmtree(self._folder)
        self._staging.chmod(0o755)
        self._staging.rename(self._folder)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A set on disk, opened for reading; several processes share its pages."""

    folder: Path
    card: dict[str, Any]
    _tokens: Ids
    _starts: npt.NDArray[np.int64]
    _languages: npt.NDArray[np.uint8]

    @classmethod
    def open(cls, folder: Path) -> "Dataset":
        """Raises UnreadableFile where `folder` is no set or a damaged one."""
        try:
            card = json.loads((folder / "card.json").read_text(encoding="utf8"))
            starts, languages = np.load(folder / "index.npy"), np.load(folder / "languages.npy")
            tokens = np.memmap(folder / "tokens.bin", dtype="<u4", mode="r")
            held_out = int(card.get("validation_documents", 0))
        except (OSError, ValueError, EOFError, AttributeError, TypeError) as error:
            raise UnreadableFile(
                f"{folder} is no data set ({error}): make one with `diffcode data build SOURCE --out {folder}`"
            ) from error
        if len(languages) != len(starts) - 1 or len(tokens) != starts[-1] or not 0 <= held_out <= len(languages):
            raise UnreadableFile(f"{folder} is damaged, its parts do not fit together: build it again")
        return cls(folder, card, tokens, starts, languages)

    def __len__(self) -> int:
        return len(self._languages)

    @property
    def tokens(self) -> int:
        """Tokens in all."""
        return int(self._starts[-1])

    @property
    def validation(self) -> range:
        """Numbers of the documents that are held out; they stand last."""
        return range(len(self) - int(self.card.get("validation_documents", 0)), len(self))

    @property
    def training(self) -> range:
        """Numbers of the documents to learn from."""
        return range(self.validation.start)

    def ids(self, document: int) -> Ids:
        return self._tokens[self._starts[document] : self._starts[document + 1]]

    def length(self, document: int) -> int:
        return int(self._starts[document + 1] - self._starts[document])

    def language(self, document: int) -> str:
        return NAMES[self._languages[document]]

    def __iter__(self) -> Iterator[Ids]:
        return (self.ids(i) for i in range(len(self)))
