# SPDX-License-Identifier: Apache-2.0
"""The sensor of one kernel function: one kprobe that finds all its policies by a call's path."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from refagent import layout
from refagent.libbpf import template
from refagent.libbpf.links import Link
from refagent.libbpf.maps import Map
from refagent.policy import Policy
from refagent.rules import ExactRules, PrefixRules, Rule

#: path_argument of sensor.bpf.c where the function has no path.
NO_PATH = 2**32 - 1


@dataclass(frozen=True)
class Key:
    """What a policy says about the path.

    Attributes:
        text: as the table of its kind has it.
        whole: whether it is a whole path, or the beginning of one.
    """

    text: bytes
    whole: bool

    @classmethod
    def of(cls, policy: Policy) -> Key:
        """A policy's key.

        Raises:
            Refused: no path of the kernel's could ever fit.
        """
        if policy.prefix is not None:
            return cls(layout.prefix_text(policy.prefix), whole=False)
        return cls(layout.path_key(policy.path), whole=True)


class Sensor:
    """Loaded on creation, and running from `attach` to `detach`.

    Args:
        function: the kernel function.
        override_id: whose program takes what this sensor leaves.
        path_argument: which argument is the path, from 0, or NO_PATH.
        maps: the agent's, by their names in the C sources.

    Raises:
        BpfError: the kernel refused it; nothing is left.
    """

    def __init__(
        self, function: str, override_id: int, path_argument: int, maps: Mapping[str, Map]
    ) -> None:
        self.function = function
        self._link: Link | None = None
        with contextlib.ExitStack() as undo:
            self._exact = ExactRules()
            undo.callback(self._exact.close)
            self._program = template.prepare("sensor").load(
                {**maps, "policies": self._exact.slot},
                override_id=override_id,
                path_argument=path_argument,
            )
            undo.pop_all()
        self._prefixes = PrefixRules(self._program.map("prefixes"))
        self._by_binary, self._binaries = self._program.map("by_binary"), 0

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

    def add(self, key: Key, rule: Rule) -> None:
        """Adds a rule. Of those that match a call, the one with the smallest policy id decides.

        Raises:
            Refused: as many fit the same path as can be.
            BpfError: no memory.
            In both cases the rules are as before.
        """
        self._count_binaries(+1 if rule.binary else 0)
        try:
            if key.whole:
                self._exact.add(key.text, rule)
            else:
                self._prefixes.add(key.text, rule)
        except BaseException:
            self._count_binaries(-1 if rule.binary else 0)
            raise

    def remove(self, key: Key, rule: Rule) -> None:
        """Removes a rule; returns when no program in the kernel still uses it.

        What such a program left in `override_tasks` before is for the caller to purge.
        """
        (self._exact if key.whole else self._prefixes).remove(key.text, rule.policy)
        self._count_binaries(-1 if rule.binary else 0)
        self.drain()

    def drain(self) -> None:
        """Returns when every (non-sleepable) program that runs now in the kernel has ended."""
        self._exact.drain()

    def _count_binaries(self, change: int) -> None:
        """Whose program it is has to be found out for each call, so only where a rule asks."""
        self._binaries += change
        if change:
            self._by_binary.set(bytes(4), bool(self._binaries).to_bytes(4, sys.byteorder))

    def close(self) -> None:
        """Gives everything back; returns when the kernel has freed it."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._exact.close)
            stack.callback(self._program.close)  # first, as it holds the tables
            self.detach()
