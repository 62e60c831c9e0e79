# SPDX-License-Identifier: Apache-2.0
"""The shared override programs: one for each function, however many policies need it."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

from refagent import layout, trampoline
from refagent.errors import BpfError, Refused
from refagent.libbpf import template
from refagent.libbpf.links import Link
from refagent.libbpf.maps import Map
from refagent.libbpf.template import Loaded

#: It has no name outside the kernel. Seen on 5.10, at a function of seven arguments: it takes six
#: (arch/x86/net/bpf_jit_comp.c, arch_prepare_bpf_trampoline).
_ENOTSUPP = 524


class Override:
    """The fmod_ret program of one function: loaded and attached on creation.

    Args:
        function: a kernel function that may be overridden.
        target: its BTF id.
        override_id: never used before by this agent.
        maps: the agent's, by their names in override.h.

    Raises:
        Refused: the kernel allows no such program there, or no further one.
        BpfError: anything else; nothing is left.
    """

    def __init__(
        self, function: str, target: int, override_id: int, maps: Mapping[str, Map]
    ) -> None:
        self.function, self.id, self._tasks = function, override_id, maps["override_tasks"]
        self._link: Link | None = None
        trampoline.check_room(function)
        try:
            self._program = template.prepare("override").load(
                maps, target=target, override_id=override_id
            )
        except BpfError as failure:
            if failure.errno in {errno.EINVAL, errno.ESRCH, errno.EACCES}:
                raise Refused(
                    f"this kernel lets no program override {function}: {failure.words}"
                ) from failure
            raise
        try:
            self._link = self._program.attach()
        except BpfError as failure:
            self._program.close()
            if failure.errno == errno.E2BIG:
                raise Refused(
                    f"no further program fits on {function} (E2BIG): others hold all the places"
                ) from failure
            if failure.errno == _ENOTSUPP:
                raise Refused(
                    f"this kernel lets no program override {function}: its arguments are more than "
                    "a trampoline passes on (ENOTSUPP)"
                ) from failure
            raise

    @classmethod
    def pinned(
        cls, function: str, folder: Path, override_id: int, maps: Mapping[str, Map]
    ) -> Override:
        """One that runs, by its pins.

        Raises:
            Refused: other objects are pinned there.
            BpfError: some are missing.
        """
        override = cls.__new__(cls)
        override.function, override.id = function, override_id
        override._tasks = maps["override_tasks"]
        uses = (maps["override_tasks"], maps["policy_counts"])
        override._program = Loaded.pinned(folder / "prog", "override", [], uses)
        try:
            override._link = Link.pinned(folder / "link", override._program.fd, "override")
        except BaseException:
            override._program.leave()
            raise
        return override

    @property
    def objects(self) -> Mapping[str, int]:
        """The descriptors of what is to be pinned for it to outlive this process."""
        link = -1 if self._link is None else self._link.fd
        return {"prog": self._program.fd, "link": link}

    def detach(self) -> None:
        """Stops; the program itself stays loaded until `close`.

        A task can still be in it, or about to enter it: freeing it now crashes kernels
        without 0fb5751a6e41 and 17637e1a581a.
        """
        if self._link is not None:
            link, self._link = self._link, None
            link.close()

    def purge(self, policy: int | None = None) -> None:
        """Deletes what waits for this program: of one policy, or all there is.

        To be called when no sensor can add any more; a call between its sensor and this
        program is then no longer denied.
        """
        for key, entry in self._tasks.items():
            mine = layout.OVERRIDE_KEY.unpack(key)[1] == self.id
            if mine and policy in {None, layout.OVERRIDE_ENTRY.unpack(entry)[1]}:
                self._tasks.delete(key)

    def leave(self) -> None:
        """Closes its descriptors and nothing else: what is pinned goes on."""
        self.detach()
        self._program.leave()

    def close(self) -> None:
        """Gives everything back; returns when the kernel has freed it."""
        try:
            self.detach()
        finally:
            self._program.close()
