# SPDX-License-Identifier: Apache-2.0
"""The serial console of a guest: kept, searched as it comes, waited on.

It is the one witness that is left when a guest dies, so its reader only ever appends,
and whoever waits is woken by what it waits for, by the guest's death, or by the
deadline, whichever comes first.
"""

from __future__ import annotations

import threading
import time
from typing import Final

from vm.errors import BootFailure, GuestPanic
from vm.watch import ConsoleScanner, Splat, Watch

#: Bytes kept of the beginning and of the end of what a console said.
_HEAD: Final = 256 << 10
_TAIL: Final = 1 << 20


class Console:
    """What the guest said on its serial line.

    Args:
        watch: the patterns that tell a dying kernel.
    """

    def __init__(self, watch: Watch) -> None:
        self._scanner = ConsoleScanner(watch)
        self._changed = threading.Condition()
        self._head = bytearray()
        self._tail = bytearray()
        self._ended = False

    def feed(self, chunk: bytes) -> None:
        """Takes what arrived; called by the one thread that reads the pipe."""
        with self._changed:
            room = max(0, _HEAD - len(self._head))
            self._head += chunk[:room]
            self._tail += chunk[room:]
            if len(self._tail) > 2 * _TAIL:
                del self._tail[:-_TAIL]
            self._scanner.feed(chunk)
            self._changed.notify_all()

    def end(self) -> None:
        """Says that nothing more will come: QEMU is gone."""
        with self._changed:
            self._scanner.finish()
            self._ended = True
            self._changed.notify_all()

    @property
    def text(self) -> str:
        """All that is kept, with a note where something was left out."""
        with self._changed:
            cut = b"\n[... left out ...]\n" if len(self._tail) > _TAIL else b""
            raw = bytes(self._head) + cut + bytes(self._tail[-_TAIL:])
        return raw.decode(errors="replace").replace("\r\n", "\n")

    @property
    def fatal(self) -> Splat | None:
        """The panic or oops that was seen, if any."""
        with self._changed:
            return self._scanner.fatal

    @property
    def ended(self) -> bool:
        """Whether QEMU has closed the console."""
        with self._changed:
            return self._ended

    def wait_for(self, mark: str, *, deadline: float, what: str) -> None:
        """Waits until the guest has said something.

        Args:
            mark: a text on the console.
            deadline: seconds from now.
            what: what is waited for, for messages.

        Raises:
            GuestPanic: the kernel died first.
            BootFailure: QEMU ended first, or the deadline passed.
        """
        needle = mark.encode()
        until = time.monotonic() + deadline
        with self._changed:
            while needle not in self._head and needle not in self._tail:
                if fatal := self._scanner.fatal:
                    raise GuestPanic(fatal.line)
                if self._ended:
                    raise BootFailure(f"the machine ended while waiting for {what}")
                left = until - time.monotonic()
                if left <= 0:
                    raise BootFailure(f"no {what} within {deadline:.0f} s")
                self._changed.wait(left)

    def wait_ended(self, deadline: float) -> bool:
        """Waits until the console has ended; False if the deadline (seconds) passed first."""
        with self._changed:
            return self._changed.wait_for(lambda: self._ended, deadline)
