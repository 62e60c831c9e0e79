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
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from refagent import layout
from refagent.libbpf import ids
from refagent.libbpf._libbpf import lib
from refagent.libbpf.maps import Map, Shape

#: Values by key; None where there is to be no entry.
Changes: TypeAlias = Mapping[bytes, bytes | None]

_SLOT: Final = bytes(4)
_ONE_MAP: Final = Shape(lib.BPF_MAP_TYPE_ARRAY_OF_MAPS, 4, 4, 1)
_FIRST_ROOM: Final = 64


class Table:
    """One of a sensor's tables; a context manager, for one thread at a time.

    Attributes:
        slot: the map of one map, for the program.

    Raises:
        BpfError: the kernel did not make it; nothing is left.
    """

    def __init__(
        self, name: str, shape: Callable[[int], Shape], key: Callable[[bytes], bytes]
    ) -> None:
        self._name, self._shape, self._key = name, shape, key
        self._content: dict[bytes, bytes] = {}
        self._room = _FIRST_ROOM
        with contextlib.ExitStack() as undo:
            self._table = undo.enter_context(Map.create(name, shape(self._room)))
            self.slot = undo.enter_context(Map.create(name, _ONE_MAP, self._table))
            self._put_in_place(self._table)
            undo.pop_all()

    @classmethod
    def exact(cls) -> Table:
        """One that is looked up by the whole path."""
        return cls("exact", _hash, bytes)

    @classmethod
    def prefixes(cls) -> Table:
        """One that is looked up by the beginning of a path; the longest one is found."""
        return cls("prefixes", _trie, layout.prefix)

    def change(self, changes: Changes) -> Changes:
        """Makes the changes; returns when no program uses what was there before.

        Returns:
            What takes them back.

        Raises:
            BpfError: no memory; the table is as before.
        """
        before = {key: self._content.get(key) for key in changes}
        touched = sum(old is not None for old in before.values())
        if touched > 1 or len(self._content) + len(changes) > self._room:
            after = {**self._content, **changes}
            self._replace({key: value for key, value in after.items() if value is not None})
        else:
            self._change_in_place(changes, before)
            if touched:
                self.drain()
        for key, value in changes.items():
            if value is None:
                self._content.pop(key, None)
            else:
                self._content[key] = value
        return before

    def drain(self) -> None:
        """Returns when every (non-sleepable) program that runs now in the kernel has ended.

        Writing to a map of maps waits for that: maybe_wait_bpf_programs() in the kernel's
        kernel/bpf/syscall.c calls synchronize_rcu(), since 1ae80cf31938 (4.20).
        membarrier() would do the same, but not on a machine with one CPU.
        """
        self._put_in_place(self._table)

    def close(self) -> None:
        """Gives the maps back; returns when the kernel has freed them."""
        maps = (self._table, self.slot)
        numbers = [ids.map_id(each.fd) for each in maps]
        for each in maps:
            each.close()
        ids.wait_gone((), numbers)

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _change_in_place(self, changes: Changes, before: Changes) -> None:
        done: dict[bytes, bytes | None] = {}
        try:
            for key, value in changes.items():
                self._write(self._table, key, value)
                done[key] = before[key]
        except BaseException:
            for key, value in done.items():
                self._write(self._table, key, value)
            raise

    def _write(self, table: Map, key: bytes, value: bytes | None) -> None:
        if value is None:
            table.delete(self._key(key))
        else:
            table.set(self._key(key), value)

    def _replace(self, content: Mapping[bytes, bytes]) -> None:
        """Puts another table in this one's place."""
        room = self._room
        while room < len(content):
            room *= 2
        old, new = self._table, Map.create(self._name, self._shape(room))
        try:
            for key, value in content.items():
                new.set(self._key(key), value)
            self._put_in_place(new)
        except BaseException:
            new.close()
            raise
        self._table, self._room = new, room
        old.close()

    def _put_in_place(self, table: Map) -> None:
        self.slot.set(_SLOT, table.fd.to_bytes(4, sys.byteorder))


def _hash(room: int) -> Shape:
    return Shape(lib.BPF_MAP_TYPE_HASH, layout.PATH_SIZE, layout.RULES_OF_PATH.size, room)


def _trie(room: int) -> Shape:
    sizes = (layout.PREFIX.size, layout.RULES_OF_PATH.size)
    return Shape(lib.BPF_MAP_TYPE_LPM_TRIE, *sizes, room, lib.BPF_F_NO_PREALLOC)
