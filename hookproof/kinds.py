# SPDX-License-Identifier: Apache-2.0
"""The kinds of words a scenario is written with: texts, paths, numbers, errnos, choices."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from hookproof.forms import Atom, Env, Many, Schema, Scope, check, know
from hookproof.names import COUNTER, FACTS, Mistake, Sum, Value, parse_sum
from hookproof.yamltree import Node, Scalar, Sequence
from vm.suggest import closest

#: More repetitions than this in one step are a slip of the finger.
MOST_TIMES = 100_000


@dataclass(frozen=True)
class Text(Atom):
    """Any text, by default one that is not empty."""

    words: str = "a text"
    pattern: str | None = None
    hint: str = ""
    least: int = 1

    def parse(self, text: str) -> str:
        """Reads the text."""
        if len(text) < self.least:
            raise Mistake("the text is empty", f"write {self.words}")
        if "\0" in text:
            raise Mistake("a NUL cannot stand in a text", "remove it")
        if self.pattern and not re.fullmatch(self.pattern, text):
            raise Mistake(f"'{text}' is not {self.words}", self.hint)
        return text

    def schema(self) -> Schema:
        """The same as a JSON schema."""
        # Without quotation marks, 6.1 is a number to an editor.
        types = ["string", "number", "boolean"]
        return super().schema() | {"type": types, "minLength": self.least}


@dataclass(frozen=True)
class Verbatim(Text):
    """A text in which `$` means nothing."""

    def decode(self, node: Node, scope: Scope) -> Any:
        """Reads the node."""
        if isinstance(node, Scalar):
            node = Scalar(node.where, node.text.replace("$", "$$"), node.plain)
        return super().decode(node, scope)


@dataclass(frozen=True)
class Path(Atom):
    """An absolute path in the guest."""

    words: str = "an absolute path"

    def parse(self, text: str) -> str:
        """Reads the text."""
        if not text.startswith("/"):
            raise Mistake(f"'{text}' is not an absolute path", "begin it with '/'")
        if "\0" in text:
            raise Mistake("a NUL cannot stand in a path", "remove it")
        if len(os.fsencode(text)) > 4095:
            raise Mistake("this path is longer than the kernel takes", "keep it below 4096 bytes")
        return text

    def schema(self) -> Schema:
        """The same as a JSON schema."""
        return {"type": "string", "pattern": "^[/$]"}


@dataclass(frozen=True)
class Number(Atom):
    """A whole number: decimal, `0o755`, or a sum of numbers, parameters and facts."""

    low: int
    high: int
    words: str = "a whole number"

    def evaluate(self, text: str, env: Env) -> int:
        """Works the sum out."""
        return self._in_range(_sum(text).value(env.values, env.facts))

    def accepts(self, value: Value) -> None:
        """Checks a parameter's value."""
        if isinstance(value, str):
            raise Mistake(f"'{value}' is not a whole number")
        if isinstance(value, int):
            self._in_range(value)

    def schema(self) -> Schema:
        """The same as a JSON schema."""
        whole = {"type": "integer", "minimum": self.low, "maximum": self.high}
        return {"anyOf": [whole, {"type": "string"}]}

    def look_up(self, node: Scalar, scope: Scope) -> bool:
        """Notes the names and facts of the sum."""
        total = _sum(node.text)
        for _, name in total.names:
            know(name, max(node.text.find(f"${name}"), 0), scope)
            form = self if node.text in {f"${name}", f"${{{name}}}"} else _ANY_NUMBER
            for value, where in scope.params.get(name, ()):
                check(form, value, where, node)
        for _, fact in total.facts:
            if fact not in FACTS:
                known = [f"${each}" for each in scope.params if each == fact] or FACTS
                raise Mistake(f"'{fact}' is neither a number nor a fact", closest(fact, known))
            scope.facts.add(fact)
        return bool(total.names or total.facts)

    def _in_range(self, number: int) -> int:
        if not self.low <= number <= self.high:
            raise Mistake(
                f"{number} is out of range", f"{self.low} to {self.high} are possible here"
            )
        return number


@dataclass(frozen=True)
class Repeats(Number):
    """How often something is done: a number that cannot depend on `$i`."""

    def look_up(self, node: Scalar, scope: Scope) -> bool:
        """Refuses `$i`, then looks the other names up."""
        if any(name == COUNTER for _, name in _sum(node.text).names):
            what = "'$i' counts up to this number and cannot stand in it"
            raise Mistake(what, "write a number, $n or limit+1")
        return super().look_up(node, scope)


def _sum(text: str) -> Sum:
    total = parse_sum(text)
    if total is None:
        hint = "write one such as 38, 0o755, $n or limit+1"
        if re.fullmatch(r"0[0-7]+", text):
            hint = f"write 0o{text[1:]} for octal, or {text.lstrip('0') or 0}"
        raise Mistake(f"'{text}' is not a whole number", hint)
    return total


@dataclass(frozen=True)
class Choice(Atom):
    """One of a set of words.

    Attributes:
        known: gives the words; called when they are needed.
        words: what they are.
        such_as: what to show if nothing near is known and the set is long.
    """

    known: Callable[[], Iterable[str]]
    words: str
    such_as: str = ""

    def parse(self, text: str) -> str:
        """Reads the text."""
        known = tuple(self.known())
        if text in known:
            return text
        hint = closest(text, known)
        if hint.startswith("known:") and self.such_as:
            hint = f"write {self.words} {self.such_as}"
        raise Mistake(f"'{text}' is not {self.words}", hint)

    def schema(self) -> Schema:
        """The same as a JSON schema."""
        known = list(self.known())
        # An editor's YAML has types, and to it `true` and `32` are no texts.
        typed = [_TYPED[each] if each in _TYPED else int(each) for each in known if _typed(each)]
        words = {"title": self.words, "enum": [*known, *typed]}
        return {"anyOf": [words, {"type": "string", "pattern": "^\\$"}]}


_TYPED = {"true": True, "false": False}


def _typed(word: str) -> bool:
    return word in _TYPED or word.isdecimal()


class Errno(Choice):
    """An errno by its name; a number is answered with the name."""

    def parse(self, text: str) -> str:
        """Reads the text."""
        number = text.lstrip("-")
        if number.isdecimal() and len(number) < 5 and int(number) in errno.errorcode:
            name = errno.errorcode[int(number)]
            raise Mistake(f"'{text}' is a number", f"write the errno's name, '{name}'")
        return super().parse(text)


@cache
def errnos() -> tuple[str, ...]:
    """Every errno name of this platform, aliases included, by number."""
    names = [each for each in dir(errno) if re.fullmatch(r"E[A-Z0-9]+", each)]
    return tuple(sorted(names, key=lambda name: (getattr(errno, name), name)))


_ANY_NUMBER = Number(-(2**63), 2**63)


@dataclass(frozen=True)
class Argv(Many):
    """A program and its arguments: the first word is an absolute path."""

    def decode(self, node: Node, scope: Scope) -> tuple[Any, ...]:
        """The words."""
        words = super().decode(node, scope)
        first = node.items[0] if isinstance(node, Sequence) else node
        Path("the program's absolute path").decode(first, scope)
        return words
