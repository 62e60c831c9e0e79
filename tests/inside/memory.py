# SPDX-License-Identifier: Apache-2.0
"""A memory cgroup that has no memory left for who was in it: cgroups(7), version 2."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)


class Group:
    """The cgroup. What is made in the kernel by who is in it is charged to it, for good."""

    def __init__(self, place: Path) -> None:
        self._place = place

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """This process is in it meanwhile."""
        (self._place / "cgroup.procs").write_text("0", "ascii")
        try:
            yield
        finally:
            (self._place.parent / "cgroup.procs").write_text("0", "ascii")

    @contextlib.contextmanager
    def exhausted(self) -> Iterator[None]:
        """It has what it has and gets no more, meanwhile.

        Each processor holds some pages in advance for a cgroup. They are taken back when the limit
        goes below what is charged: at once from the processor on which that is written, soon from
        the others. If it were not enough, the kernel would complain in its log that there is
        nobody to kill.
        """
        processors = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(processors)})
        end = time.monotonic() + 20
        try:
            while not self._settled():
                assert time.monotonic() < end, "waited 20 s in vain until nothing is given back"
            yield
        finally:
            (self._place / "memory.max").write_text("max", "ascii")
            os.sched_setaffinity(0, processors)

    def _settled(self) -> bool:
        """Limits it to what it has; whether none of that comes back from other processors."""
        with self.joined(), mmap.mmap(-1, mmap.PAGESIZE) as page:
            page[0] = 1  # one page, and many in advance
        self._limit(self._charged() - mmap.PAGESIZE)
        limit = self._charged()
        self._limit(limit)
        time.sleep(0.1)
        return self._charged() == limit

    def _charged(self) -> int:
        return int((self._place / "memory.current").read_text("ascii"))

    def _limit(self, count: int) -> None:
        (self._place / "memory.max").write_text(f"{count}", "ascii")


@contextlib.contextmanager
def group(folder: Path) -> Iterator[Group]:
    """A new one; a file system for it is mounted on the folder."""
    mounted = _LIBC.mount(b"cgroup2", bytes(folder), b"cgroup2", 0, None)
    assert mounted == 0, os.strerror(ctypes.get_errno())
    place = folder / "tests"
    try:
        (folder / "cgroup.subtree_control").write_text("+memory", "ascii")
        place.mkdir()
        try:
            yield Group(place)
        finally:
            place.rmdir()
    finally:
        assert _LIBC.umount2(bytes(folder), 0) == 0
