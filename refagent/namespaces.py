# SPDX-License-Identifier: Apache-2.0
"""Whose tasks this process can see."""

from __future__ import annotations

from pathlib import Path
from typing import Final

#: PROC_PID_INIT_INO of the kernel's include/linux/proc_ns.h.
_FIRST: Final = 0xEFFFFFFC


def sees_all_tasks() -> bool:
    """Whether it is in the first pid namespace, whose numbers are those that BPF programs get.

    In another one, neither system calls nor the kernel's BPF iterator tell of all tasks.
    """
    try:
        return Path("/proc/self/ns/pid").stat().st_ino == _FIRST
    except OSError:  # nothing can be told without /proc, or that of another namespace
        return False
