# SPDX-License-Identifier: Apache-2.0
"""The maps that the chains of all LSM hooks share: what programs work with, and listed digests."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from refagent import layout
from refagent.digests import SIZE, Digest
from refagent.errors import BpfError, Refused
from refagent.libbpf import ids, template
from refagent.libbpf.maps import Map
from refagent.pins import LSM, Base

_NAMES: Final = ("path_walks", "calls", "found_matches", "digests")


class LsmMaps:
    """Made on creation, gone after `close`.

    Args:
        base: where they are pinned; None: nowhere.

    Attributes:
        by_name: the maps, for programs to be loaded with.

    Raises:
        Refused: this kernel has no such maps, or the pins cannot be made.
        BpfError: this process lacks what they take.
    """

    def __init__(self, base: Base | None = None) -> None:
        self._base = base
        with contextlib.ExitStack() as undo:
            try:
                declared = template.prepare("filter")
                made = {name: undo.enter_context(declared.make(name)) for name in _NAMES}
            except BpfError as failure:
                if failure.lack:
                    raise
                # libbpf's words are about the first of the maps, whichever that is.
                name = errno.errorcode.get(failure.errno, str(failure.errno))
                raise Refused(
                    "this kernel has no task storage, which carries a call from one program of an "
                    f"LSM hook to the next: {name}"
                ) from failure
            if base is not None:
                base.pin(base.folder(LSM), {name: each.fd for name, each in made.items()})
            undo.pop_all()
        self.by_name: Mapping[str, Map] = made

    @classmethod
    def pinned(cls, base: Base) -> LsmMaps:
        """The maps of an agent that was here before.

        Raises:
            Refused: other ones are pinned there.
            BpfError: some are missing.
        """
        lsm = cls.__new__(cls)
        lsm._base, shapes = base, template.prepare("filter").shapes
        with contextlib.ExitStack() as undo:
            lsm.by_name = {
                name: undo.enter_context(Map.pinned(base.folder(LSM, name), name, shapes[name]))
                for name in _NAMES
            }
            undo.pop_all()
        return lsm

    def restore(self, policies: Iterable[int]) -> None:
        """Forgets the digests of all others, for whom no program asks any more."""
        known = set(policies)
        for key, _ in list(self.by_name["digests"].items()):
            if layout.DIGEST_KEY.unpack(key)[0] not in known:
                self.by_name["digests"].delete(key)

    def list_digests(self, policy: int, digests: Collection[Digest]) -> None:
        """Lists digests for a policy, all or none.

        Raises:
            BpfError: there is no room.
        """
        with contextlib.ExitStack() as undo:
            for digest in digests:
                self.by_name["digests"].set(_key(policy, digest), b"\1\0\0\0")
                undo.callback(self.by_name["digests"].delete, _key(policy, digest))
            undo.pop_all()

    def forget_digests(self, policy: int, digests: Collection[Digest]) -> None:
        """To be called when no program asks for the policy any more."""
        for digest in digests:
            self.by_name["digests"].delete(_key(policy, digest))

    @staticmethod
    def unpin(base: Base) -> None:
        """Removes their pins; who has them open can go on."""
        base.remove(*(base.folder(LSM, name) for name in _NAMES))
        base.prune(base.folder(LSM))

    def leave(self) -> None:
        """Closes the descriptors and nothing else."""
        for each in self.by_name.values():
            each.close()

    def close(self) -> None:
        """Returns when the kernel has freed them."""
        numbers = [ids.map_id(each.fd) for each in self.by_name.values()]
        if self._base is not None:
            self.unpin(self._base)
        self.leave()
        ids.wait_gone((), numbers)


def _key(policy: int, digest: Digest) -> bytes:
    return layout.DIGEST_KEY.pack(policy, digest.algorithm, digest.value.ljust(SIZE, b"\0"))
