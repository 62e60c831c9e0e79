# SPDX-License-Identifier: Apache-2.0
"""Names inside texts (`/run/t/$i/$n`) and sums of them (`$n+1`, `limit-1`).

`$name` is a parameter of the scenario and `$i` counts the repetitions of a step;
`${name}` is the same where a letter follows, and `$$` is a dollar. A bare word in a sum
is a fact, a number that is known once the kernel was probed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

#: Fact → what it is, and the probe that gives its value.
FACTS: dict[str, tuple[str, str]] = {
    "limit": ("how many programs fit on one function's trampoline", "trampoline_limit"),
}

#: The name that counts repetitions.
COUNTER = "i"
NAME = re.compile(r"[a-z][a-z0-9_]*")

_PART = re.compile(
    r"\$(?: (?P<dollar>\$) | \{(?P<braced>[a-z][a-z0-9_]*)\}"
    r" | (?P<name>[a-z][a-z0-9_]*) | (?P<bad>) )",
    re.VERBOSE,
)
_TERM = re.compile(
    r"\s*(?P<sign>[+-])?\s*"
    r"(?: (?P<number>0o[0-7]{1,22}|0|[1-9][0-9]{0,19}) | \$(?P<name>[a-z][a-z0-9_]*)"
    r"| \$\{(?P<braced>[a-z][a-z0-9_]*)\} | (?P<fact>[a-z][a-z0-9_]*) )(?![\w.])\s*",
    re.VERBOSE,
)


class Mistake(Exception):  # noqa: N818  it becomes a UsageProblem once its place is known
    """A word that is wrong, before anybody knows in which file it stands.

    Args:
        what: what is wrong.
        hint: what was meant; may be empty.
        offset: of the wrong character in the word.
    """

    def __init__(self, what: str, hint: str = "", offset: int = 0) -> None:
        super().__init__(what)
        self.what, self.hint, self.offset = what, hint, offset


@dataclass(frozen=True)
class Sum:
    """Numbers, parameters and facts with + and - between them.

    Attributes:
        text: as written.
        number: the sum of its numbers.
        names: (sign, parameter) of each `$name` in it.
        facts: (sign, fact) of each bare word in it.
    """

    text: str
    number: int
    names: tuple[tuple[int, str], ...] = ()
    facts: tuple[tuple[int, str], ...] = ()

    def __str__(self) -> str:
        return self.text

    def value(self, values: Mapping[str, Value], facts: Mapping[str, int]) -> int:
        """Works it out.

        Raises:
            Mistake: a parameter is a word, or a fact is not known on this kernel.
        """
        total = self.number
        for sign, name in self.names:
            term = values[name]
            if isinstance(term, Sum):
                term = term.value({}, facts)
            if not isinstance(term, int):
                raise Mistake(f"${name} is '{term}' here, not a number")
            total += sign * term
        for sign, fact in self.facts:
            if fact not in facts:
                raise Mistake(f"this kernel's '{fact}' is not known", f"see probe {FACTS[fact][1]}")
            total += sign * facts[fact]
        return total


#: What a parameter may be: a number, a word, or a sum with facts in it.
Value: TypeAlias = int | str | Sum


def parse_sum(text: str) -> Sum | None:
    """Reads `38`, `0o755`, `$n`, `limit`, `$n+1`, `limit-$n`; None if it is no sum.

    Whether the names in it exist is for the caller to say.
    """
    at, number = 0, 0
    names: list[tuple[int, str]] = []
    facts: list[tuple[int, str]] = []
    while at < len(text) or not at:
        term = _TERM.match(text, at)
        if term is None or (at and not term["sign"]):
            return None
        sign = -1 if term["sign"] == "-" else 1
        if term["number"]:
            number += sign * int(term["number"], 8 if term["number"].startswith("0o") else 10)
        elif name := term["name"] or term["braced"]:
            names.append((sign, name))
        else:
            facts.append((sign, term["fact"]))
        at = term.end()
    return Sum(text.strip(), number, tuple(names), tuple(facts))


def names_in(text: str) -> Iterator[tuple[str, int]]:
    """Each `$name` of a text with its offset.

    Raises:
        Mistake: a `$` that begins no name.
    """
    for name, literal, offset in _split(text):
        if not literal:
            yield name, offset


def fill(text: str, values: Mapping[str, str]) -> str:
    """Puts values in place of names; a name without one stays as it is written."""
    if "$" not in text:
        return text
    return "".join(
        part if literal else values.get(part, f"${part}") for part, literal, _ in _split(text)
    )


@lru_cache(maxsize=4096)
def _split(text: str) -> tuple[tuple[str, bool, int], ...]:
    """(literal text or name, whether it is literal, offset) in order."""
    parts: list[tuple[str, bool, int]] = []
    at = 0
    for found in _PART.finditer(text):
        if found["bad"] is not None:
            raise Mistake("this '$' begins no name", "write '$$' for a dollar", found.start())
        if found.start() > at:
            parts.append((text[at : found.start()], True, at))
        name = found["name"] or found["braced"]
        parts.append((name or "$", name is None, found.start()))
        at = found.end()
    if at < len(text):
        parts.append((text[at:], True, at))
    return tuple(parts)
