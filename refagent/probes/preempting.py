# SPDX-License-Identifier: Apache-2.0
"""When the kernel takes the processor from a task that is in the kernel."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from refagent.probes.answers import Finding, Unsupported

_CMDLINE: Final = Path("/proc/cmdline")
#: All ways that it could, with the one it has in brackets; with CONFIG_PREEMPT_DYNAMIC alone.
_MODES: Final = Path("/sys/kernel/debug/sched/preempt")
#: Words of a kernel's version that is built for one way (init/Makefile), which is called full.
_BUILT_SO: Final = {"PREEMPT", "PREEMPT_RT"}


def as_told() -> Finding:
    """Sees that the kernel has the way that its command line names, if it names one.

    A kernel without CONFIG_PREEMPT_DYNAMIC, or before 5.12, passes over the word.

    Raises:
        Unsupported: it has another one.
    """
    asked = dict(word.partition("=")[::2] for word in _CMDLINE.read_text("ascii").split())
    if "preempt" not in asked:
        return Finding("the command line names no way")
    version = os.uname().version
    if _MODES.exists():
        said = f"{_MODES} says {_MODES.read_text('ascii').strip()}"
        found = re.search(r"\((\w+)\)", said)
        has = found[1] if found else ""
    else:
        said = f"the kernel is '{version}'"
        has = "full" if _BUILT_SO.intersection(version.split()) else ""
    if has != asked["preempt"]:
        raise Unsupported(f"preempt={asked['preempt']} on the command line, and {said}")
    return Finding(said, has)
