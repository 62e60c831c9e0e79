# SPDX-License-Identifier: Apache-2.0
"""What scenarios hold races open with: pages that are not there yet, ids that are given again."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

from refagent.probes.answers import ConfiguredOut, Finding

_USERFAULTFD: Final = 323  # x86-64
_LAST_ID: Final = Path("/proc/sys/kernel/ns_last_pid")


def userfaultfd() -> Finding:
    """Asks the kernel for a descriptor that hears of missing pages (userfaultfd(2)).

    Raises:
        ConfiguredOut: the kernel has none.
        OSError: it would not give one for another reason.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.syscall(_USERFAULTFD, os.O_CLOEXEC)
    if handle >= 0:
        os.close(handle)
        return Finding("userfaultfd gives a descriptor")
    code = ctypes.get_errno()
    if code == errno.ENOSYS:
        raise ConfiguredOut("userfaultfd gives ENOSYS: built without CONFIG_USERFAULTFD")
    raise OSError(code, f"userfaultfd: {os.strerror(code)}")


def chosen_id() -> Finding:
    """Sees that it can be said which id the next thread gets (proc(5)).

    Raises:
        ConfiguredOut: it cannot.
        OSError: whether it can could not be seen.
    """
    try:
        os.close(os.open(_LAST_ID, os.O_WRONLY | os.O_CLOEXEC))
    except FileNotFoundError:
        words = f"there is no {_LAST_ID}: built without CONFIG_CHECKPOINT_RESTORE"
        raise ConfiguredOut(words) from None
    return Finding(f"{_LAST_ID} takes a number")
