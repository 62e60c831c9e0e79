# SPDX-License-Identifier: Apache-2.0
"""An initramfs from entries, by virtme-ng's writer: the same entries give the same bytes.

The format is the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
Archives may follow one another in a file; a later one's files replace an earlier one's.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

#: The inode number of the first file with several names; the writer counts from 0.
_FIRST_SHARED = 1 << 30


@dataclass(frozen=True)
class Entry:
    """One file, folder or symbolic link.

    Attributes:
        place: absolute path in the guest.
        mode: type and permissions, as in stat(2).
        data: a file's content, or a link's target.
        names: further names of the same file (hard links), absolute paths.
    """

    place: str
    mode: int
    data: bytes = b""
    names: tuple[str, ...] = ()


def file(place: str, data: bytes, mode: int = 0o644, names: Iterable[str] = ()) -> Entry:
    """A regular file."""
    return Entry(place, stat.S_IFREG | mode, data, tuple(names))


def folder(place: str, mode: int = 0o755) -> Entry:
    """A folder."""
    return Entry(place, stat.S_IFDIR | mode)


def link(place: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(place, stat.S_IFLNK | 0o777, target.encode())


def write(entries: Iterable[Entry], out: IO[bytes]) -> None:
    """Writes an archive: sorted, owned by root, from the epoch, with the folders above each.

    Raises:
        OSError: from the file system.
    """
    # The type of this module is lost on a checker: virtme-ng has no annotations.
    from virtme.cpiowriter import CpioWriter, FileMetaData  # type: ignore[import-untyped]

    by_place = {entry.place: entry for entry in entries}
    for place in [*by_place]:
        for above in PurePosixPath(place).parents[:-1]:
            by_place.setdefault(str(above), folder(str(above)))
    writer = CpioWriter(out)
    links = []
    for number, (place, entry) in enumerate(sorted(by_place.items())):
        meta = FileMetaData()
        if entry.names:
            meta = FileMetaData(ino=_FIRST_SHARED + number, nlink=1 + len(entry.names))
            links += [(name, entry.mode, meta) for name in sorted(entry.names)]
        writer.write_object(place[1:].encode(), entry.data, entry.mode, meta)
    # The kernel gives a file its further names as they come by, without content.
    for name, mode, meta in links:
        writer.write_object(name[1:].encode(), b"", mode, meta)
    writer.write_trailer()
