# SPDX-License-Identifier: Apache-2.0
"""The forms a value can take: what is accepted, what it becomes, how its schema reads.

A form reads a node by its declared type, so nothing depends on what YAML would make of a
word. A value that holds `$names` cannot be read before the names have values: it becomes
an `Unbound`, which carries its form and its place, and is read by `bind`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from hookproof.names import COUNTER, Mistake, Sum, Value, fill, names_in
from hookproof.yamltree import Location, Node, Scalar, Sequence, blame
from hookproof.yamltree import Mapping as MappingNode
from vm.suggest import closest

Schema = dict[str, Any]

#: A parameter's values, each with its place.
Located = tuple[tuple[Value, Location], ...]


@dataclass
class Scope:
    """What names mean while a scenario is decoded, and which of them were used.

    Attributes:
        params: the parameters' values.
        counter: whether `$i` counts something here.
        policies: policy → whether it differs by `$i`.
        used: parameters named so far.
        loaded: policies named so far.
        facts: facts named so far.
    """

    params: Mapping[str, Located] = field(default_factory=dict)
    counter: bool = False
    policies: dict[str, bool] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    loaded: set[str] = field(default_factory=set)
    facts: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Env:
    """What names stand for once a scenario meets a kernel."""

    values: Mapping[str, Value]
    facts: Mapping[str, int]

    def texts(self) -> dict[str, str]:
        """Every value as the text that replaces its name."""
        return {
            name: str(value.value({}, self.facts) if isinstance(value, Sum) else value)
            for name, value in self.values.items()
        }


class Form(Protocol):
    """Anything that can stand as a value."""

    @property
    def words(self) -> str:
        """What it is, as in `an absolute path`."""

    def decode(self, node: Node, scope: Scope) -> Any:
        """The node's value; may hold `Unbound`. Raises UsageProblem."""

    def schema(self) -> Schema:
        """The same as a JSON schema."""


class Atom:
    """A form written as one word or one text. Subclasses say how the text is read."""

    words: str = "a text"
    pattern: str | None = None

    def parse(self, text: str) -> Any:
        """Reads a text without names. Raises Mistake."""
        raise NotImplementedError

    def evaluate(self, text: str, env: Env) -> Any:
        """Reads a text after its names were replaced. Raises Mistake."""
        return self.parse(fill(text, env.texts()))

    def accepts(self, value: Value) -> None:
        """Checks a parameter's value that stands alone for this form. Raises Mistake."""
        self.parse(str(value))

    def decode(self, node: Node, scope: Scope) -> Any:
        """Reads the node."""
        if not isinstance(node, Scalar):
            got = "a list" if isinstance(node, Sequence) else "a mapping"
            raise blame(node.where, f"this is {got}", f"write {self.words}")
        if not node.text and node.plain:
            raise blame(node.where, "nothing stands here", f"write {self.words}")
        try:
            if self.look_up(node, scope):
                return Unbound(self, node.text, node.where)
            return self.evaluate(node.text, Env({}, {}))
        except Mistake as mistake:
            raise blame(_inside(node, mistake.offset), mistake.what, mistake.hint) from None

    def schema(self) -> Schema:
        """The same as a JSON schema."""
        return {"type": "string"} | ({"pattern": self.pattern} if self.pattern else {})

    def look_up(self, node: Scalar, scope: Scope) -> bool:
        """Whether the text waits for names; notes them and checks what can be checked."""
        names = list(names_in(node.text))
        for name, offset in names:
            know(name, offset, scope)
        if len(names) == 1 and node.text in {f"${names[0][0]}", f"${{{names[0][0]}}}"}:
            for value, where in scope.params.get(names[0][0], ()):
                check(self, value, where, node)
        return bool(names)


@dataclass(frozen=True)
class Unbound:
    """A value that waits for the names in it.

    Attributes:
        form: how to read it then.
        text: as written.
        where: its place, for messages.
    """

    form: Atom
    text: str
    where: Location

    def value(self, env: Env) -> Any:
        """Reads it. Raises UsageProblem if what comes out is not of the form."""
        try:
            return self.form.evaluate(self.text, env)
        except Mistake as mistake:
            what = f"'{self.text}' comes to something wrong here: {mistake.what}"
            raise blame(self.where, what, mistake.hint) from None

    def counts(self) -> bool:
        """Whether it differs from one repetition to the next."""
        return any(name == COUNTER for name, _ in names_in(self.text))


def know(name: str, offset: int, scope: Scope) -> None:
    """Notes that a name was used. Raises Mistake if it means nothing here."""
    if name == COUNTER:
        if not scope.counter:
            hint = "give the step 'times', or write the number"
            raise Mistake(
                "'$i' counts the repetitions of a step, and this one has no 'times'", hint, offset
            )
        return
    if name not in scope.params:
        known = [f"${each}" for each in scope.params] + ([f"${COUNTER}"] if scope.counter else [])
        hint = closest(f"${name}", known) if known else f"add 'params: {{{name}: […]}}'"
        raise Mistake(f"no parameter is called '{name}'", hint, offset)
    scope.used.add(name)


def check(form: Atom, value: Value, where: Location, used: Scalar) -> None:
    """Checks a parameter's value against the form of a place where it is used."""
    try:
        form.accepts(value)
    except Mistake as mistake:
        what = f"{mistake.what} ('{used.text}' on line {used.where.line} must be {form.words})"
        raise blame(where, what, mistake.hint) from None


def _inside(node: Scalar, offset: int) -> Location:
    """The place of one of the text's characters; exact unless it spans lines or has escapes."""
    start = node.where
    quote = 0 if node.plain or not offset else 1
    return Location(start.path, start.line, start.column + offset + quote)


@dataclass(frozen=True)
class Many:
    """One value, or a list of them; becomes a tuple.

    Attributes:
        form: of each.
        words: what they are.
        least: how many there must be.
        single: whether one value may stand without its list.
    """

    form: Form
    words: str
    least: int = 1
    single: bool = True

    def decode(self, node: Node, scope: Scope) -> tuple[Any, ...]:
        """Reads the node."""
        if isinstance(node, MappingNode) or (isinstance(node, Scalar) and not self.single):
            got = "a mapping" if isinstance(node, MappingNode) else f"'{node.text}', not a list"
            raise blame(node.where, f"this is {got}", f"write {self.words}")
        items = node.items if isinstance(node, Sequence) else (node,)
        if len(items) < self.least:
            raise blame(node.where, "the list is empty", f"write {self.words}")
        return tuple(self.form.decode(item, scope) for item in items)

    def schema(self) -> Schema:
        """The same as a JSON schema."""
        each = self.form.schema()
        several: Schema = {"type": "array", "items": each}
        if self.least:
            several["minItems"] = self.least
        return {"anyOf": [each, several]} if self.single else several
