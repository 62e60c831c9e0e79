# SPDX-License-Identifier: Apache-2.0
"""What programs and maps are called in the kernel: agent, role and function, for bpftool.

`hps_path_mkdir` is the sensor of security_path_mkdir. At most 14 bytes of the 15 that there are:
of a name with 15 bpftool takes it that more was cut off, and shows what the C source says instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_MOST: Final = 14

#: What C calls it, or how that ends → the agent and the role.
_ROLES: Final = {
    "sensor": "hps",
    "override": "hpo",
    "policies": "hpr",
    "rules": "hpt",
    "by_binary": "hpb",
    "calls": "hpc",
    "path_walks": "hpw",
    "running": "hpg",
    ".rodata": "hpk",
    "filter": "hpf",
    "ima": "hpi",
    "send": "hpe",
    "frames": "hpq",
    "chains": "hpn",
    "settings": "hpm",
}

#: How functions begin that lose this for the sake of what tells them apart.
_COMMON: Final = ("security_", "__x64_", "__ia32_compat_", "__ia32_", "lsm/")

Namer = Callable[[str], str]
"""C's name of a program or map → the kernel's."""


def on(function: str) -> Namer:
    """The names of what is on a kernel function; several may have the same ones."""
    for beginning in _COMMON:
        function = function.removeprefix(beginning)

    def name(what: str) -> str:
        role = _ROLES.get(what) or _ROLES[what[what.index(".") :]]
        return f"{role}_{function}"[:_MOST]

    return name


def is_sensor(name: str) -> bool:
    """Whether a program of that name may be a sensor."""
    return name.startswith(f"{_ROLES['sensor']}_")


def finds_policies(name: str) -> bool:
    """Whether a program of that name may be a sensor or, of a chain, the filter."""
    return is_sensor(name) or name.startswith(f"{_ROLES['filter']}_")
