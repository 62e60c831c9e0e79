# SPDX-License-Identifier: Apache-2.0
"""The maps that all programs of an agent share: who is to be denied, what happened, who is who."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from refagent import layout, state
from refagent.errors import Refused
from refagent.libbpf import ids, template
from refagent.libbpf.maps import Map, Shape
from refagent.pins import AGENT, OVERRIDE, Base
from refagent.state import State


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

    @property
    def untaken(self) -> int:
        """The calls in none of the last three, of a policy that overrides.

        The numbers are counted one after the other, so that a moment's calls may be missing.
        """
        return max(0, self.matched - self.denied - self.outvoted - self.lost)


@dataclass(frozen=True)
class Totals:
    """What is counted for all policies together.

    Attributes:
        events_lost: the buffer was full, as nobody read it in time.
        paths_unread: calls that have no path, or a string that was not in memory: only policies
            without a path could match them.
        calls_unseen: calls at LSM hooks that there was no memory to look at, so that they went
            through.
    """

    events_lost: int
    paths_unread: int
    calls_unseen: int

    def plus(self, other: Totals) -> Totals:
        """The sums."""
        return Totals(
            self.events_lost + other.events_lost,
            self.paths_unread + other.paths_unread,
            self.calls_unseen + other.calls_unseen,
        )


@dataclass
class _Binary:
    """A program that policies name."""

    id: int
    users: int = 0


_PLACES: Final = layout.POLICIES - 1  # the last is for the agent's own calls
_STATE: Final = "state"
_NAMES: Final = ("override_tasks", "policy_counts", "binaries", "events")


class SharedMaps:
    """Made on creation, gone after `close`.

    Args:
        base: where they are pinned, with a map for records; None: nowhere.

    Attributes:
        by_name: the maps, for programs to be loaded with.
        state: the records; None without pins.

    Raises:
        Refused: the pins cannot be made.
        BpfError: the kernel did not make the maps.
        In both cases nothing is left.
    """

    def __init__(self, base: Base | None = None) -> None:
        shapes = _shapes(base)
        with contextlib.ExitStack() as undo:
            maps = {name: undo.enter_context(Map.create(name, shapes[name])) for name in shapes}
            if base is not None:
                undo.callback(self.unpin, base)
                for name, place in _places(base).items():
                    base.pin(place.parent, {place.name: maps[name].fd})
            self._take(base, maps)
            undo.pop_all()

    @classmethod
    def pinned(cls, base: Base) -> SharedMaps:
        """The maps of an agent that was here before.

        Raises:
            Refused: other ones are pinned there.
            BpfError: some are missing.
        """
        shared = cls.__new__(cls)
        shapes, places = _shapes(base), _places(base)
        with contextlib.ExitStack() as undo:
            maps = {
                name: undo.enter_context(Map.pinned(places[name], name, shapes[name]))
                for name in shapes
            }
            shared._take(base, maps)
            undo.pop_all()
        return shared

    @staticmethod
    def complete(base: Base) -> bool:
        """Whether something is pinned at the place of each of them."""
        return all(each.exists() for each in _places(base).values())

    def _take(self, base: Base | None, maps: dict[str, Map]) -> None:
        self._base = base
        self._records = maps.pop(_STATE, None)
        self.state = None if self._records is None else State(self._records)
        self.by_name: Mapping[str, Map] = maps
        self._counts = maps["policy_counts"].mapped()
        self._free: list[int] = []  # a heap
        self._left: list[int] = []  # given back, while a program may still count there
        self._used = 0  # places ever given
        self._binaries: dict[bytes, _Binary] = {}
        self._binary_ids = itertools.count(1)

    def restore(
        self,
        places: Collection[int],
        binaries: Iterable[tuple[bytes, int]],
        used: int,
        *,
        settled: bool,
    ) -> None:
        """Knows again what is in use.

        Args:
            places: of all policies.
            binaries: the path and id of each policy's that names one.
            used: places ever given.
            settled: whether no program can still count for a policy that is gone.
        """
        self._used = max([used, *(each + 1 for each in places)])
        rest = sorted(set(range(self._used)) - set(places))
        self._free, self._left = (rest, []) if settled else ([], rest)
        for path, number in binaries:
            self._binaries.setdefault(path, _Binary(number)).users += 1
        known = {path: _id(each.id) for path, each in self._binaries.items()}
        for path, value in list(self.by_name["binaries"].items()):
            if known.get(path) != value:
                self.by_name["binaries"].delete(path)
        last = max((each.id for each in self._binaries.values()), default=0)
        self._binary_ids = itertools.count(last + 1)

    @property
    def used(self) -> int:
        """How many places were ever given, from 0."""
        return self._used

    @property
    def spent(self) -> bool:
        """Whether no place can be given before some have come back."""
        return not self._free and self._used == _PLACES

    def take_place(self) -> int:
        """A place with all numbers at zero.

        Raises:
            Refused: there is none left.
        """
        if self._free:
            place = heapq.heappop(self._free)
        elif self._used < _PLACES:
            place, self._used = self._used, self._used + 1
        else:
            raise Refused(f"{_PLACES} policies are loaded already")
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
            self.by_name["binaries"].set(path, _id(found.id))
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

    @staticmethod
    def unpin(base: Base) -> None:
        """Removes their pins; who has them open can go on.

        By their names, as a list takes a descriptor, and there may be none left.
        """
        places = _places(base).values()
        base.remove(*places)
        for each in places:
            base.prune(each.parent)

    def leave(self) -> None:
        """Closes the descriptors and nothing else."""
        self._counts.close()
        for each in self._maps:
            each.close()

    def close(self) -> None:
        """Returns when the kernel has freed them."""
        numbers = [ids.map_id(each.fd) for each in self._maps]
        if self._base is not None:
            self.unpin(self._base)
        self.leave()
        ids.wait_gone((), numbers)

    @property
    def _maps(self) -> list[Map]:
        return [*self.by_name.values(), *filter(None, [self._records])]


def _shapes(base: Base | None) -> Mapping[str, Shape]:
    known = template.prepare("sensor").shapes  # which has all of them
    records = {} if base is None else {_STATE: state.SHAPE}
    return {**records, **{name: known[name] for name in _NAMES}}


def _places(base: Base) -> Mapping[str, Path]:
    """Where they are pinned; the records first, which say that it is an agent's folder."""
    here = {name: base.folder(AGENT, name) for name in (_STATE, *_NAMES)}
    return here | {"override_tasks": base.folder(OVERRIDE, "override_tasks")}


def _id(number: int) -> bytes:
    return number.to_bytes(4, sys.byteorder)


def _offset(place: int) -> int:
    return place * layout.POLICY_COUNT.size
