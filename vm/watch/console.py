# SPDX-License-Identifier: Apache-2.0
"""Watches a serial console as its bytes arrive, and says at once when the kernel died."""

from __future__ import annotations

import codecs
from collections import deque
from dataclasses import replace

from vm.watch.lines import texts
from vm.watch.rules import FATAL
from vm.watch.scan import Splat, Watch

LINE_LIMIT = 4096  # characters; the kernel's own lines are at most 1024 (PRINTKRB_RECORD_MAX)
_ABOVE = 4  # lines kept from above a head line: `cut here` and a telling word or two
_BELOW = 200  # lines after it that are still read into the report


class ConsoleScanner:
    """Fed with what the console sends; holds its tail and the first panic or oops.

    Memory stays bounded however much arrives: `tail_lines` lines of at most `LINE_LIMIT`
    characters, and one report.
    """

    def __init__(self, watch: Watch, tail_lines: int = 400) -> None:
        self._watch = watch
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._partial = ""
        self._tail: deque[str] = deque(maxlen=max(tail_lines, _ABOVE))
        self._report: list[str] = []  # from a little above the first fatal head line on
        self._offset = 0  # lines that came before the report
        self._judged = 0  # lines of the report that `_fatal` is made from
        self._fatal: Splat | None = None
        self._lines = 0

    def feed(self, chunk: bytes) -> Splat | None:
        """Takes the next bytes; says whether a panic or an oops was seen so far.

        The same as `fatal` afterwards. It is there as soon as the head line's newline is.
        """
        self._take(self._decoder.decode(chunk))
        return self.fatal

    def finish(self) -> Splat | None:
        """The console has ended: what came without a newline counts as a line too."""
        self._take(self._decoder.decode(b"", final=True))
        if self._partial:
            self._line(self._partial)
            self._partial = ""
        return self.fatal

    @property
    def fatal(self) -> Splat | None:
        """The first panic or oops; its excerpt grows while the kernel goes on printing."""
        if len(self._report) > self._judged:
            self._judged = len(self._report)
            splat = self._watch.panicked("\n".join(self._report))
            self._fatal = splat and replace(splat, line_number=splat.line_number + self._offset)
        return self._fatal

    @property
    def tail(self) -> str:
        """The last lines as printed, the unfinished one included."""
        return "\n".join((*self._tail, self._partial) if self._partial else self._tail)

    def _take(self, text: str) -> None:
        *whole, self._partial = (self._partial + text).split("\n")
        for line in whole:
            self._line(line)
        while len(self._partial) > LINE_LIMIT:
            self._line(self._partial[:LINE_LIMIT])
            self._partial = self._partial[LINE_LIMIT:]

    def _line(self, line: str) -> None:
        kept = line.rstrip("\r")[:LINE_LIMIT]
        self._tail.append(kept)
        self._lines += 1
        if self._report:
            if len(self._report) < _ABOVE + _BELOW:
                self._report.append(kept)
        elif any(self._kills(text) for text in texts(kept)):
            self._report = list(self._tail)[-_ABOVE - 1 :]
            self._offset = self._lines - len(self._report)

    def _kills(self, text: str) -> bool:
        hit = self._watch.match(text)
        return hit is not None and hit[1].kind in FATAL
