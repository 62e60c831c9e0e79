# SPDX-License-Identifier: Apache-2.0
"""A pin for each enabled policy, of its function's sensor: for people who look at the kernel.

`bpftool -f prog show` lists with a program all of its pins, and so with a sensor the policies that
it serves; of an LSM hook's chain, the filter is meant. Nothing else depends on them. A policy is
pinned before its record says that it is enabled, and unpinned after the record says otherwise, so
that after a crash there can be a pin too many and none too few; `settle` makes them right in any
case.
"""

from __future__ import annotations

import os
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from refagent import naming
from refagent.errors import AgentError, BpfError, Refused
from refagent.libbpf import ids, pins
from refagent.pins import POLICY, Base

_PLAIN: Final = frozenset(f"{string.ascii_letters}{string.digits}-_".encode())
_NAME_MAX: Final = 255


def place(base: Base, policy: str) -> Path:
    """Where a policy is pinned: letters, digits, `-` and `_` of its name as they are.

    A bpffs takes no name with a dot in it (kernel/bpf/inode.c: bpf_lookup), and no folder one with
    a slash: of all other characters the bytes are written, `%2E`. An empty name is `%`.

    Raises:
        Refused: that is longer than names of files can be.
    """
    raw = policy.encode("utf-8", "surrogatepass")
    name = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in raw) or "%"
    if len(name) > _NAME_MAX:
        raise Refused(
            f"the name of policy {policy[:32]}… takes {len(name)} bytes as a pin's, at most "
            f"{_NAME_MAX} can be; give it a shorter one"
        )
    return base.folder(POLICY, name)


def add(base: Base, policy: str, program: int) -> None:
    """Pins a policy; what is there of it, as it could not be removed once, goes.

    Args:
        base: the agent's folder.
        policy: its name.
        program: the descriptor of its function's sensor.

    Raises:
        Refused: the name is too long.
        AgentError: nothing can be pinned there.
    """
    where = place(base, policy)
    base.remove(where)
    base.pin(where.parent, {where.name: program})


def foreign(base: Base) -> Path | None:
    """Something among the pins of policies that is no sensor's program."""
    return next((each for each in base.entries(base.folder(POLICY)) if not _is_sensor(each)), None)


def settle(base: Base, wanted: Mapping[str, int]) -> list[Path]:
    """Makes the pins those that there have to be, whatever an agent that was killed left.

    Args:
        base: its folder.
        wanted: the enabled policies, each with the descriptor of its sensor's program.

    Returns:
        Those that should go and cannot: a policy that goes on may deny it.

    Raises:
        AgentError: a policy cannot be pinned.
    """
    folder, stay = base.folder(POLICY), []
    missing = {place(base, policy): program for policy, program in wanted.items()}
    for each in base.entries(folder):
        if each in missing and _program(each) == ids.program_id(missing[each]):
            del missing[each]
            continue
        try:
            base.remove(each)
        except AgentError:
            missing.pop(each, None)
            stay.append(each)
    for where, program in missing.items():
        base.pin(folder, {where.name: program})
    base.prune(folder)
    return stay


def _is_sensor(path: Path) -> bool:
    try:
        fd = pins.opened(path)
    except BpfError:
        return False  # a folder
    try:
        return naming.finds_policies(ids.program_name(fd))
    except BpfError:
        return False  # a map or a link
    finally:
        os.close(fd)


def _program(path: Path) -> int:
    fd = pins.opened(path)
    try:
        return ids.program_id(fd)
    finally:
        os.close(fd)
