# SPDX-License-Identifier: Apache-2.0
"""A map of the kernel's: bytes in, bytes out."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass

from refagent.libbpf._libbpf import ffi, lib
from refagent.libbpf.call import Operation


@dataclass(frozen=True)
class Shape:
    """What kind of map, and how large; `type` and `flags` are the kernel's numbers."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0


class Map:
    """A map by its file descriptor.

    Attributes:
        fd: belongs to the object that made the map, or to this one if `owned`.
        name: at most 15 characters, as the kernel has it.
        key_size: in bytes.
        value_size: in bytes, of one element.
    """

    def __init__(
        self, fd: int, name: str, key_size: int, value_size: int, *, owned: bool = False
    ) -> None:
        self.fd, self.name, self.key_size, self.value_size = fd, name, key_size, value_size
        self._owned = owned

    @classmethod
    def hash(cls, name: str, key_size: int, value_size: int, max_entries: int) -> Map:
        """Makes a preallocated hash map; close it.

        Raises:
            BpfError: the kernel did not make it.
        """
        shape = Shape(lib.BPF_MAP_TYPE_HASH, key_size, value_size, max_entries)
        return cls.create(name, shape)

    @classmethod
    def create(cls, name: str, shape: Shape, inner: Map | None = None) -> Map:
        """Makes a map; close it.

        Args:
            name: at most 15 characters count.
            shape: what it is.
            inner: of a map of maps, one such as it will hold.

        Raises:
            BpfError: the kernel did not make it.
        """
        with Operation(f"create map {name}") as op:
            inner_fd = inner.fd if inner else -1
            sizes = (shape.key_size, shape.value_size, shape.max_entries)
            fd = op.check(
                lib.hp_map_create(shape.type, name.encode(), *sizes, shape.flags, inner_fd)
            )
        return cls(fd, name, shape.key_size, shape.value_size, owned=True)

    @classmethod
    def frozen(cls, name: str, content: bytes) -> Map:
        """Makes a map of one element that nobody can change: constants for the verifier.

        Raises:
            BpfError: the kernel did not make it.
        """
        shape = Shape(lib.BPF_MAP_TYPE_ARRAY, 4, len(content), 1, lib.BPF_F_RDONLY_PROG)
        made = cls.create(name, shape)
        try:
            made.set(bytes(4), content)
            with Operation(f"freeze map {name}") as op:
                op.check(lib.bpf_map_freeze(made.fd))
        except BaseException:
            made.close()
            raise
        return made

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None.

        Raises:
            BpfError: any error but ENOENT.
        """
        value = ffi.new("char[]", self.value_size)
        with Operation(f"look up in map {self.name}") as op:
            result = lib.bpf_map_lookup_elem(self.fd, self._sized(key), value)
            if result == -errno.ENOENT:
                return None
            op.check(result)
        return bytes(ffi.buffer(value))

    def set(self, key: bytes, value: bytes) -> None:
        """Sets the value of a key, new or not.

        Raises:
            BpfError: among others E2BIG, the map is full.
        """
        if len(value) != self.value_size:
            raise ValueError(f"map {self.name} has values of {self.value_size} bytes")
        with Operation(f"update map {self.name}") as op:
            op.check(lib.bpf_map_update_elem(self.fd, self._sized(key), value, 0))

    def delete(self, key: bytes) -> bool:
        """Deletes a key; False if there was none.

        Raises:
            BpfError: any error but ENOENT.
        """
        with Operation(f"delete in map {self.name}") as op:
            result = lib.bpf_map_delete_elem(self.fd, self._sized(key))
            if result == -errno.ENOENT:
                return False
            op.check(result)
        return True

    def keys(self) -> Iterator[bytes]:
        """The keys, while others may add and delete.

        Each key that is there from beginning to end is given at least once: where the
        one just given was deleted, the kernel starts again.
        """
        key = ffi.NULL
        while True:
            following = ffi.new("char[]", self.key_size)
            with Operation(f"iterate over map {self.name}") as op:
                result = lib.bpf_map_get_next_key(self.fd, key, following)
                if result == -errno.ENOENT:
                    return
                op.check(result)
            yield bytes(ffi.buffer(following))
            key = following

    def close(self) -> None:
        """Closes the descriptor if it is this object's own."""
        if self._owned and self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Map:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _sized(self, key: bytes) -> bytes:
        if len(key) != self.key_size:
            raise ValueError(f"map {self.name} has keys of {self.key_size} bytes")
        return key
