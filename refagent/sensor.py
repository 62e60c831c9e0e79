# SPDX-License-Identifier: Apache-2.0
"""The sensor of one kernel function: one program that finds all its policies by a call's path.

A kprobe, which takes none of the places of the function's trampoline; where it has to be pinned
and the kernel cannot pin kprobes, an fentry program.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from refagent import naming, trampoline
from refagent.errors import Refused
from refagent.hooks import Hook
from refagent.libbpf import btf, template
from refagent.libbpf._libbpf import lib
from refagent.libbpf.links import Link
from refagent.libbpf.maps import Map, Shape
from refagent.libbpf.template import Loaded
from refagent.rules import Rule, Rules
from refagent.tables import Table

_BY_BINARY: Final = Shape(lib.BPF_MAP_TYPE_ARRAY, 4, 4, 1)


@functools.cache  # as it goes through all of the types
def kprobes_have_links() -> bool:
    """Whether a kprobe is attached by a link, which can be pinned: 5.15 and later (b89fbfbb854c).

    Raises:
        BpfError: this kernel has no BTF.
    """
    return btf.vmlinux().enumerator("BPF_LINK_TYPE_PERF_EVENT") is not None


class Sensor:
    """Loaded on creation, and running from `attach` to `detach`.

    Args:
        hook: the function.
        path_argument: which argument is the path, from 0; None: no rule asks for one.
        override_id: whose program takes what this sensor leaves.
        maps: the agent's, by their names in the C sources.
        by_kprobe: whether the sensor overrides by itself.
        pinnable: whether it is to be pinned.

    Raises:
        Refused: it is to override and to be pinned, and this kernel cannot pin a kprobe.
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
        pinnable: bool = False,
    ) -> None:
        self.function = hook.function
        self._link: Link | None = None
        self._fentry = pinnable and not kprobes_have_links()
        if self._fentry and by_kprobe:
            raise Refused("this kernel cannot pin a kprobe (5.15 and later can): go without pins")
        names = naming.on(hook.function)
        with contextlib.ExitStack() as undo:
            table = Table(names)
            self._rules = Rules(table)
            undo.callback(self._rules.close)
            load = functools.partial(
                template.prepare("sensor_fentry" if self._fentry else "sensor").load,
                {**maps, "policies": table.slot},
                names=names,
                override_id=override_id,
                path_kind=hook.path_kind(path_argument),
                path_argument=path_argument or 0,
                system_call=hook.system_call,
                ia32=hook.ia32,
            )
            if self._fentry:
                self._program = load(target=hook.btf_id, argument_sizes=_argument_sizes(hook))
            else:
                self._program = load(by_kprobe=by_kprobe)
            undo.pop_all()
        self._by_binary, self._binaries = self._program.map("by_binary"), 0

    @classmethod
    def pinned(
        cls,
        hook: Hook,
        folder: Path,
        maps: Mapping[str, Map],
        rules: Sequence[tuple[bytes, Rule]],
    ) -> Sensor:
        """A sensor that runs, by its pins; with these rules from now on.

        Raises:
            Refused: other objects are pinned there.
            BpfError: some are missing, or the kernel failed.
        """
        sensor = cls.__new__(cls)
        sensor.function = hook.function
        names = naming.on(hook.function)
        with contextlib.ExitStack() as undo:
            table = Table.pinned(folder / "policies", names)
            sensor._rules = Rules(table)
            undo.callback(table.leave)
            by_binary = Map.pinned(folder / "by_binary", "by_binary", _BY_BINARY)
            uses = (maps["override_tasks"], maps["policy_counts"], table.slot)
            try:
                sensor._program = Loaded.pinned(
                    folder / "prog", names("sensor"), {"by_binary": by_binary}, uses
                )
            except BaseException:
                by_binary.close()
                raise
            undo.callback(sensor._program.leave)
            sensor._link = Link.pinned(folder / "link", sensor._program.fd, "sensor")
            undo.callback(sensor._link.close)
            sensor._by_binary = by_binary
            sensor._rules.restore(rules)
            sensor._binaries = sum(1 for _, rule in rules if rule.binary)
            undo.pop_all()
        return sensor

    @property
    def objects(self) -> Mapping[str, int]:
        """The descriptors of what is to be pinned for it to outlive this process."""
        return {**self.program, "policies": self._rules.slot.fd, "by_binary": self._by_binary.fd}

    @property
    def program(self) -> Mapping[str, int]:
        """The program's descriptor and its link's."""
        link = -1 if self._link is None else self._link.fd
        return {"prog": self._program.fd, "link": link}

    def attach(self) -> None:
        """Starts to look at calls.

        Raises:
            Refused: as an fentry program, it does not fit on the function.
            BpfError: the function cannot be probed, or not be overridden by a kprobe.
        """
        if self._fentry:
            self._link = trampoline.attach(self._program, self.function)
        else:
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

        Raises:
            BpfError: no memory or descriptor for another table; all is as before.
        """
        self._rules.remove(key, rule.policy)
        self._count_binaries(-1 if rule.binary else 0)

    def silence(self) -> None:
        """Removes all rules.

        Raises:
            BpfError: as for `remove`.
        """
        self._rules.clear()

    def drain(self) -> None:
        """Returns when every (non-sleepable) program that runs now in the kernel has ended."""
        self._rules.drain()

    def leave(self) -> None:
        """Closes its descriptors and nothing else: what is pinned goes on."""
        self.detach()
        self._program.leave()
        self._rules.leave()

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


def _argument_sizes(hook: Hook) -> int:
    """A byte for each argument; of a system call there is one, a pointer to what has them all."""
    sizes = (8,) if hook.system_call else hook.sizes
    return int.from_bytes(bytes(min(size, 8) for size in sizes), "little")
