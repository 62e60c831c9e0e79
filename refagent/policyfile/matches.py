# SPDX-License-Identifier: Apache-2.0
"""What a selector asks of a call, as fields of policies.

All matches of a selector have to fit, and of each match's values one. A policy has one value
for each thing, so a selector gives as many policies as there are ways to choose the values.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from refagent.errors import BadFile
from refagent.policy import REGISTERS, is_small
from refagent.policyfile import published, words
from refagent.policyfile.shape import Shape
from refagent.yamltree import Location, Node, Scalar, blame

#: Some of a policy's fields by name.
Fields: TypeAlias = dict[str, Any]
#: One value's fields each, of which one has to fit.
Alternatives: TypeAlias = list[Fields]

#: How many policies an agent can have at once.
MOST_POLICIES: Final = 16384


@dataclass(frozen=True)
class Argument:
    """An argument that a hook declares.

    Attributes:
        index: which of the function's, from 0.
        type: as published.
        sized: whether the kernel knows its size by itself.
    """

    index: int
    type: str
    sized: bool = True


def read_arguments(node: Node, *, syscall: bool) -> list[Argument]:
    """What stands at `args`.

    Args:
        node: its value.
        syscall: whether they are a system call's.

    Raises:
        BadFile: something in it is wrong or not supported.
    """
    out: list[Argument] = []
    types = (*published.PATHS, *published.NUMBERS, *published.OTHER_TYPES)
    for item in words.items(node, "a list of arguments"):
        taken = published.ARGUMENT.take(item)
        index = words.number(taken["index"], 0, REGISTERS - 1)
        if any(index == each.index for each in out):
            raise blame(taken["index"].where, f"argument {index} stands here twice", "keep one")
        others = published.TRACEPOINT_TYPES
        kind = words.choice(taken["type"], types, "an argument's type", elsewhere=others)
        out.append(Argument(index, kind, sized=not syscall))
    return out


def read_matches(taken: dict[str, Node], arguments: Sequence[Argument]) -> Alternatives:
    """What a selector's matches ask.

    Args:
        taken: the selector's keys.
        arguments: what its hook declares.

    Returns:
        The fields of each policy; one policy without any where all calls match.

    Raises:
        BadFile: something in it is wrong or not supported, or too much for an agent.
    """
    found: list[Alternatives] = []
    if "matchArgs" in taken:
        found += _of_arguments(taken["matchArgs"], arguments)
    for key, (shape, field, read) in _OF_CALLERS.items():
        if key in taken:
            found.append(_of_caller(taken[key], shape, field, read))
    ways = math.prod(len(each) for each in found)
    if ways > MOST_POLICIES:
        where = next(iter(taken.values())).where
        raise too_many(where, ways)
    return [
        {key: value for fields in chosen for key, value in fields.items()}
        for chosen in itertools.product(*found)
    ]


def too_many(where: Location, count: int) -> BadFile:
    """More policies than an agent can have."""
    return blame(where, f"this makes {count} policies", f"stay below {MOST_POLICIES + 1}")


def _of_caller(node: Node, shape: Shape, field: str, read: Callable[[Node], Any]) -> Alternatives:
    entries = words.items(node, f"a list of {shape.what}")
    if not entries:
        raise blame(node.where, "the list is empty", "add an entry, or leave it out")
    taken = shape.take(entries[0])
    words.choice(taken["operator"], ("In",), f"an operator of {shape.what}", published.OPERATORS)
    if len(entries) > 1:
        what = f"a second entry of {shape.what} is not supported"
        raise blame(entries[1].where, what, "keep what fits both")
    return [{field: value} for value in _values(taken["values"], read)]


_OF_CALLERS: Final[dict[str, tuple[Shape, str, Callable[[Node], Any]]]] = {
    "matchBinaries": (published.MATCH_BINARY, "binary", words.path),
    "matchPIDs": (published.MATCH_PID, "pid", lambda node: words.in_range(node, "pid")),
}


def _of_arguments(node: Node, arguments: Sequence[Argument]) -> list[Alternatives]:
    found: dict[str, Alternatives] = {}
    for entry in words.items(node, "a list of matchArgs"):
        taken = published.MATCH_ARGUMENT.take(entry)
        argument = _argument(entry, taken, arguments)
        if argument.type not in {*published.PATHS, *published.NUMBERS}:
            what = f"matchArgs of type '{argument.type}' is not supported"
            raise blame(entry.where, what, "only paths and numbers can be asked")
        what, alternatives = _of_argument(argument, taken)
        if what in found:
            what = f"a selector can ask one {what} argument, and this is its second"
            raise blame(entry.where, what, "keep one of them")
        found[what] = alternatives
    return list(found.values())


def _argument(entry: Node, taken: dict[str, Node], arguments: Sequence[Argument]) -> Argument:
    """The declared argument that is meant: by its place in the function, or in the file."""
    if ("index" in taken) == ("args" in taken):
        hint = "keep one of them" if "index" in taken else "add 'index: …'"
        raise blame(entry.where, "matchArgs needs one of 'index' and 'args'", hint)
    if "index" in taken:
        index = words.number(taken["index"], 0, REGISTERS - 1)
        for each in arguments:
            if each.index == index:
                return each
        hint = f"add '- index: {index}' with its type to 'args' of the hook"
        raise blame(taken["index"].where, f"argument {index} is not declared", hint)
    places = words.items(taken["args"], "a list of one number")
    if len(places) != 1:
        raise blame(taken["args"].where, "matchArgs can ask one argument", "write one number")
    if not arguments:
        raise blame(places[0].where, "the hook declares no arguments", "add 'args' to it")
    return arguments[words.number(places[0], 0, len(arguments) - 1)]


def _of_argument(argument: Argument, taken: dict[str, Node]) -> tuple[str, Alternatives]:
    """What is asked of an argument: whether that is a path or a number, and the values."""
    kind, operator = argument.type, taken["operator"]
    if kind in published.PATHS:
        key = {"Equal": "path", "Prefix": "prefix"}[
            words.choice(operator, ("Equal", "Prefix"), _OPERATOR, published.OPERATORS)
        ]
        ends = kind == "string" and key == "path"
        read = _ended if ends else functools.partial(words.path, begins=key == "prefix")
        paths = _values(taken["values"], read)
        return "path", [{key: value, "path_argument": argument.index} for value in paths]
    words.choice(operator, ("Equal",), f"{_OPERATOR} of a number", published.OPERATORS)
    least, most = published.NUMBERS[kind]
    numbers = _values(taken["values"], lambda node: words.number(node, least, most))
    wide = not argument.sized and kind in published.WIDE
    return "number", [
        {"argument": argument.index, "value": value}
        | ({"value_bits": 64} if wide and is_small(value) else {})
        for value in numbers
    ]


_OPERATOR: Final = "an operator of matchArgs"


def _ended(node: Node) -> str:
    """A C string, which some write with the NULs at its end."""
    if isinstance(node, Scalar):
        node = Scalar(node.where, node.text.rstrip("\0"), node.plain)
    return words.path(node)


def _values(node: Node, read: Callable[[Node], Any]) -> list[Any]:
    """A match's values, each once."""
    values = words.items(node, "a list of values")
    if not values:
        raise blame(node.where, "without values nothing matches", "add one")
    return list(dict.fromkeys(read(each) for each in values))
