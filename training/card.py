"""The card of a set: what is in it, where it comes from, what was left out and why."""

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from diffcode.version import VERSION

if TYPE_CHECKING:
    from diffcode.training.contamination import Benchmarks
    from diffcode.training.data import BuildOptions, Kept, Written
    from diffcode.training.installed import Installed
    from diffcode.training.split import Split

FORMAT = 1
_LIBRARIES = ("datasets", "datasketch", "detect-secrets", "tokenizers", "numpy")


def card_of(
    options: "BuildOptions",
    kept: "Kept",
    parts: "Split",
    written: "Written",
    benchmarks: "Benchmarks",
    installed: "Installed | None",
) -> dict[str, Any]:
    """JSON-ready. No time and no host: the same build gives the same card."""
    tokenizer = (options.model_folder / "tokenizer.json").read_bytes()
    return {
        "format": FORMAT,
        "documents": len(kept.documents),
        "validation_documents": parts.validation,
        "bytes": kept.bytes,
        "tokens": written.tokens.total(),
        "sha256": written.hash.hexdigest(),
        "seed": options.seed,
        "sources": [*options.sources, *(["--installed"] if options.installed else [])],
        "languages": _languages(kept, written),
        "licences": _licences(kept),
        "files_seen": kept.seen,
        "dropped": dict(kept.dropped.most_common()),
        "credentials": dict(kept.credentials.most_common()),
        "contamination": {
            "tasks_known": len(benchmarks.names),
            "documents": [{"file": file, "task": task} for file, task in sorted(kept.contaminated)],
        },
        "packages": len(kept.package_bytes),
        "largest_packages": dict(kept.package_bytes.most_common(20)),
        "packages_left_out": dict(sorted(installed.left_out.items())) if installed else {},
        "validation": {"by": parts.by, "packages": list(parts.packages)},
        "limits": asdict(options.limits),
        "near_duplicates": {"removed": options.near, "similarity": options.similarity},
        "limit_mb": options.limit_mb,
        "max_package_mb": options.max_package_mb,
        "tokenizer": {"sha256": sha256(tokenizer).hexdigest()},
        "versions": {
            "diffcode": VERSION,
            "python": ".".join(map(str, sys.version_info[:3])),
            **{name: version(name) for name in _LIBRARIES},
        },
    }


def _languages(kept: "Kept", written: "Written") -> dict[str, dict[str, int]]:
    documents, sizes = Counter[str](), Counter[str]()
    for document in kept.documents:
        documents[document.language] += 1
        sizes[document.language] += document.size
    return {
        name: {"documents": documents[name], "bytes": size, "tokens": written.tokens[name]}
        for name, size in sizes.most_common()
    }


def _licences(kept: "Kept") -> dict[str, dict[str, Any]]:
    """Of each licence the documents and the packages."""
    documents = Counter(document.licence for document in kept.documents)
    packages: dict[str, set[str]] = {}
    for document in kept.documents:
        packages.setdefault(document.licence, set()).add(document.package)
    return {
        name: {"documents": count, "packages": len(packages[name]), "names": sorted(packages[name])[:500]}
        for name, count in documents.most_common()
    }


def markdown(card: Mapping[str, Any]) -> str:
    """The card for people."""
    lines = [
        "# A set of code",
        "",
        f"{card['documents']:,} documents, {card['bytes'] / 1e6:,.1f} MB, {card['tokens']:,} tokens; the last "
        f"{card['validation_documents']:,} documents are held out (by {card['validation']['by']}).",
        f"Sources: {', '.join(card['sources'])}. Seed {card['seed']}. SHA-256 of the documents: `{card['sha256']}`.",
        "",
        *_table(("language", "documents", "MB", "tokens"), _language_rows(card)),
        *_table(("licence", "packages", "documents"), _licence_rows(card)),
        f"Of {card['files_seen']:,} files seen, left out:",
        "",
        *_table(("reason", "files"), ((name, f"{n:,}") for name, n in card["dropped"].items())),
        *_contamination(card["contamination"]),
    ]
    if card["packages_left_out"]:
        lines += [f"Packages left out ({len(card['packages_left_out'])}): {', '.join(card['packages_left_out'])}.", ""]
    lines.append(f"Made with {', '.join(f'{name} {number}' for name, number in card['versions'].items())}.")
    return "\n".join(lines) + "\n"


def _language_rows(card: Mapping[str, Any]) -> Any:
    for name, n in card["languages"].items():
        yield name, f"{n['documents']:,}", f"{n['bytes'] / 1e6:,.1f}", f"{n['tokens']:,}"


def _licence_rows(card: Mapping[str, Any]) -> Any:
    for name, n in card["licences"].items():
        yield name.replace("|", "/"), f"{n['packages']:,}", f"{n['documents']:,}"


def _table(head: tuple[str, ...], rows: Any) -> list[str]:
    body = [head, ("---", *("---:" for _ in head[1:])), *rows]
    return [*(f"| {' | '.join(row)} |" for row in body), ""]


def _contamination(found: Mapping[str, Any]) -> list[str]:
    documents = found["documents"]
    head = f"Benchmark tasks looked for: {found['tasks_known']:,}; documents with one: {len(documents)}."
    return [head, "", *(f"- `{one['file']}`: {one['task']}" for one in documents), *([""] if documents else [])]
