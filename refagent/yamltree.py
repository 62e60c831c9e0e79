# SPDX-License-Identifier: Apache-2.0
"""A YAML file as a tree of words that know where they stand.

No word has a type: `6.10`, `0755`, `no` and `1:30` stay what somebody wrote until whoever
knows what belongs there reads them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from refagent.errors import BadFile


@dataclass(frozen=True, order=True)
class Location:
    """A place in a file, 1-based, printed as `file:line:column`."""

    path: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Scalar:
    """A word or a text as it was written.

    Attributes:
        where: of its first character, or of its quote.
        text: without quotes, escapes resolved.
        plain: not quoted and no block.
    """

    where: Location
    text: str
    plain: bool


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    where: Location
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys and values in the file's order; no key stands in it twice."""

    where: Location
    pairs: tuple[tuple[Scalar, Node], ...]


Node: TypeAlias = Scalar | Sequence | Mapping


def blame(where: Location, what: str, hint: str = "") -> BadFile:
    """A mistake in a file as `file:line:column: what; hint`, in one line."""
    return BadFile(_one_line(what), where=str(where), hint=_one_line(hint))


def _one_line(text: str) -> str:
    """Nothing unprintable, no word without end: both can come from the file."""
    shown = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
    return re.sub(r"\S{80,}", lambda word: f"{word[0][:40]}…{word[0][-5:]}", shown)
