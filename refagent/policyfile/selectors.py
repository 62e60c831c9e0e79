# SPDX-License-Identifier: Apache-2.0
"""Where the selectors of one entry would not do here what they do there.

There the first selector that fits a call is the only one that acts. Here a policy that only
posts decides nothing, and the next one that fits denies the call all the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

#: What is asked of a call by one value, and the field that says of which of its arguments.
_EXACT: Final = (("path", "path_argument"), ("binary", ""), ("pid", ""), ("value", "argument"))


def clash(earlier: Sequence[Mapping[str, Any]], later: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an earlier selector would keep a call from a later one there, and not here.

    Args:
        earlier: the fields of the policies of one selector, or of what stands for it.
        later: of one that stands behind it in the same entry.
    """
    return not _acts(earlier) and _acts(later) and not _apart(earlier, later)


def _acts(policies: Sequence[Mapping[str, Any]]) -> bool:
    """All policies of a selector do the same."""
    return bool(policies[0].get("override") or policies[0].get("signal"))


def _apart(some: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> bool:
    """Whether it is certain that no call fits policies of both."""
    for key, argument in _EXACT:
        if len({each.get(argument) for each in (*some, *others)}) > 1:
            continue
        mine, theirs = ({_value(each.get(key)) for each in side} for side in (some, others))
        if None not in mine | theirs and mine.isdisjoint(theirs):
            return True
    if len({each.get("path_argument") for each in (*some, *others)}) > 1:
        return False
    return not any(map(_meet, *zip(*itertools.product(some, others), strict=True)))


def _value(value: object) -> object:
    """Numbers are compared in 32 bits at the least."""
    return value & 0xFFFF_FFFF if isinstance(value, int) else value


def _meet(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a path can fit both."""
    path, prefix = one.get("path"), one.get("prefix")
    other_path, other_prefix = other.get("path"), other.get("prefix")
    if path is not None and other_path is not None:
        return bool(path == other_path)
    if path is not None and other_prefix is not None:
        return bool(path.startswith(other_prefix))
    if prefix is not None and other_path is not None:
        return bool(other_path.startswith(prefix))
    if prefix is not None and other_prefix is not None:
        return bool(prefix.startswith(other_prefix) or other_prefix.startswith(prefix))
    return True
