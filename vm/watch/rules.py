# SPDX-License-Identifier: Apache-2.0
"""The data files of the watch, read and checked: patterns and the allow list."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from vm.errors import UsageProblem

KINDS = frozenset(
    "panic oops warn stall lockup hang lockdep sanitizer memory".split()  # noqa: SIM905
)
#: After one of these the machine is not to be waited for, and nothing can excuse it.
FATAL = frozenset({"panic", "oops"})


@dataclass(frozen=True)
class Pattern:
    """How the head line of one kind of report looks; the keys of patterns.toml."""

    name: str
    kind: str
    regex: re.Pattern[str]
    source: str
    example: str
    companions: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Allowance:
    """One entry of the allow list; the keys of allow.toml."""

    regex: re.Pattern[str]
    patterns: frozenset[str]
    kernels: str
    reason: str

    def covers(self, pattern: str, text: str, release: str) -> bool:
        """Whether a report named `pattern` with this head line is excused on `release`."""
        return (
            pattern in self.patterns
            and fnmatchcase(release, self.kernels)
            and self.regex.match(text) is not None
        )


def read_patterns(path: Path) -> tuple[Pattern, ...]:
    """The patterns of a file, in its order.

    Each must match its own example, and be the first that does.

    Raises:
        UsageProblem: the file cannot be read or says something it must not.
    """
    found: list[Pattern] = []
    for where, entry in _tables(path, "pattern"):
        _keys(entry, where, needed=("name", "kind", "regex", "source", "example"), more=("with",))
        if entry["kind"] not in KINDS:
            raise _wrong(where, f"unknown kind {entry['kind']!r}", f"use one of {sorted(KINDS)}")
        if any(pattern.name == entry["name"] for pattern in found):
            raise _wrong(where, f"a second pattern {entry['name']!r}", "rename one of the two")
        found.append(
            Pattern(
                name=entry["name"],
                kind=entry["kind"],
                regex=_regex(entry["regex"], where),
                source=entry["source"],
                example=entry["example"],
                companions=frozenset(_names(entry.get("with", []), where)),
            )
        )
        first = next((one.name for one in found if one.regex.match(entry["example"])), None)
        if first != entry["name"]:
            by = f"goes to {first!r}" if first else "does not match"
            raise _wrong(where, f"the example of {entry['name']!r} {by}", "correct the regex")
    if not found:
        raise _wrong(str(path), "holds no pattern", "restore the file")
    by_name = {pattern.name: pattern for pattern in found}
    for pattern in found:
        for other in pattern.companions:
            if other not in by_name or pattern.name not in by_name[other].companions:
                what = f"{pattern.name!r} stands with {other!r}, which does not say so of it"
                raise _wrong(str(path), what, "name each in the other's `with`")
    return tuple(found)


def read_allowances(path: Path, patterns: tuple[Pattern, ...]) -> tuple[Allowance, ...]:
    """The allow list of a file; it may be empty.

    Raises:
        UsageProblem: the file cannot be read, an entry lacks its reason, or excuses
            an unknown pattern, a panic or an oops.
    """
    kinds = {pattern.name: pattern.kind for pattern in patterns}
    found: list[Allowance] = []
    for where, entry in _tables(path, "allow"):
        _keys(entry, where, needed=("regex", "patterns", "kernels", "reason"))
        names = _names(entry["patterns"], where)
        for name in names:
            if name not in kinds:
                raise _wrong(where, f"unknown pattern {name!r}", "see patterns.toml for the names")
            if kinds[name] in FATAL:
                raise _wrong(where, f"{kinds[name]} {name!r} cannot be allowed", "drop the entry")
        found.append(
            Allowance(
                _regex(entry["regex"], where), frozenset(names), entry["kernels"], entry["reason"]
            )
        )
    return tuple(found)


def _tables(path: Path, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each `[[key]]` of a TOML file with words that say which it is."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _wrong(str(path), f"cannot be read: {error}", "restore the file") from error
    entries = raw.pop(key, [])
    if raw:
        raise _wrong(str(path), f"unknown key {min(raw)!r}", f"write [[{key}]]")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _wrong(str(path), f"{key!r} is no list of tables", f"write [[{key}]]")
    for number, entry in enumerate(entries, 1):
        yield f"{path}: {key} {number}", entry


def _keys(
    entry: Mapping[str, Any], where: str, needed: tuple[str, ...], more: tuple[str, ...] = ()
) -> None:
    """Checks an entry's keys, and that the needed ones that hold words are not blank."""
    unknown = entry.keys() - {*needed, *more}
    if unknown:
        raise _wrong(where, f"unknown key {min(unknown)!r}", f"use {', '.join((*needed, *more))}")
    for key in needed:
        value = entry.get(key)
        if key != "patterns" and (not isinstance(value, str) or not value.strip()):
            raise _wrong(where, f"needs {key!r} in words", "add it")
        if not value:
            raise _wrong(where, f"needs {key!r}", "add it")


def _names(value: object, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise _wrong(where, "names of patterns are a list of words", 'write ["warning"]')
    return value


def _regex(text: str, where: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(text)
    except re.error as error:
        raise _wrong(where, f"no regular expression: {error}", "correct it") from error
    if compiled.groups:
        raise _wrong(where, "the regex has a capturing group", "write (?:…)")
    if compiled.match(""):
        raise _wrong(where, "the regex matches an empty line", "make it say what it looks for")
    return compiled


def _wrong(where: str, what: str, hint: str) -> UsageProblem:
    return UsageProblem(what, where=where, hint=hint)
