"""What a package's metadata says of its licence, and whether that lets others train on and pass on its code.

Permissive here: the licence asks for no more than to be named. Copyleft of any strength (GPL, LGPL, AGPL, MPL, EPL),
restrictions of use, and silence are not.
"""

import re
from collections.abc import Sequence

# SPDX, and two that say as much as the metadata does.
_NAMES = """
    0BSD BSD BSD-1-Clause BSD-2-Clause BSD-2-Clause-Patent BSD-3-Clause BSD-3-Clause-Clear BSD-4-Clause BSL-1.0 AFL-3.0
    Apache-1.1 Apache-2.0 BlueOak-1.0.0 CC0-1.0 CNRI-Python HPND ISC libpng-2.0 MIT MIT-0 MIT-CMU NCSA NTP PostgreSQL
    PSF-2.0 Python-2.0 Python-2.0.1 TCL Unicode-3.0 Unicode-DFS-2016 Unlicense UPL-1.0 W3C WTFPL X11 Zlib ZPL-2.1
"""
PERMISSIVE = frozenset((*_NAMES.split(), "Public domain"))
_BY_LOWER = {name.lower(): name for name in PERMISSIVE}

# Trove classifiers' last part -> SPDX.
_CLASSIFIERS = {
    "Academic Free License (AFL)": "AFL-3.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "Blue Oak Model License (BlueOak-1.0.0)": "BlueOak-1.0.0",
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication": "CC0-1.0",
    "Historical Permission Notice and Disclaimer (HPND)": "HPND",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Public Domain": "Public domain",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "Universal Permissive License (UPL)": "UPL-1.0",
    "University of Illinois/NCSA Open Source License": "NCSA",
    "W3C License": "W3C",
    "Zope Public License": "ZPL-2.1",
    "zlib/libpng License": "Zlib",
}

# What people write into a free field; the whole field has to match.
_WORDING = tuple(
    (re.compile(pattern, re.IGNORECASE), name)
    for pattern, name in (
        (r"(the )?(mit|expat)([ -]licen[sc]ed?)?( \(mit\))?", "MIT"),
        (r"(the )?apache([ -]software)?([ -]licen[sc]e)?,?( version)?([ -]?v?2(\.0)?)?([ -]licen[sc]e)?", "Apache-2.0"),
        (r"(the )?(new |modified |revised )?bsd([ -]licen[sc]e)?", "BSD"),
        (
            r"(the )?(new |modified |revised )?bsd[ -]3[ -]clause([ -]licen[sc]e)?|3[ -]clause bsd([ -]licen[sc]e)?",
            "BSD-3-Clause",
        ),
        (r"(the )?(simplified )?bsd[ -]2[ -]clause([ -]licen[sc]e)?|2[ -]clause bsd([ -]licen[sc]e)?", "BSD-2-Clause"),
        (r"(the )?isc([ -]licen[sc]e)?( \(iscl\))?", "ISC"),
        (r"(psf|psfl|python software foundation)([ -]licen[sc]e)?", "PSF-2.0"),
        (r"(the )?unlicense", "Unlicense"),
        (r"zlib(/libpng)?([ -]licen[sc]e)?", "Zlib"),
        (r"(released (in)?to the )?public[ -]domain", "Public domain"),
        (r"wtfpl", "WTFPL"),
        (r"hpnd", "HPND"),
        (r"cc0(-1\.0)?( 1\.0( universal)?)?", "CC0-1.0"),
        (r"(zpl|zope public licen[sc]e)[ -]?(version )?2\.1", "ZPL-2.1"),
    )
)
# A whole licence text in the field: its one sentence that no other licence has.
_SENTENCES = (
    ("permission is hereby granted, free of charge, to any person obtaining a copy", "MIT"),
    ("redistribution and use in source and binary forms, with or without modification", "BSD"),
    ("apache license version 2.0, january 2004", "Apache-2.0"),
    ("permission to use, copy, modify, and/or distribute this software for any purpose", "ISC"),
)
_COPYLEFT = re.compile(
    r"\b(a|l)?gpl|general public|copyleft|mozilla public|\bmpl|\bepl\b|\beupl|\bcddl|non-?commercial", re.I
)


def permissive(expression: str) -> str | None:
    """The part of an SPDX expression that may be chosen and is permissive: None where there is none.

    Of an OR one side is enough, of an AND both have to be. WITH only ever adds permissions.
    """
    words = re.findall(r"[()]|[^\s()]+", expression)
    try:
        found, rest = _either(words)
    except _Malformed:
        return None
    return found if not rest else None


def of_metadata(expression: str | None, classifiers: Sequence[str], field: str | None) -> str | None:
    """The permissive licence that a Python package's metadata names, or None.

    An SPDX expression decides alone. Otherwise classifiers and the free field have to agree that nothing in them is
    copyleft; classifiers come first, for the field often holds a text.
    """
    if expression and expression.strip():
        return permissive(expression)
    named = [line.rsplit(" :: ", 1)[-1] for line in classifiers if line.startswith("License :: ")]
    named = [name for name in named if name not in ("OSI Approved", "DFSG approved")]
    if named:
        known = [_CLASSIFIERS.get(name) for name in named]
        mixed = field is not None and len(field) < 200 and _COPYLEFT.search(field)
        return None if None in known or mixed else " AND ".join(sorted({name for name in known if name}))
    return of_wording(field) if field else None


def of_wording(field: str) -> str | None:
    """The permissive licence that a free text names, or None."""
    text = " ".join(field.split()).strip("\"'. ")
    for pattern, name in _WORDING:
        if pattern.fullmatch(text):
            return name
    if len(text) < 200:
        return permissive(text)
    lower = text.lower()
    found = {name for sentence, name in _SENTENCES if sentence in lower}
    return found.pop() if len(found) == 1 and not _COPYLEFT.search(lower) else None


class _Malformed(ValueError):
    pass


def _either(words: list[str]) -> tuple[str | None, list[str]]:
    found, rest = _both(words)
    while rest and rest[0].upper() == "OR":
        other, rest = _both(rest[1:])
        found = found or other
    return found, rest


def _both(words: list[str]) -> tuple[str | None, list[str]]:
    found, rest = _one(words)
    while rest and rest[0].upper() == "AND":
        other, rest = _one(rest[1:])
        found = _joined(found, other) if found and other else None
    return found, rest


def _joined(one: str, other: str) -> str:
    return " AND ".join(sorted({*one.split(" AND "), *other.split(" AND ")}))


def _one(words: list[str]) -> tuple[str | None, list[str]]:
    if not words or words[0] == ")" or words[0].upper() in ("AND", "OR", "WITH"):
        raise _Malformed
    if words[0] == "(":
        found, rest = _either(words[1:])
        if rest[:1] != [")"]:
            raise _Malformed
        return found, rest[1:]
    found, rest = _BY_LOWER.get(words[0].lower()), words[1:]
    if rest and rest[0].upper() == "WITH":
        if len(rest) < 2 or rest[1] in ("(", ")"):
            raise _Malformed
        rest = rest[2:]
    return found, rest
