# SPDX-License-Identifier: Apache-2.0
"""The short form: a mapping with a policy's own keys, or a list of such mappings."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from refagent.policy import Policy
from refagent.policyfile import words
from refagent.policyfile.shape import Shape
from refagent.yamltree import Node, Sequence, blame

_TYPES: Final = {each.name: str(each.type) for each in dataclasses.fields(Policy)}
_NAMED: Final = {"override": words.ERRNOS, "signal": words.SIGNALS}
_PATHS: Final = ("path", "prefix", "binary")
_SHAPE: Final = Shape(
    "a policy",
    needs=tuple(
        each.name for each in dataclasses.fields(Policy) if each.default is dataclasses.MISSING
    ),
    reads=tuple(
        each.name for each in dataclasses.fields(Policy) if each.default is not dataclasses.MISSING
    ),
)


def read_short(root: Node) -> tuple[Policy, ...]:
    """Reads policies in the short form.

    Args:
        root: the file's.

    Returns:
        The policies in the file's order.

    Raises:
        BadFile: the first thing that is wrong.
    """
    nodes = root.items if isinstance(root, Sequence) else (root,)
    if not nodes:
        raise blame(root.where, "the list is empty", "add a policy")
    out: dict[str, Policy] = {}
    for node in nodes:
        taken = _SHAPE.take(node)
        try:
            policy = Policy(**{key: _value(key, each) for key, each in taken.items()}).checked()
        except ValueError as mistake:
            raise blame(node.where, str(mistake)) from None
        if policy.name in out:
            what = f"a policy called '{policy.name}' stands here twice"
            raise blame(taken["name"].where, what, "give each a name of its own")
        out[policy.name] = policy
    return tuple(out.values())


def _value(key: str, node: Node) -> Any:
    """What stands at a policy's key, as the type that the policy declares for it."""
    if key in _PATHS:
        return words.path(node, begins=key == "prefix")
    if key in _NAMED:
        return words.named(node, key, _NAMED[key])
    if _TYPES[key].startswith("tuple"):
        digests = words.items(node, f"a list of {key}")
        if not digests:  # which would not be told from none at all: a policy for every file
            raise blame(node.where, f"the list of {key} is empty", "add a digest")
        return tuple(words.text(each, "a digest") for each in digests)
    if _TYPES[key].startswith("int"):
        return words.in_range(node, key)
    return words.switch(node) if _TYPES[key] == "bool" else words.text(node, f"what '{key}' is")
