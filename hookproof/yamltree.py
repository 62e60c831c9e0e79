# SPDX-License-Identifier: Apache-2.0
"""The tree that a scenario's file is read into: the agent's, with a scenario's words."""

from __future__ import annotations

from pathlib import Path

from refagent import yamlfile, yamltree
from refagent.errors import BadFile
from refagent.yamltree import Location, Mapping, Node, Scalar, Sequence
from vm.errors import UsageProblem

__all__ = ["Location", "Mapping", "Node", "Scalar", "Sequence", "blame", "read"]

_SCENARIO = yamlfile.Wording(
    thing="scenario",
    holds="one scenario",
    begin="begin with 'about: …'; docs/scenarios.md has the keys",
    repeat="write the value out; params and policies are what a scenario repeats with",
)


def read(path: Path, shown: str) -> Node:
    """Reads a scenario's file; `refagent.yamlfile.read` says what it may hold.

    Raises:
        UsageProblem: it cannot be read, or holds something else.
    """
    try:
        return yamlfile.read(path, shown, _SCENARIO)
    except BadFile as mistake:
        raise _usage(mistake) from None


def blame(where: Location, what: str, hint: str = "") -> UsageProblem:
    """A mistake in a scenario as `file:line:column: what; hint`, in one line."""
    return _usage(yamltree.blame(where, what, hint))


def _usage(mistake: BadFile) -> UsageProblem:
    return UsageProblem(mistake.what, where=mistake.where, hint=mistake.hint)
