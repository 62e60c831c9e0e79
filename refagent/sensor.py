# SPDX-License-Identifier: Apache-2.0
"""The sensor of one kernel function: one kprobe that looks all its policies up by path."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from refagent import layout
from refagent.errors import Refused
from refagent.libbpf import ids, template
from refagent.libbpf._libbpf import lib
from refagent.libbpf.links import Link
from refagent.libbpf.maps import Map, Shape

_SLOT = bytes(4)
_ONE_MAP = Shape(lib.BPF_MAP_TYPE_ARRAY_OF_MAPS, 4, 4, 1)
_FIRST_ROOM = 64

#: path_argument of sensor.bpf.c where the function has no path.
NO_PATH = 2**32 - 1


@dataclass(frozen=True, order=True)
class Rule:
    """What one policy asks for; ordered by id, that is by when it was loaded.

    Attributes:
        policy: an id never used again.
        error: positive.
        place: where its calls are counted.
    """

    policy: int
    error: int
    place: int


def _packed(rules: Sequence[Rule]) -> bytes:
    """A path's rules as the kernel's table has them."""
    plain = b"".join(layout.RULE.pack(-rule.error, rule.policy, rule.place, 0) for rule in rules)
    return layout.RULES_OF_PATH.pack(len(rules), 0, plain)


class Sensor:
    """Loaded on creation, and running from `attach` to `detach`.

    Args:
        function: the kernel function.
        override_id: whose program takes what this sensor leaves.
        path_argument: which argument is the path, from 0, or NO_PATH.
        maps: the agent's, by their names in override.h.

    Raises:
        BpfError: the kernel refused it; nothing is left.
    """

    def __init__(
        self, function: str, override_id: int, path_argument: int, maps: Mapping[str, Map]
    ) -> None:
        self.function = function
        self._rules: dict[bytes, list[Rule]] = {}
        self._link: Link | None = None
        with contextlib.ExitStack() as undo:
            self._table = undo.enter_context(_table(_FIRST_ROOM))
            self._room = _FIRST_ROOM
            self._slot = undo.enter_context(Map.create("policies", _ONE_MAP, self._table))
            self._put_in_place()
            self._program = template.prepare("sensor").load(
                {**maps, "policies": self._slot},
                override_id=override_id,
                path_argument=path_argument,
            )
            undo.pop_all()

    def attach(self) -> None:
        """Starts to look at calls.

        Raises:
            BpfError: the function cannot be probed.
        """
        self._link = self._program.attach_kprobe(self.function)

    def detach(self) -> None:
        """Stops; no call that begins afterwards is looked at."""
        if self._link is not None:
            link, self._link = self._link, None
            link.close()

    def add(self, key: bytes, rule: Rule) -> None:
        """Adds a rule. Where several have one key, the smallest policy id decides.

        Raises:
            Refused: the key has as many as can be.
            BpfError: no memory.
            In both cases the rules are as before.
        """
        if key not in self._rules and len(self._rules) == self._room:
            self._grow()
        wanted = sorted([*self._rules.get(key, []), rule])
        if len(wanted) > layout.RULES_PER_PATH:
            what = f"{layout.RULES_PER_PATH} policies with this path are on {self.function} already"
            raise Refused(what)
        self._table.set(key, _packed(wanted))
        self._rules[key] = wanted

    def remove(self, key: bytes, policy: int) -> None:
        """Removes a policy's rule; returns when no program in the kernel still uses it.

        What such a program left in `override_tasks` before is for the caller to purge.
        """
        left = [rule for rule in self._rules[key] if rule.policy != policy]
        if left:
            self._table.set(key, _packed(left))
            self._rules[key] = left
        else:
            self._table.delete(key)
            del self._rules[key]
        self.drain()

    def drain(self) -> None:
        """Returns when every (non-sleepable) program that runs now in the kernel has ended.

        Writing to a map of maps waits for that: maybe_wait_bpf_programs() in the kernel's
        kernel/bpf/syscall.c calls synchronize_rcu(), since 1ae80cf31938 (4.20).
        membarrier() would do the same, but not on a machine with one CPU.
        """
        self._put_in_place()

    def close(self) -> None:
        """Gives everything back; returns when the kernel has freed it."""
        maps = [ids.map_id(each.fd) for each in (self._table, self._slot)]
        try:
            self.detach()
        finally:
            self._table.close()
            self._slot.close()
            self._program.close()
        ids.wait_gone((), maps)

    def _grow(self) -> None:
        """Puts a table of twice the room in the full one's place; no call sees less than all."""
        full, larger = self._table, _table(2 * self._room)
        try:
            for key, rules in self._rules.items():
                larger.set(key, _packed(rules))
            self._table = larger
            self._put_in_place()
        except BaseException:
            self._table = full
            larger.close()
            raise
        self._room *= 2
        full.close()

    def _put_in_place(self) -> None:
        self._slot.set(_SLOT, self._table.fd.to_bytes(4, sys.byteorder))


def _table(room: int) -> Map:
    return Map.hash("rules", layout.PATH_SIZE, layout.RULES_OF_PATH.size, room)
