# SPDX-License-Identifier: Apache-2.0
"""Lines on their way to one reader, who may be slow: a bounded queue, and how it is written."""

from __future__ import annotations

import logging
import math
import os
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from refagent import protocol

#: Lines that wait for a reader; what comes beyond them is lost to it. A few MiB.
QUEUE: Final = 8192
#: Where a pipe or socket is ready for anything, it takes as many bytes without a wait.
_CHUNK: Final = 4096
#: Seconds in which a reader may take the rest once `close` has been called.
_PATIENCE: Final = 2.0
_READABLE: Final = select.POLLIN | select.POLLHUP | select.POLLERR
_WRITABLE: Final = select.POLLOUT | select.POLLHUP | select.POLLERR

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Line:
    """Some bytes with a newline at their end; `lost`: how many events are missing there."""

    text: bytes
    lost: int = 0


def lost(events: int) -> Line:
    """The line that stands for so many events that are missing in its place."""
    return Line(protocol.encode({"lost": events}), events)


class Outlet:
    """`put` is for any thread and never waits; `run` is for one, and ends with `close`.

    Args:
        fd: where the lines go: a file, a pipe, a terminal or a socket. It stays open.
        client: whether a reader that goes away ends it. A file that fails may recover.

    Attributes:
        lost: events that the queue or the file did not take.
        failure: why the file takes nothing now, or empty.
    """

    def __init__(self, fd: int, *, client: bool) -> None:
        self.lost, self.failure = 0, ""
        self._fd, self._client = fd, client
        self._lock = threading.Lock()
        self._queue: deque[Line] = deque()
        self._missing = 0  # events that would come after those in the queue
        self._end: float | None = None
        self._stirred = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        weakref.finalize(self, os.close, self._stirred)
        self._writing: list[Line] = []
        self._rest = memoryview(b"")  # of their bytes
        self._torn = False  # the last byte that was written is no newline
        self._retry = True

    def put(self, lines: Iterable[Line]) -> None:
        """Adds lines to the queue, or to what is lost."""
        with self._lock:
            for line in lines:
                # What is missing comes last: after a loss the queue has to be taken first.
                if self._missing or len(self._queue) >= QUEUE:
                    self._miss(line)
                else:
                    self._queue.append(line)
        os.eventfd_write(self._stirred, 1)

    def close(self) -> None:
        """Lets `run` end: at once if its reader has taken all, else in bounded time."""
        with self._lock:
            self._end = time.monotonic() + _PATIENCE
        os.eventfd_write(self._stirred, 1)

    def run(self) -> None:
        """Writes what comes until `close`, or until the client is gone."""
        while True:
            if not self._rest and self._retry:
                self._take()
            left = None if self._end is None else self._end - time.monotonic()
            if left is not None and (left <= 0 or not self._rest):
                return
            ready = self._wait(left)
            try:
                if self._client and ready & _READABLE and not os.read(self._fd, _CHUNK):
                    return
                if self._rest and ready & _WRITABLE:
                    self._write()
            except OSError as failure:
                if self._client:
                    return
                self._failed(failure.strerror or str(failure))

    def _wait(self, seconds: float | None) -> int:
        """Until lines come or the other side is ready; for what, as poll() has it."""
        poll = select.poll()
        poll.register(self._stirred, select.POLLIN)
        if self._client or self._rest:
            reading = select.POLLIN if self._client else 0
            poll.register(self._fd, reading | (select.POLLOUT if self._rest else 0))
        ready = dict(poll.poll(None if seconds is None else math.ceil(1000 * seconds)))
        if self._stirred in ready:
            os.eventfd_read(self._stirred)
            self._retry = True  # if a write has failed, as there is more to write now
        return ready.get(self._fd, 0)

    def _take(self) -> None:
        with self._lock:
            self._writing = list(self._queue)
            self._queue.clear()
            if self._missing:
                self._writing.append(lost(self._missing))
                self._missing = 0
        text = b"".join(line.text for line in self._writing)
        self._rest = memoryview(b"\n" + text if self._torn and text else text)

    def _write(self) -> None:
        count = os.write(self._fd, self._rest[:_CHUNK])
        self._torn = self._rest[count - 1] != ord("\n")
        self._rest = self._rest[count:]
        self.failure = ""

    def _failed(self, why: str) -> None:
        """What was to be written is lost, with the line of which a part is out."""
        unwritten = bytes(self._rest).count(b"\n")
        with self._lock:
            for line in self._writing[-unwritten:]:
                self._miss(line)
        self._rest, self._retry = memoryview(b""), False
        if why != self.failure:
            _log.error("events are lost, as they cannot be written: %s", why)
            self.failure = why

    def _miss(self, line: Line) -> None:
        self._missing += line.lost or 1
        self.lost += not line.lost
