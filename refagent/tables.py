# SPDX-License-Identifier: Apache-2.0
"""A table that programs read while it changes, and never see half a change of.

The kernel may give the memory of an entry that was deleted or written anew to the next one at
once, under the eyes of a program that found it a moment before: that would take one path's
rules for another's. So after each change of what was there, this waits until no program uses
the old; and where more than one entry changes, another table takes the place of this one.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from refagent import layout
from refagent.libbpf import ids
from refagent.libbpf._libbpf import lib
from refagent.libbpf.maps import Map, Shape

#: Values by the beginning of a path; None where there is to be no entry.
Changes: TypeAlias = Mapping[bytes, bytes | None]

_SLOT: Final = bytes(4)
_ONE_MAP: Final = Shape(lib.BPF_MAP_TYPE_ARRAY_OF_MAPS, 4, 4, 1)
_TRIE: Final = Shape(
    lib.BPF_MAP_TYPE_LPM_TRIE,
    layout.PREFIX.size,
    layout.RULES_OF_PATH.size,
    layout.POLICIES,
    lib.BPF_F_NO_PREALLOC,
)


class Table:
    """A sensor's table of rules; a context manager, for one thread at a time.

    Args:
        names: what its maps are called in the kernel, by `policies` and `rules`.

    Attributes:
        slot: the map of one map, for the program.

    Raises:
        BpfError: the kernel did not make it; nothing is left.
    """

    def __init__(self, names: Callable[[str], str] = str) -> None:
        self._names = names
        self._content: dict[bytes, bytes] = {}
        with contextlib.ExitStack() as undo:
            self._trie = undo.enter_context(self._empty())
            self.slot = undo.enter_context(Map.create(names("policies"), _ONE_MAP, self._trie))
            self._put_in_place(self._trie)
            undo.pop_all()

    @classmethod
    def pinned(cls, path: Path, names: Callable[[str], str] = str) -> Table:
        """A table by the pin of its slot; its content is unknown until `restore`.

        Raises:
            Refused: the pin is another map.
            BpfError: there is none, or the kernel failed.
        """
        table = cls.__new__(cls)
        table._names, table._content = names, {}
        with contextlib.ExitStack() as undo:
            table.slot = undo.enter_context(Map.pinned(path, "policies", _ONE_MAP))
            table._trie = undo.enter_context(table._empty())
            undo.pop_all()
        return table

    def restore(self, content: Mapping[bytes, bytes]) -> None:
        """Puts this content in the place of what there was, between two calls.

        Raises:
            BpfError: no memory.
        """
        self._replace(content)
        self._content = dict(content)

    def get(self, key: bytes) -> bytes | None:
        """The value of a beginning that has an entry of its own, or None."""
        return self._content.get(key)

    def change(self, changes: Changes) -> None:
        """Makes the changes; returns when no program uses what was there before.

        Raises:
            BpfError: no memory; the table is as before.
        """
        touched = self._content.keys() & changes.keys()
        if len(changes) > 1:
            after = {**self._content, **changes}
            self._replace({key: value for key, value in after.items() if value is not None})
        else:
            for key, value in changes.items():
                self._write(self._trie, key, value)
            if touched:
                self._drain_or_restore(touched)
        for key, value in changes.items():
            if value is None:
                self._content.pop(key, None)
            else:
                self._content[key] = value

    def drain(self) -> None:
        """Returns when every (non-sleepable) program that runs now in the kernel has ended.

        Writing to a map of maps waits for that: maybe_wait_bpf_programs() in the kernel's
        kernel/bpf/syscall.c calls synchronize_rcu(), since 1ae80cf31938 (4.20).
        membarrier() would do the same, but not on a machine with one CPU.
        """
        self._put_in_place(self._trie)

    def leave(self) -> None:
        """Closes the descriptors and nothing else."""
        for each in (self._trie, self.slot):
            each.close()

    def close(self) -> None:
        """Gives the maps back; returns when the kernel has freed them."""
        numbers = [ids.map_id(each.fd) for each in (self._trie, self.slot)]
        self.leave()
        ids.wait_gone((), numbers)

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _drain_or_restore(self, written: Collection[bytes]) -> None:
        """Puts back what was written if it cannot be waited for."""
        try:
            self.drain()
        except BaseException:
            for key in written:
                self._write(self._trie, key, self._content[key])
            raise

    def _write(self, trie: Map, key: bytes, value: bytes | None) -> None:
        if value is None:
            trie.delete(layout.prefix(key))
        else:
            trie.set(layout.prefix(key), value)

    def _replace(self, content: Mapping[bytes, bytes]) -> None:
        """Puts another table in this one's place."""
        old, new = self._trie, self._empty()
        try:
            for key, value in content.items():
                self._write(new, key, value)
            self._put_in_place(new)
        except BaseException:
            new.close()
            raise
        self._trie = new
        old.close()

    def _empty(self) -> Map:
        return Map.create(self._names("rules"), _TRIE)

    def _put_in_place(self, trie: Map) -> None:
        self.slot.set(_SLOT, trie.fd.to_bytes(4, sys.byteorder))
