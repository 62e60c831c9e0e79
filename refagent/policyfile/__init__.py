# SPDX-License-Identifier: Apache-2.0
"""Policies in files: in our short form, or as a TracingPolicy (docs/agent.md, Policy files).

`read` takes both, `write` gives a TracingPolicy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from refagent import yamlfile
from refagent.policy import Policy
from refagent.policyfile.short import read_short
from refagent.policyfile.tracingpolicy import read_tracing_policy
from refagent.policyfile.writer import write
from refagent.yamltree import Mapping

__all__ = ["read", "write"]

_WORDING: Final = yamlfile.Wording(
    thing="policy",
    holds="one TracingPolicy or one list of policies",
    begin="begin with 'apiVersion: …' or 'name: …'; docs/agent.md has the keys",
    repeat="write the value out",
)
#: Any of these says that a TracingPolicy is meant.
_PUBLISHED: Final = {"apiVersion", "kind", "metadata", "spec"}


def read(path: Path, shown: str | None = None) -> tuple[Policy, ...]:
    """Reads the policies of a file.

    Args:
        path: the file.
        shown: how messages call it; the path itself if not given.

    Returns:
        The policies in the order in which they are to be loaded; no name stands twice.

    Raises:
        BadFile: the first thing that is wrong or not supported, as
            `file:line:column: what; hint`.
    """
    root = yamlfile.read(path, shown or str(path), _WORDING)
    keys = {key.text for key, _ in root.pairs} if isinstance(root, Mapping) else set()
    return read_tracing_policy(root) if keys & _PUBLISHED else read_short(root)
