# SPDX-License-Identifier: Apache-2.0
"""A mapping of a TracingPolicy: which of its published keys are read, and what of the rest.

The published keys are those of the custom resource `cilium.io/v1alpha1`
(https://tetragon.io/docs/reference/tracing-policy/).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from refagent.policyfile import words
from refagent.yamltree import Node, blame

_LISTED = "docs/agent.md lists what is"


@dataclass(frozen=True)
class Shape:
    """The keys of one kind of mapping.

    Attributes:
        what: what it is, as in `a selector`.
        needs: keys that are read and must be there.
        reads: those that are read and may be there.
        ignores: those that change nothing about which calls match and what is done.
        idle: those that are not supported → the word with which they change nothing.
        refuses: the other published ones.
    """

    what: str
    needs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    ignores: tuple[str, ...] = ()
    idle: Mapping[str, str] = field(default_factory=dict)
    refuses: tuple[str, ...] = ()

    def take(self, node: Node) -> dict[str, Node]:
        """The values of a mapping's keys that are read.

        Raises:
            BadFile: no mapping, a key that is missing, unknown or not supported.
        """
        taken = {}
        for key, value in words.pairs(node, self.what):
            if key.text in self.needs or key.text in self.reads:
                taken[key.text] = value
            elif key.text in self.idle:
                said = words.text(value, self.idle[key.text])
                if said.lower() != self.idle[key.text]:
                    what = f"'{key.text}: {said}' of {self.what} is not supported"
                    raise blame(value.where, what, _LISTED)
            elif key.text in self.refuses:
                raise blame(key.where, f"'{key.text}' of {self.what} is not supported", _LISTED)
            elif key.text not in self.ignores:
                known = (*self.needs, *self.reads, *self.ignores, *self.idle, *self.refuses)
                possible = f"possible here: {', '.join((*self.needs, *self.reads))}"
                hint = words.closest(key.text, known, possible)
                raise blame(key.where, f"{self.what} has no key '{key.text}'", hint)
        for each in self.needs:
            if each not in taken:
                raise blame(node.where, f"{self.what} needs '{each}'", f"add '{each}: …'")
        return taken
