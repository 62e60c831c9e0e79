# SPDX-License-Identifier: Apache-2.0
"""Events from the kernel, through a BPF ring buffer."""

from __future__ import annotations

import errno
from types import TracebackType
from typing import Any, Final

from refagent.libbpf._libbpf import ffi, lib
from refagent.libbpf.call import Operation
from refagent.libbpf.maps import Map

#: Records that are taken at a time, which is more than a buffer holds. libbpf goes on as long as
#: there are any, and programs may be faster than we are.
_MOST: Final = 4096
_ENOUGH: Final = -errno.EXFULL


def _stop(kind: type[BaseException], error: BaseException, trace: TracebackType) -> None:
    """An exception in C's frames: `error=-1` makes libbpf stop, and `poll` raise."""


@ffi.def_extern(error=-1, onerror=_stop)  # type: ignore[untyped-decorator]
def hp_sample(context: Any, data: Any, size: int) -> int:
    """Receives each record that libbpf consumes."""
    records = ffi.from_handle(context)
    records.append(bytes(ffi.buffer(data, size)))
    return _ENOUGH if len(records) >= _MOST else 0


class RingBuffer:
    """The reading end of a ring buffer map; a context manager.

    Raises:
        BpfError: the map is no ring buffer.
    """

    def __init__(self, source: Map) -> None:
        self._records: list[bytes] = []
        self._handle = ffi.new_handle(self._records)
        with Operation(f"read ring buffer {source.name}") as op:
            self._pointer = op.pointer(lib.hp_ring_new(source.fd, self._handle))

    def poll(self, seconds: float) -> list[bytes]:
        """The records that are there, waiting up to so many seconds for the first.

        All that were there when it was called; of those that come meanwhile perhaps not all.

        Raises:
            BpfError: the wait failed.
        """
        with Operation("poll a ring buffer") as op:
            # What is there can be taken before the kernel has come to waking its readers.
            found = lib.ring_buffer__consume(self._pointer)
            if not found and seconds:
                found = lib.ring_buffer__poll(self._pointer, int(seconds * 1000))
            if found != _ENOUGH:
                op.check(found)
        records, self._records[:] = self._records[:], []
        return records

    def close(self) -> None:
        """Ends the reading; the map stays."""
        if self._pointer is not None:
            lib.ring_buffer__free(self._pointer)
            self._pointer = None

    def __enter__(self) -> RingBuffer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
