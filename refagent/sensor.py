# SPDX-License-Identifier: Apache-2.0
"""The sensor of one kernel function: one kprobe that looks all its policies up by path."""

from __future__ import annotations

from dataclasses import dataclass

from refagent import layout, objects
from refagent.libbpf import ids
from refagent.libbpf.links import Link
from refagent.libbpf.maps import Map
from refagent.libbpf.objectfile import OpenObject

_SLOT = bytes(4)
_FIRST_ROOM = 64

#: path_argument of sensor.bpf.c where the function has no path.
NO_PATH = 2**32 - 1


@dataclass(frozen=True, order=True)
class Rule:
    """What one policy asks for; ordered by id, that is by when it was loaded.

    Attributes:
        policy: an id never used again.
        error: positive.
    """

    policy: int
    error: int

    def packed(self) -> bytes:
        """As the kernel's table has it."""
        return layout.RULE.pack(-self.error, self.policy)


class Sensor:
    """Loaded on creation, and running from `attach` to `detach`.

    Args:
        function: the kernel function.
        override_id: whose program takes what this sensor leaves.
        path_argument: which argument is the path, from 0, or NO_PATH.
        override_tasks: the agent's map.

    Raises:
        BpfError: the kernel refused it; nothing is left.
    """

    def __init__(
        self, function: str, override_id: int, path_argument: int, override_tasks: Map
    ) -> None:
        self.function = function
        self._rules: dict[bytes, list[Rule]] = {}
        self._link: Link | None = None
        with OpenObject(objects.path("sensor")) as opened:
            opened.knob("override_id", override_id)
            opened.knob("path_argument", path_argument)
            opened.reuse("override_tasks", override_tasks)
            self._object = opened.load()
        self._slot = self._object.map("policies")
        try:
            self._table = self._new_table(_FIRST_ROOM)
        except BaseException:
            self._object.close()
            raise

    def attach(self) -> None:
        """Starts to look at calls.

        Raises:
            BpfError: the function cannot be probed.
        """
        self._link = self._object.program("sensor").attach_kprobe(self.function)

    def detach(self) -> None:
        """Stops; no call that begins afterwards is looked at."""
        if self._link is not None:
            link, self._link = self._link, None
            link.close()

    def add(self, key: bytes, rule: Rule) -> None:
        """Adds a rule. Where several have one key, the smallest policy id decides.

        Raises:
            BpfError: no memory; the rules are as before.
        """
        if key not in self._rules and len(self._rules) == self._room:
            self._grow()
        wanted = sorted([*self._rules.get(key, []), rule])
        self._table.set(key, wanted[0].packed())
        self._rules[key] = wanted

    def remove(self, key: bytes, policy: int) -> None:
        """Removes a policy's rule; returns when no program in the kernel still uses it.

        What such a program left in `override_tasks` before is for the caller to purge.
        """
        left = [rule for rule in self._rules[key] if rule.policy != policy]
        if left:
            self._table.set(key, left[0].packed())
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
        self._slot.set(_SLOT, self._table.fd.to_bytes(4, "little"))

    def close(self) -> None:
        """Gives everything back; returns when the kernel has freed it."""
        table = ids.map_id(self._table.fd)
        try:
            self.detach()
        finally:
            self._table.close()
            self._object.close()
        ids.wait_gone((), (table,))

    def _new_table(self, room: int) -> Map:
        table = Map.hash("rules", layout.PATH_SIZE, layout.RULE.size, room)
        try:
            for key, rules in self._rules.items():
                table.set(key, rules[0].packed())
            self._slot.set(_SLOT, table.fd.to_bytes(4, "little"))
        except BaseException:
            table.close()
            raise
        self._room = room
        return table

    def _grow(self) -> None:
        """Puts a table of twice the room in the full one's place; no call sees less than all."""
        full, self._table = self._table, self._new_table(2 * self._room)
        full.close()
