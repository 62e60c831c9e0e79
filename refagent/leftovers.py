# SPDX-License-Identifier: Apache-2.0
"""Entries of `override_tasks` that nobody will ever take, so that they do not fill it.

A stranger's program that denies a call between our sensor and our override leaves the call's entry
behind. The thread's next call of the function takes it away; one that has ended makes none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from refagent import layout, namespaces
from refagent.libbpf.maps import Map
from refagent.shared import Counts

#: So many calls have to be denied by strangers before it is worth the look: a sixteenth of the map.
_ENOUGH: Final = 1024
_NONE: Final = Counts(0, 0, 0, 0)


class Leftovers:
    """When to look for them is told by what policies count; for one thread at a time."""

    def __init__(self) -> None:
        self._seen: dict[int, Counts] = {}  # when it was last looked for them

    def due(self, counts: Mapping[int, Counts]) -> bool:
        """Whether there may be many more than at the last time, or the map was full since then.

        Args:
            counts: by the id of each policy that overrides.
        """
        # With a policy that goes its entries go.
        since = [(each, self._seen.get(policy, _NONE)) for policy, each in counts.items()]
        more = sum(each.untaken - seen.untaken for each, seen in since)
        return more >= _ENOUGH or any(each.lost > seen.lost for each, seen in since)

    def sweep(self, tasks: Map, counts: Mapping[int, Counts]) -> int:
        """Deletes the entries of threads that have ended; how many there were.

        Outside of the first pid namespace, where it cannot be told who has, none. What fails is
        due again.

        Args:
            tasks: the map override_tasks.
            counts: as above, from before.

        Raises:
            BpfError: the kernel failed.
        """
        gone = 0
        if namespaces.sees_all_tasks():
            # No thread gets the number of one that has just ended before all others were given out.
            gone = sum(tasks.delete(key) for key, _ in tasks.items() if _over(key))
        self._seen = dict(counts)
        return gone


def _over(key: bytes) -> bool:
    """Whether there is no thread of the number that an entry is for; a CPU's stays."""
    pid_tgid, _, _ = layout.OVERRIDE_KEY.unpack(key)
    thread = pid_tgid & 0xFFFFFFFF
    if not thread:
        return False
    try:
        # It looks for the task and for nothing else: /proc may be hidden, denied or out of memory.
        os.getpriority(os.PRIO_PROCESS, thread)
    except ProcessLookupError:
        return True
    except OSError:  # it is there, and somebody denies the question
        return False
    return False
