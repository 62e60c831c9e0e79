# SPDX-License-Identifier: Apache-2.0
"""Mappings of declared keys, and the forms that only a scenario has."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from hookproof.forms import Form, Schema, Scope, check
from hookproof.kinds import MOST_TIMES, Choice, Errno, Number, Text, errnos
from hookproof.names import Mistake, names_in
from hookproof.yamltree import Location, Mapping, Node, Scalar, Sequence, blame
from vm.suggest import closest


@dataclass(frozen=True)
class Field:
    """A key and the form of its value.

    Attributes:
        name: the key, and the argument's name on the wire.
        form: of the value.
        doc: one line for the reference.
        required: whether it must be there.
        default: what it is otherwise; None leaves it out.
    """

    name: str
    form: Form
    doc: str
    required: bool = False
    default: Any = None


#: A mapping's values by key, with their places.
Decoded: TypeAlias = dict[str, tuple[Any, Location]]


def record(node: Node, fields: Iterable[Field], scope: Scope, what: str) -> Decoded:
    """Decodes a mapping by its fields.

    Args:
        node: the mapping.
        fields: what may stand in it.
        scope: what names mean here.
        what: what the mapping is, for messages: `a policy`.

    Returns:
        The keys that are there, with the places of their values.

    Raises:
        UsageProblem: not a mapping, an unknown or missing key, or a wrong value.
    """
    table = {each.name: each for each in fields}
    if not isinstance(node, Mapping):
        got = "a list" if isinstance(node, Sequence) else f"'{node.text}'"
        raise blame(node.where, f"this is {got}, not {what}", f"keys: {', '.join(table)}")
    out: Decoded = {}
    for key, value in node.pairs:
        if key.text not in table:
            hint = closest(key.text, table)
            raise blame(key.where, f"{what} has no key '{key.text}'", hint)
        out[key.text] = (table[key.text].form.decode(value, scope), value.where)
    for each in table.values():
        if each.required and each.name not in out:
            hint = f"add '{each.name}: …' ({each.doc})"
            raise blame(node.where, f"{what} needs '{each.name}'", hint)
    return out


@dataclass(frozen=True)
class PolicyName:
    """A policy of the scenario, or one of its instances: `deny`, `deny-3`, `deny-$n`."""

    words: str = "a policy's name"

    def decode(self, node: Node, scope: Scope) -> Any:
        """The instance's name; of a policy that differs by `$i`, that of number `$i`."""
        if isinstance(node, Scalar) and node.text not in scope.policies:
            key, dash, number = node.text.rpartition("-")
            exact = bool(dash) and scope.policies.get(key, False)
            if not exact or not _NUMBER.fullmatch(number):
                what = f"no policy is called '{node.text}'"
                known = scope.policies
                hint = closest(node.text, known) if known else "describe it under 'policies'"
                if exact:
                    hint = f"write one such as {key}-3 or {key}-$n"
                raise blame(node.where, what, hint)
            scope.loaded.add(key)
            name = _Instance(policy=key).decode(node, scope)
            _check_number(node, number, scope)
            return name
        if isinstance(node, Scalar):
            scope.loaded.add(node.text)
            if scope.policies[node.text]:
                if not scope.counter:
                    what = f"policy '{node.text}' uses '$i', and this step has no 'times'"
                    raise blame(node.where, what, f"add 'times', or name one: {node.text}-1")
                node = Scalar(node.where, f"{node.text}-$i", node.plain)
        return _NAME.decode(node, scope)

    def schema(self) -> Schema:
        """A text: which names there are is for the decoder to say."""
        return _NAME.schema()


_NAME = Text("a policy's name")
_NUMBER = re.compile(r"[0-9]+|\$[a-z][a-z0-9_]*|\$\{[a-z][a-z0-9_]*\}")


@dataclass(frozen=True)
class _Instance(Text):
    """A policy's name, '-' and a number from 1."""

    words: str = "a policy's name and a number"
    policy: str = ""

    def parse(self, text: str) -> str:
        """Reads the text."""
        number = text.removeprefix(f"{self.policy}-")
        if not re.fullmatch("[1-9][0-9]{0,6}", number) or int(number) > MOST_TIMES:
            what = f"'{text}' is no instance of '{self.policy}'"
            raise Mistake(what, f"they are numbered from 1 to {MOST_TIMES}")
        return text


def _check_number(node: Scalar, number: str, scope: Scope) -> None:
    """Refuses, of an instance that a parameter names, the values that are no number."""
    for name, _ in names_in(number):
        for value, where in scope.params.get(name, ()):
            check(Number(1, MOST_TIMES), value, where, node)


_OK = Choice(lambda: ["ok"], "'ok'")
_OK_OR_ERRNO = Errno(lambda: ("ok", *errnos()), "'ok' or an errno", "such as EPERM")


@dataclass(frozen=True)
class Gives:
    """What a step must give: `ok`, an errno, or one of a few mappings.

    Attributes:
        errno: whether an errno is possible.
        mappings: the keys of which one may stand alone, as in `{exit: 3}`.
    """

    errno: bool = True
    mappings: tuple[Field, ...] = ()

    @property
    def words(self) -> str:
        """What may stand here."""
        words = ["ok"] + (["an errno"] if self.errno else [])
        return " or ".join(words + [f"{{{each.name}: …}}" for each in self.mappings])

    @property
    def _word(self) -> Choice:
        return _OK_OR_ERRNO if self.errno else _OK

    def decode(self, node: Node, scope: Scope) -> Any:
        """A word, or a mapping of one key."""
        if isinstance(node, Mapping) and self.mappings:
            given = record(node, self.mappings, scope, "this result")
            if len(given) != 1:
                raise blame(node.where, "a result is one key", f"write {self.words}")
            return {name: value for name, (value, _) in given.items()}
        if isinstance(node, Scalar) and not self.errno and node.text not in {"ok", ""}:
            raise blame(node.where, f"'{node.text}' cannot be given here", f"write {self.words}")
        return self._word.decode(node, scope)

    def schema(self) -> Schema:
        """Any of the words and mappings."""
        return {
            "anyOf": [self._word.schema(), *(mapping_schema((each,)) for each in self.mappings)]
        }


def mapping_schema(fields: Iterable[Field]) -> Schema:
    """The JSON schema of a mapping with these keys."""
    table = list(fields)
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            each.name: {"description": each.doc, **each.form.schema()} for each in table
        },
        "required": [each.name for each in table if each.required],
    }
