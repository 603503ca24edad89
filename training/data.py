"""From sources to a set: filters, duplicates, a seeded order with the held-out documents last, tokens, a card.

Two passes. The first reads every item, filters it in worker processes, and keeps texts in one temporary file; the
second tokenises them in their final order. Memory holds what duplicates are found with (about 3 KB a kept document),
not the texts. The same sources, options and seed give the same bytes, whatever the number of workers.
"""

import hashlib
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffcode.errors import BadOption, DiffcodeError
from diffcode.tokens import Tokens
from diffcode.training.card import card_of, markdown
from diffcode.training.contamination import Benchmarks, known_tasks
from diffcode.training.crew import Crew, undisturbed
from diffcode.training.dataset import DatasetWriter, Ids
from diffcode.training.dedup import Seen
from diffcode.training.examine import Examiner, Finding
from diffcode.training.filters import Limits
from diffcode.training.installed import Installed
from diffcode.training.sources import Item, RowOptions, is_listed, items_of
from diffcode.training.split import Split, split

_MB = 1_000_000
_FILES_A_BATCH, _TEXTS_A_BATCH = 32, 32


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What `diffcode data build` was asked."""

    out: Path
    model_folder: Path  # whose tokenizer is used
    sources: tuple[str, ...] = ()
    installed: bool = False
    python: str | None = None  # of --installed
    rows: RowOptions = field(default_factory=RowOptions)
    limits: Limits = field(default_factory=Limits)
    seed: int = 0
    validation: float = 0.01  # share of the documents
    limit_mb: float | None = None  # of kept text
    max_package_mb: float | None = None
    near: bool = True
    similarity: float = 0.7
    permissive_only: bool = False
    workers: int = 1


class NothingLeft(DiffcodeError):
    """The filters left no document."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a build has got; `total` is 0 where nobody knows."""

    stage: str
    done: int
    total: int
    kept_bytes: int = 0


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Document:
    """A kept text: what it is, and where it lies in the temporary file."""

    package: str
    language: str
    licence: str
    start: int
    size: int


@dataclass(slots=True)
class Kept:
    """What the first pass leaves behind."""

    documents: list[Document] = field(default_factory=list)
    bytes: int = 0
    seen: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    credentials: Counter[str] = field(default_factory=Counter)
    contaminated: list[tuple[str, str]] = field(default_factory=list)  # (file, task)
    package_bytes: Counter[str] = field(default_factory=Counter)

    def drop(self, finding: Finding, reason: str) -> None:
        self.dropped[reason] += 1
        if reason == "credential":
            self.credentials[finding.detail] += 1
        elif reason == "benchmark":
            self.contaminated.append((f"{finding.item.package}: {finding.item.name}", finding.detail))


@dataclass(frozen=True, slots=True)
class Tools:
    """What every worker process gets once."""

    examiner: Examiner
    model_folder: Path


def build(options: BuildOptions, report: Report = lambda progress: None) -> dict[str, Any]:
    """Make the set at `options.out` and return its card. Whatever stops it leaves what was there before."""
    _check(options)
    report(Progress("reading the benchmarks", 0, 0))
    benchmarks = Benchmarks.of(known_tasks())
    examiner = Examiner(options.limits, benchmarks, options.permissive_only, options.near)
    installed = Installed.of(options.python) if options.installed else None
    with DatasetWriter(options.out) as writer, tempfile.TemporaryFile(dir=options.out.parent) as spool:
        with Crew(options.workers, Tools(examiner, options.model_folder)) as crew:
            kept = _collect(options, installed, crew, spool, report)
            if not kept.documents:
                raise NothingLeft(f"nothing is left of {kept.seen} files ({_reasons(kept)}): name other sources")
            parts = split([document.package for document in kept.documents], options.validation, options.seed)
            written = _write(kept.documents, parts, crew, spool, writer, report)
        card = card_of(options, kept, parts, written, benchmarks, installed)
        with undisturbed():
            writer.close(card)
            (options.out / "card.md").write_text(markdown(card), encoding="utf8", errors="backslashreplace")
    return card


def _check(options: BuildOptions) -> None:
    if not options.sources and not options.installed:
        raise BadOption("there is no source: name a folder, a file of rows or hub:OWNER/NAME, or give --installed")
    if not 0 <= options.validation < 1:
        raise BadOption(f"--validation is {options.validation}: give a share from 0 to below 1")
    if not 0 < options.similarity <= 1:
        raise BadOption(f"--similarity is {options.similarity}: give a number above 0, at most 1")


def _reasons(kept: Kept) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in kept.dropped.most_common(4)) or "none found"


# ---- first pass


def _items(options: BuildOptions, installed: Installed | None, report: Report) -> tuple[list[Item], Iterator[Item]]:
    """Files in a seeded order, so that a limit takes some of everything; then rows as they come."""
    report(Progress("listing files", 0, 0))
    listed = [item for source in options.sources if is_listed(source) for item in items_of(source, options.rows)]
    listed += installed.items() if installed else ()
    random.Random(options.seed).shuffle(listed)
    streams = [items_of(source, options.rows) for source in options.sources if not is_listed(source)]
    return listed, (item for stream in streams for item in stream)


def _collect(options: BuildOptions, installed: Installed | None, crew: Crew, spool: Any, report: Report) -> Kept:
    kept, seen = Kept(), Seen(options.similarity)
    listed, streamed = _items(options, installed, report)
    cap, limit = options.max_package_mb, options.limit_mb

    def full(package: str) -> bool:
        return cap is not None and kept.package_bytes[package] >= cap * _MB

    def jobs() -> Iterator[tuple[Item, bool]]:
        for items in (listed, streamed):
            for item in items:
                yield item, full(item.package)

    for finding in crew.map(examine, jobs(), batch=_FILES_A_BATCH):
        kept.seen += 1
        if full(finding.item.package):  # asked again: what is full now was perhaps not when the job went out
            kept.drop(finding, "package is full")
        elif reason := finding.reason or seen.duplicate(finding.key, finding.signature):
            kept.drop(finding, reason)
        else:
            _keep(kept, finding, spool)
        if kept.seen % 100 == 0:
            report(Progress("filtering", kept.seen, 0 if options.limit_mb else len(listed), kept.bytes))
        if limit is not None and kept.bytes >= limit * _MB:
            break
    return kept


def _keep(kept: Kept, finding: Finding, spool: Any) -> None:
    data, item = finding.text.encode("utf8"), finding.item
    spool.write(data)
    kept.documents.append(Document(item.package, item.language or "", item.licence, kept.bytes, len(data)))
    kept.bytes += len(data)
    kept.package_bytes[item.package] += len(data)


def examine(tools: Tools, job: tuple[Item, bool]) -> Finding:
    """Runs in a worker."""
    item, full = job
    return Finding(item, "package is full") if full else tools.examiner(item)


# ---- second pass


@dataclass(slots=True)
class Written:
    """Tokens a language, and the hash of all documents in their order."""

    tokens: Counter[str] = field(default_factory=Counter)
    hash: Any = field(default_factory=hashlib.sha256)


def _write(
    documents: list[Document], parts: Split, crew: Crew, spool: Any, writer: DatasetWriter, report: Report
) -> Written:
    written = Written()

    def texts() -> Iterator[str]:
        for number in parts.order:
            spool.seek(documents[number].start)
            yield spool.read(documents[number].size).decode("utf8")

    encoded = crew.map(encode, texts(), batch=_TEXTS_A_BATCH)
    for count, (number, ids) in enumerate(zip(parts.order, encoded, strict=True)):
        language = documents[number].language
        writer.add(ids, language)
        written.tokens[language] += len(ids)
        written.hash.update(f"{language} {len(ids)}\n".encode())
        written.hash.update(ids.tobytes())
        if count % 100 == 0:
            report(Progress("tokenising", count, len(documents)))
    return written


_tokens: dict[Path, Tokens] = {}  # one a process: building it takes 0.5 s


def encode(tools: Tools, text: str) -> Ids:
    """Runs in a worker."""
    folder = tools.model_folder
    if folder not in _tokens:
        _tokens[folder] = Tokens.from_folder(folder)
    return np.asarray(_tokens[folder].encode(text), dtype="<u4")
