# SPDX-License-Identifier: Apache-2.0
"""The kernel's log as records, each read once."""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False  # typing's own costs a tenth of a second in a guest
if TYPE_CHECKING:
    from typing import Final

_RECORD: Final = 8192  # larger than any record, Documentation/ABI/testing/dev-kmsg


class KernelLog:
    """Reads /dev/kmsg from the first record that the kernel still has."""

    def __init__(self) -> None:
        self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._first = True

    def fresh(self) -> tuple[list[str], int]:
        """The records since the last call, and how often some were overwritten unread."""
        records: list[str] = []
        gaps = 0
        while True:
            try:
                record = os.read(self._fd, _RECORD)
            except BlockingIOError:
                return records, gaps
            except OSError as error:
                if error.errno != errno.EPIPE:
                    raise
                gaps += 1
                continue
            if self._first:
                # The oldest that is left is not the kernel's first: the ring was too small.
                gaps += record.split(b",", 2)[1] != b"0"
                self._first = False
            records.append(record.decode(errors="replace").rstrip("\n"))
