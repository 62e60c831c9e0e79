# SPDX-License-Identifier: Apache-2.0
"""A map of the kernel's: bytes in, bytes out."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from refagent.errors import Refused
from refagent.libbpf import pins
from refagent.libbpf._libbpf import ffi, lib
from refagent.libbpf.call import Operation

#: Elements that the kernel gives at once. One bucket of a hash has never as many.
_BATCH: Final = 1024


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
    def opened(cls, number: int, name: str, key_size: int, value_size: int) -> Map:
        """A map of somebody's, by its id; close it.

        Raises:
            BpfError: there is none, or this process may not.
        """
        with Operation(f"open map {name}") as op:
            fd = op.check(lib.bpf_map_get_fd_by_id(number))
        return cls(fd, name, key_size, value_size, owned=True)

    @classmethod
    def create(
        cls,
        name: str,
        shape: Shape,
        inner: Map | None = None,
        types: tuple[int, int, int] = (-1, 0, 0),
    ) -> Map:
        """Makes a map; close it.

        Args:
            name: at most 15 characters count.
            shape: what it is.
            inner: of a map of maps, one such as it will hold.
            types: a descriptor of BTF, and the ids that key and value have in it.

        Raises:
            BpfError: the kernel did not make it.
        """
        with Operation(f"create map {name}") as op:
            inner_fd = inner.fd if inner else -1
            sizes = (shape.key_size, shape.value_size, shape.max_entries)
            fd = op.check(
                lib.hp_map_create(shape.type, name.encode(), *sizes, shape.flags, inner_fd, *types)
            )
        return cls(fd, name, shape.key_size, shape.value_size, owned=True)

    @classmethod
    def pinned(cls, path: Path, name: str, shape: Shape) -> Map:
        """A map by its pin; close it.

        Args:
            path: the pin.
            name: that it was made with.
            shape: likewise.

        Raises:
            Refused: another one is pinned there, and what is other.
            BpfError: there is no pin, or it is no map.
        """
        made = cls(pins.opened(path), name, shape.key_size, shape.value_size, owned=True)
        info = ffi.new("struct hp_map_info *")
        try:
            with Operation(f"look at the map {path}") as op:
                op.check(lib.hp_map_info(made.fd, info))
        except BaseException:
            made.close()
            raise
        there = Shape(info.type, info.key_size, info.value_size, info.max_entries, info.flags)
        for what, wanted in asdict(shape).items():
            if getattr(there, what) != wanted:
                made.close()
                raise Refused(
                    f"the pin {path} is another map than the agent's: its {what} is "
                    f"{getattr(there, what)}, not {wanted}"
                )
        return made

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

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """The keys and values of a hash map, while others may add and delete.

        Each key that is there from beginning to end is given once.

        Raises:
            BpfError: the kernel failed.
        """
        keys, values = _arrays(self.key_size), _arrays(self.value_size)
        # Two of the kernel's positions, each of 4 bytes: it reads one and writes the other.
        here, there = ffi.NULL, ffi.new("char[]", 4)
        ended = False
        while not ended:
            count = ffi.new("__u32 *", _BATCH)
            with Operation(f"list map {self.name}") as op:
                result = lib.bpf_map_lookup_batch(
                    self.fd, here, there, keys, values, count, ffi.NULL
                )
                ended = result == -errno.ENOENT
                if not ended:
                    op.check(result)
            yield from zip(
                _split(keys, self.key_size, count[0]),
                _split(values, self.value_size, count[0]),
                strict=True,
            )
            here, there = there, ffi.new("char[]", 4)

    def set_all(self, pairs: Sequence[tuple[bytes, bytes]]) -> int:
        """Sets the values of keys until one is refused; how many were set.

        Raises:
            BpfError: another error than E2BIG, the map is full.
        """
        count = ffi.new("__u32 *", len(pairs))
        keys, values = (b"".join(each) for each in zip(*pairs, strict=True))
        with Operation(f"fill map {self.name}") as op:
            result = lib.bpf_map_update_batch(self.fd, keys, values, count, ffi.NULL)
            if result != -errno.E2BIG:
                op.check(result)
        return int(count[0])

    def mapped(self) -> mmap.mmap:
        """The values of an array with BPF_F_MMAPABLE as memory; close it.

        Raises:
            BpfError: the kernel would not.
        """
        with Operation(f"map {self.name} into memory") as op:
            try:
                return mmap.mmap(self.fd, self.value_size)
            except OSError as failure:
                raise op.failure(failure.errno or errno.EIO) from None

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


def _arrays(size: int) -> Any:
    return ffi.new("char[]", _BATCH * size)


def _split(array: Any, size: int, count: int) -> list[bytes]:
    plain = bytes(ffi.buffer(array, count * size))
    return [plain[at : at + size] for at in range(0, len(plain), size)]
