"""One document through every filter that needs nothing but the document: the part that runs in worker processes."""

import re
from dataclasses import dataclass

from diffcode.syntax import LANGUAGES
from diffcode.training.contamination import Benchmarks
from diffcode.training.credentials import credential_in
from diffcode.training.dedup import Signature, exact_key, signature
from diffcode.training.filters import Limits, name_reason, size_reason, text_of, text_reason
from diffcode.training.grams import tokens_of
from diffcode.training.licences import permissive
from diffcode.training.sources import Item

_HEAD = 4000  # characters in which a file states its licence
_SPDX = re.compile(r"SPDX-License-Identifier:\s*([^\n*\"']+)")
_COPYLEFT = re.compile(
    r"GNU (Lesser |Library |Affero )?(General )?Public Licen|Mozilla Public Licen|\bAGPL|\bLGPL|\bMPL[ -]?[v2]|"
    r"Eclipse Public Licen|Common Development and Distribution|NVIDIA CORPORATION and its licensors retain",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of an item: a reason to leave it out, or its text and what is needed to find its duplicates."""

    item: Item  # without its text
    reason: str | None = None
    detail: str = ""
    text: str = ""
    key: bytes = b""
    signature: Signature | None = None


@dataclass(frozen=True, slots=True)
class Examiner:
    """The filters of one build."""

    limits: Limits
    benchmarks: Benchmarks
    permissive_only: bool  # also for sources that the user named
    near: bool

    def __call__(self, item: Item) -> Finding:
        bare = Item(item.package, item.name, item.language, item.licence, item.permissive, item.path)
        if item.language not in LANGUAGES:
            return Finding(bare, "language")
        if self.permissive_only and not item.permissive:
            return Finding(bare, "licence")
        if reason := name_reason(item.name):
            return Finding(bare, reason)
        read = _read(item, self.limits)
        if read.reason is not None:
            return Finding(bare, read.reason)
        return self._judge(bare, read.text)

    def _judge(self, item: Item, text: str) -> Finding:
        if reason := text_reason(text, self.limits):
            return Finding(item, reason)
        if item.permissive and _states_another_licence(text[:_HEAD]):
            return Finding(item, "licence in the file")
        if kind := credential_in(text):
            return Finding(item, "credential", kind)
        tokens = tokens_of(text)
        if task := self.benchmarks.task_in(tokens):
            return Finding(item, "benchmark", task)
        return Finding(item, None, "", text, exact_key(text), signature(tokens) if self.near else None)


@dataclass(frozen=True, slots=True)
class _Read:
    text: str = ""
    reason: str | None = None


def _read(item: Item, limits: Limits) -> _Read:
    if item.text is not None:
        data = item.text.encode("utf8", errors="surrogatepass")
        reason = size_reason(len(data), limits)
    else:
        try:
            reason = size_reason(item.path.stat().st_size, limits) if item.path else "unreadable"
            data = item.path.read_bytes() if item.path and reason is None else b""
        except OSError:
            return _Read(reason="unreadable")
    if reason is not None:
        return _Read(reason=reason)
    text = text_of(data)
    return _Read(reason="not UTF-8") if text is None else _Read(text)


def _states_another_licence(head: str) -> bool:
    if _COPYLEFT.search(head):
        return True
    return any(permissive(found.strip()) is None for found in _SPDX.findall(head))
