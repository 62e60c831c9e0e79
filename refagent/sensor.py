# SPDX-License-Identifier: Apache-2.0
"""The sensor of one kernel function: one kprobe that finds all its policies by a call's path."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping

from refagent.hooks import Hook
from refagent.libbpf import template
from refagent.libbpf.links import Link
from refagent.libbpf.maps import Map
from refagent.rules import Rule, Rules
from refagent.tables import Table


class Sensor:
    """Loaded on creation, and running from `attach` to `detach`.

    Args:
        hook: the function.
        path_argument: which argument is the path, from 0; None: no rule asks for one.
        override_id: whose program takes what this sensor leaves.
        maps: the agent's, by their names in the C sources.
        by_kprobe: whether the sensor overrides by itself.

    Raises:
        BpfError: the kernel refused it; nothing is left.
    """

    def __init__(
        self,
        hook: Hook,
        path_argument: int | None,
        override_id: int,
        maps: Mapping[str, Map],
        *,
        by_kprobe: bool = False,
    ) -> None:
        self.function = hook.function
        self._link: Link | None = None
        with contextlib.ExitStack() as undo:
            self._rules = Rules(Table())
            undo.callback(self._rules.close)
            self._program = template.prepare("sensor").load(
                {**maps, "policies": self._rules.slot},
                override_id=override_id,
                path_kind=hook.path_kind(path_argument),
                path_argument=path_argument or 0,
                system_call=hook.system_call,
                by_kprobe=by_kprobe,
            )
            undo.pop_all()
        self._by_binary, self._binaries = self._program.map("by_binary"), 0

    def attach(self) -> None:
        """Starts to look at calls.

        Raises:
            BpfError: the function cannot be probed, or not be overridden by a kprobe.
        """
        self._link = self._program.attach_kprobe(self.function)

    def detach(self) -> None:
        """Stops; no call that begins afterwards is looked at."""
        if self._link is not None:
            link, self._link = self._link, None
            link.close()

    def add(self, key: bytes, rule: Rule) -> None:
        """Adds a rule. Of those that match a call, the one with the smallest policy id decides.

        Raises:
            Refused: as many fit the same path as can be.
            BpfError: no memory.
            In both cases the rules are as before.
        """
        self._count_binaries(+1 if rule.binary else 0)
        try:
            self._rules.add(key, rule)
        except BaseException:
            self._count_binaries(-1 if rule.binary else 0)
            raise

    def remove(self, key: bytes, rule: Rule) -> None:
        """Removes a rule; returns when no program in the kernel still uses it.

        What such a program left in `override_tasks` before is for the caller to purge.
        """
        self._rules.remove(key, rule.policy)
        self._count_binaries(-1 if rule.binary else 0)

    def drain(self) -> None:
        """Returns when every (non-sleepable) program that runs now in the kernel has ended."""
        self._rules.drain()

    def close(self) -> None:
        """Gives everything back; returns when the kernel has freed it."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._rules.close)
            stack.callback(self._program.close)  # first, as it holds the tables
            self.detach()

    def _count_binaries(self, change: int) -> None:
        """Whose program it is has to be found out for each call, so only where a rule asks."""
        self._binaries += change
        if change:
            self._by_binary.set(bytes(4), bool(self._binaries).to_bytes(4, sys.byteorder))
