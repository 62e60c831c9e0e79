# SPDX-License-Identifier: Apache-2.0
"""The words in a policy's file: texts, paths, numbers, switches and choices.

Each function reads one node and raises `BadFile` with its place where it is something else.
"""

from __future__ import annotations

import difflib
import errno
import re
import signal
from collections.abc import Collection, Iterable
from typing import Final

from refagent import layout
from refagent.errors import Refused
from refagent.policy import RANGES
from refagent.yamltree import Mapping, Node, Scalar, Sequence, blame

ERRNOS: Final = {
    name: getattr(errno, name)
    for name in (*(errno.errorcode[each] for each in sorted(errno.errorcode)), *dir(errno))
    if re.fullmatch(r"E[A-Z0-9]+", name)
}
SIGNALS: Final = {each.name: each.value for each in signal.Signals}

_NUMBER: Final = re.compile(
    r"[-+]?(0x[0-9a-f]+|0o[0-7]+|0b[01]+|0|[1-9][0-9]*)", re.ASCII | re.IGNORECASE
)
#: No number of a policy has more digits: 64 bits in binary, a sign, and what says the base.
_LONGEST: Final = 67
#: Longer lists are for documents, not for messages.
_FEW: Final = 8


def closest(word: str, known: Iterable[str], otherwise: str) -> str:
    """The next step for a word that nobody knows: what was meant, if one is close."""
    folded = {each.lower(): each for each in reversed(tuple(known))}
    near = difflib.get_close_matches(word.lower(), folded, n=1)
    return f"did you mean '{folded[near[0]]}'?" if near else otherwise


def kind_of(node: Node) -> str:
    """What a node is, for `this is …`."""
    if isinstance(node, Scalar):
        return f"'{node.text}'" if node.text or not node.plain else "nothing"
    return "a list" if isinstance(node, Sequence) else "a mapping"


def text(node: Node, what: str) -> str:
    """Any text but an empty one."""
    if not isinstance(node, Scalar):
        raise blame(node.where, f"this is {kind_of(node)}", f"write {what}")
    if not node.text:
        raise blame(node.where, "nothing stands here", f"write {what}")
    return node.text


def path(node: Node, *, begins: bool = False) -> str:
    """An absolute path as the kernel has them, or how one begins."""
    words = text(node, "an absolute path")
    if not words.startswith("/"):
        raise blame(node.where, f"'{words}' is not an absolute path", "begin it with '/'")
    if "\0" in words:
        raise blame(node.where, "a NUL cannot stand in a path", "remove it")
    if wrong := unmatched(words, begins=begins):
        raise blame(node.where, wrong, "write one that the kernel has")
    return words


def unmatched(words: str, *, begins: bool = False) -> str:
    """Why no path of the kernel's is this, or begins so; empty: one can."""
    try:
        (layout.prefix_text if begins else layout.path_text)(words)
    except Refused as refused:
        return str(refused)
    return ""


def number(node: Node, least: int, most: int) -> int:
    """A whole number: decimal, or as `0x1f`, `0o17` or `0b1`."""
    words = text(node, "a whole number")
    if not _NUMBER.fullmatch(words):
        octal = re.fullmatch(r"0+([0-7]+)", words)
        hint = f"write 0o{octal[1]} for octal" if octal else "write one such as 38 or 0x26"
        raise blame(node.where, f"'{words}' is not a whole number", hint)
    if len(words) > _LONGEST or not least <= (value := int(words, 0)) <= most:
        raise blame(node.where, f"{words} is out of range", f"{least} to {most} are possible here")
    return value


def in_range(node: Node, key: str) -> int:
    """A number that stands for this key of a policy."""
    return number(node, *RANGES[key])


def switch(node: Node) -> bool:
    """`true` or `false`."""
    words = text(node, "true or false").lower()
    if words not in {"true", "false"}:
        raise blame(node.where, f"{kind_of(node)} is neither true nor false", "write one of them")
    return words == "true"


def choice(node: Node, known: Iterable[str], what: str, elsewhere: Collection[str] = ()) -> str:
    """One of a few words.

    Args:
        node: the word.
        known: those that are right here.
        what: what they are, as in `an operator`.
        elsewhere: those that are published, and refused here.
    """
    words, known = text(node, what), tuple(known)
    if words in known:
        return words
    possible = "docs/agent.md lists what is"
    if len(known) <= _FEW:
        possible = f"possible here: {', '.join(known)}"
    if words in elsewhere:
        raise blame(node.where, f"'{words}' as {what} is not supported", possible)
    hint = closest(words, (*known, *elsewhere), possible)
    raise blame(node.where, f"'{words}' is not {what}", hint)


def named(node: Node, key: str, names: dict[str, int]) -> int:
    """The number of an errno or a signal, by its name or as it is."""
    words = text(node, f"what '{key}' is")
    if words in names:
        return names[words]
    if _NUMBER.fullmatch(words):
        return in_range(node, key)
    hint = closest(words, names, f"write one such as {next(iter(names))}")
    raise blame(node.where, f"'{words}' is no {'errno' if key == 'override' else key}", hint)


def items(node: Node, what: str) -> tuple[Node, ...]:
    """A list's."""
    if not isinstance(node, Sequence):
        raise blame(node.where, f"this is {kind_of(node)}", f"write {what}")
    return node.items


def pairs(node: Node, what: str) -> tuple[tuple[Scalar, Node], ...]:
    """A mapping's keys and values."""
    if not isinstance(node, Mapping):
        raise blame(node.where, f"this is {kind_of(node)}, not {what}", "write keys and values")
    return node.pairs
