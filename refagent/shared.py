# SPDX-License-Identifier: Apache-2.0
"""The maps that all programs of an agent share: who is to be denied, what happened, who is who."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from refagent import layout
from refagent.errors import Refused
from refagent.libbpf import ids, template
from refagent.libbpf.maps import Map


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


@dataclass(frozen=True)
class Totals:
    """What is counted for all policies together.

    Attributes:
        events_lost: the buffer was full, as nobody read it in time.
        paths_unread: calls that have no path, or a string that was not in memory: only policies
            without a path could match them.
    """

    events_lost: int
    paths_unread: int

    def plus(self, other: Totals) -> Totals:
        """The sums."""
        return Totals(self.events_lost + other.events_lost, self.paths_unread + other.paths_unread)


@dataclass
class _Binary:
    """A program that policies name."""

    id: int
    users: int = 0


_NAMES: Final = ("override_tasks", "policy_counts", "binaries", "events")


class SharedMaps:
    """Made on creation, gone after `close`.

    Attributes:
        by_name: the maps, for programs to be loaded with.

    Raises:
        BpfError: the kernel did not make them; nothing is left.
    """

    def __init__(self) -> None:
        shapes = template.prepare("sensor").shapes  # which knows all of them
        with contextlib.ExitStack() as undo:
            self.by_name: Mapping[str, Map] = {
                name: undo.enter_context(Map.create(name, shapes[name])) for name in _NAMES
            }
            self._counts = undo.enter_context(self.by_name["policy_counts"].mapped())
            undo.pop_all()
        self._free: list[int] = []  # a heap
        self._left: list[int] = []  # given back, while a program may still count there
        self._used = 0  # places ever given
        self._binaries: dict[bytes, _Binary] = {}
        self._binary_ids = itertools.count(1)

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
        layout.POLICY_COUNT.pack_into(self._counts, _offset(place), 0, 0, 0, 0)
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
        """The numbers of a place."""
        return Counts(*layout.POLICY_COUNT.unpack_from(self._counts, _offset(place)))

    def totals(self) -> Totals:
        """The numbers that belong to no policy."""
        return Totals(*layout.TOTALS.unpack_from(self._counts, _offset(layout.POLICIES)))

    def take_binary(self, path: bytes) -> int:
        """The id of a program; to be given back.

        Args:
            path: as `layout.path_key` has it.

        Raises:
            Refused: there is no room for another one.
        """
        found = self._binaries.get(path)
        if found is None:
            if len(self._binaries) == layout.BINARIES:
                raise Refused(f"policies name {layout.BINARIES} binaries already")
            found = _Binary(next(self._binary_ids))
            self.by_name["binaries"].set(path, found.id.to_bytes(4, sys.byteorder))
            self._binaries[path] = found
        found.users += 1
        return found.id

    def give_back_binary(self, path: bytes) -> None:
        """To be called when no rule names it for this user any more."""
        found = self._binaries[path]
        found.users -= 1
        if not found.users:
            del self._binaries[path]
            self.by_name["binaries"].delete(path)

    def close(self) -> None:
        """Returns when the kernel has freed them."""
        numbers = [ids.map_id(each.fd) for each in self.by_name.values()]
        self._counts.close()
        for each in self.by_name.values():
            each.close()
        ids.wait_gone((), numbers)


def _offset(place: int) -> int:
    return place * layout.POLICY_COUNT.size
