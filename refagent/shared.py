# SPDX-License-Identifier: Apache-2.0
"""The two maps that all programs of an agent share: who is to be denied, and what happened."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Mapping
from dataclasses import dataclass

from refagent import layout
from refagent.errors import Refused
from refagent.libbpf import ids
from refagent.libbpf._libbpf import lib
from refagent.libbpf.maps import Map, Shape


@dataclass(frozen=True)
class Counts:
    """What became of the calls that matched a policy since it was loaded.

    What is in none of the last three was denied by somebody else's program first, or is a call
    that has not come to the override program yet.

    Attributes:
        matched: all of them.
        denied: for this policy's sake.
        outvoted: a policy that was loaded earlier matched too, and decided.
        lost: `override_tasks` was full, so the call went through.
    """

    matched: int
    denied: int
    outvoted: int
    lost: int


class SharedMaps:
    """`override_tasks` and `policy_counts`; made on creation, gone after `close`.

    Attributes:
        by_name: the maps, for programs to be loaded with.

    Raises:
        BpfError: the kernel did not make them; nothing is left.
    """

    def __init__(self) -> None:
        with contextlib.ExitStack() as undo:
            tasks = Map.hash(
                "override_tasks",
                layout.OVERRIDE_KEY.size,
                layout.OVERRIDE_ENTRY.size,
                layout.OVERRIDE_TASKS_ENTRIES,
            )
            undo.callback(tasks.close)
            shape = Shape(lib.BPF_MAP_TYPE_ARRAY, 4, layout.POLICY_COUNT.size, layout.POLICIES)
            self._counts = Map.create("policy_counts", shape)
            undo.pop_all()
        self.by_name: Mapping[str, Map] = {
            "override_tasks": tasks,
            "policy_counts": self._counts,
        }
        self._free: list[int] = []  # a heap
        self._left: list[int] = []  # given back, while a program may still count there
        self._used = 0  # places ever given

    def take_place(self) -> int:
        """A place with all numbers at zero.

        Raises:
            Refused: there is none left.
        """
        if self._free:
            place = heapq.heappop(self._free)
        elif self._used < layout.POLICIES:
            place, self._used = self._used, self._used + 1
        else:
            raise Refused(f"{layout.POLICIES} policies are loaded already")
        self._counts.set(_key(place), bytes(layout.POLICY_COUNT.size))
        return place

    def give_back(self, place: int) -> None:
        """To be called when no rule and no entry names it; some program may still count there."""
        self._left.append(place)

    def drained(self) -> None:
        """To be called when each program has ended that ran at the last `give_back`."""
        for place in self._left:
            heapq.heappush(self._free, place)
        self._left.clear()

    def counts(self, place: int) -> Counts:
        """The numbers of a place.

        Raises:
            BpfError: the kernel failed.
        """
        found = self._counts.get(_key(place))
        return Counts(*layout.POLICY_COUNT.unpack(found or bytes(layout.POLICY_COUNT.size)))

    def close(self) -> None:
        """Returns when the kernel has freed them."""
        numbers = [ids.map_id(each.fd) for each in self.by_name.values()]
        for each in self.by_name.values():
            each.close()
        ids.wait_gone((), numbers)


def _key(place: int) -> bytes:
    return place.to_bytes(4, "little")
