# SPDX-License-Identifier: Apache-2.0
"""How many machines this host can run at a time."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

#: What QEMU needs beside the guest's memory, in MiB (7.2 under software emulation: 150 to 220,
#: most of it translated code).
_OVERHEAD: Final = 256
_CGROUP: Final = Path("/sys/fs/cgroup")


def machines(memory: int) -> int:
    """At least 1: as many as there are processors, if there is memory for them.

    Args:
        memory: MiB that each is given.
    """
    fit = available() // (memory + _OVERHEAD)
    return max(1, min(processors(), fit))


def processors() -> int:
    """Those that this process may use: by its affinity, and by its control group's quota."""
    count = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):
        quota, period = (_CGROUP / "cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            count = min(count, max(1, int(quota) // int(period)))
    return count


def available() -> int:
    """MiB that can be used without swapping: the host's, and the control group's."""
    facts = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    words = next(line.split() for line in facts if line.startswith("MemAvailable:"))
    free = int(words[1]) >> 10
    with suppress(OSError, ValueError):
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = (_CGROUP / "memory.current").read_text(encoding="ascii")
        if limit != "max":
            free = min(free, (int(limit) - int(used)) >> 20)
    return free
