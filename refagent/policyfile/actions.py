# SPDX-License-Identifier: Apache-2.0
"""What a selector does with a call, as fields of a policy.

Every selector posts an event, whatever else it does, unless it says NoPost.
"""

from __future__ import annotations

import signal
from typing import Any, Final

from refagent.policy import RANGES
from refagent.policyfile import published, words
from refagent.yamltree import Node, blame

#: Action → the argument it needs, if any, and the field of a policy that it sets.
ACTIONS: Final[dict[str, tuple[str | None, str]]] = {
    "Override": ("argError", "override"),
    "Sigkill": (None, "signal"),
    "Signal": ("argSig", "signal"),
    "Post": (None, "post"),
    "NoPost": (None, "post"),
}
_ARGUMENTS: Final = ("argError", "argSig")


def read_actions(node: Node | None, *, lsm: bool) -> dict[str, Any]:
    """What stands at `matchActions`.

    Args:
        node: its value, or None where it is missing.
        lsm: whether the hook is one of LSM programs.

    Returns:
        override, signal, post and hash of a policy, as far as they are said.

    Raises:
        BadFile: an action that is wrong, not supported, or stands against another.
    """
    fields: dict[str, Any] = {}
    for item in () if node is None else words.items(node, "a list of actions"):
        for key, value in words.pairs(item, published.ACTION.what):
            if key.text == "action":  # first of all: another's arguments are unknown here too
                words.choice(value, ACTIONS, "an action", elsewhere=published.OTHER_ACTIONS)
        taken = published.ACTION.take(item)
        name = words.text(taken["action"], "an action")
        needed, field = ACTIONS[name]
        if field in fields:
            raise blame(item.where, f"'{name}' is one too many", f"keep one of {_rivals(field)}")
        for argument in _ARGUMENTS:
            if argument in taken and argument != needed:
                what = f"'{argument}' means nothing to {name}"
                raise blame(taken[argument].where, what, "remove it")
        if needed is not None and needed not in taken:
            raise blame(item.where, f"{name} needs '{needed}'", f"add '{needed}: …'")
        fields[field] = _value(name, taken)
        if "imaHash" in taken and words.switch(taken["imaHash"]):
            where = taken["imaHash"].where
            if name != "Post":
                raise blame(where, f"'imaHash' means nothing to {name}", "remove it")
            if not lsm:
                raise blame(where, "'imaHash: true' is for lsmhooks only", "remove it")
            fields["hash"] = True
    fields.setdefault("post", True)
    if node is not None and not any(fields.values()):
        # There it keeps calls away from the selectors that follow; no policy of ours can.
        hint = "say which calls do match in the selectors that act"
        raise blame(node.where, "a selector with NoPost alone is not supported", hint)
    return fields


def _value(name: str, taken: dict[str, Node]) -> int | bool:
    """What an action sets its field to."""
    if name == "Override":
        least, most = RANGES["override"]
        return -words.number(taken["argError"], -most, -least)
    if name == "Signal":
        return words.in_range(taken["argSig"], "signal")
    return int(signal.SIGKILL) if name == "Sigkill" else name == "Post"


def _rivals(field: str) -> str:
    rivals = [each for each, (_, sets) in ACTIONS.items() if sets == field]
    return " and ".join(rivals) if len(rivals) > 1 else "them"
