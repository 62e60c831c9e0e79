# SPDX-License-Identifier: Apache-2.0
"""The maps that the three programs of one chain share, and nobody else uses."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from refagent.errors import BpfError
from refagent.libbpf import ids, template
from refagent.libbpf.maps import Map
from refagent.naming import Namer

#: Calls that are under way, how many, what the agent says, whether a rule asks for a binary.
NAMES: Final = ("frames", "chains", "settings", "by_binary")


class ChainMaps:
    """Made on creation, gone after `close`.

    Args:
        names: what they are called in the kernel.

    Attributes:
        by_name: the maps, for programs to be loaded with.

    Raises:
        BpfError: the kernel did not make them; nothing is left.
    """

    def __init__(self, names: Namer) -> None:
        declared = template.prepare("filter")
        with contextlib.ExitStack() as undo:
            made = {name: undo.enter_context(declared.make(name, names(name))) for name in NAMES}
            undo.pop_all()
        self.by_name: Mapping[str, Map] = made

    @classmethod
    def pinned(cls, folder: Path, *, whole: bool) -> ChainMaps:
        """Those of a chain that is there.

        Args:
            folder: where they are pinned by their names in the C sources.
            whole: whether none may be missing.

        Raises:
            Refused: other ones are pinned there.
            BpfError: some are missing.
        """
        shapes = template.prepare("filter").shapes
        maps = cls.__new__(cls)
        found = {}
        with contextlib.ExitStack() as undo:
            for name in NAMES:
                try:
                    opened = Map.pinned(folder / name, name, shapes[name])
                except BpfError as failure:
                    if whole or failure.errno != errno.ENOENT:
                        raise
                else:
                    found[name] = undo.enter_context(opened)
            undo.pop_all()
        maps.by_name = found
        return maps

    @property
    def objects(self) -> Mapping[str, int]:
        """The descriptors of what is to be pinned."""
        return {name: each.fd for name, each in self.by_name.items()}

    def leave(self) -> None:
        """Closes the descriptors and nothing else."""
        for each in self.by_name.values():
            each.close()

    def close(self) -> None:
        """Returns when the kernel has freed them."""
        numbers = [ids.map_id(each.fd) for each in self.by_name.values()]
        self.leave()
        ids.wait_gone((), numbers)
