# SPDX-License-Identifier: Apache-2.0
"""A process that is this one's copy, does one thing, and never comes back."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable


def forked(work: Callable[[], object]) -> int:
    """Its process id; it ends with 0, or with 1 after it has said why."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid
