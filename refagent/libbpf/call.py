# SPDX-License-Identifier: Apache-2.0
"""One call into libbpf: what it says while it works goes with the error it ends in.

libbpf prints through one function for the whole process, in the thread that
called it. `Operation` collects the lines of its own thread, so that a failed
load carries libbpf's reason and the verifier's log, and a success prints nothing.
"""

from __future__ import annotations

import re
import threading
from types import TracebackType
from typing import Any

from refagent.errors import BpfError
from refagent.libbpf._libbpf import ffi, lib

_WARN = 0
_thread = threading.local()
_VERIFIER_LOG = re.compile(r"-- BEGIN PROG LOAD LOG --\n(.*)-- END PROG LOAD LOG --", re.DOTALL)


def _keep_quiet(kind: type[BaseException], error: BaseException, trace: TracebackType) -> None:
    """An exception cannot cross libbpf's C frames; a lost line of log is no reason to fail."""


@ffi.def_extern(onerror=_keep_quiet)  # type: ignore[untyped-decorator]
def hp_log(level: int, text: Any) -> None:
    """Receives each line that libbpf prints."""
    lines: list[str] | None = getattr(_thread, "lines", None)
    if lines is not None and level == _WARN:
        lines.append(ffi.string(text).decode("utf-8", "replace"))


lib.hp_capture_log()


class Operation:
    """What is being tried, for the error's text; a context manager around the calls.

    Args:
        op: such as `load object override`.
    """

    def __init__(self, op: str) -> None:
        self.op = op
        self.lines: list[str] = []

    def __enter__(self) -> Operation:
        self._outer = getattr(_thread, "lines", None)
        _thread.lines = self.lines
        return self

    def __exit__(self, *exc: object) -> None:
        _thread.lines = self._outer

    def check(self, result: int) -> int:
        """Passes a result through.

        Raises:
            BpfError: it is negative.
        """
        if result < 0:
            # libbpf 1.x returns -errno, or -1 with errno set from a bare system call.
            raise self.failure(-result if result != -1 else ffi.errno or 1)
        return result

    def pointer(self, result: Any) -> Any:
        """Passes a pointer through.

        Raises:
            BpfError: it is NULL.
        """
        if result == ffi.NULL:
            raise self.failure(ffi.errno)
        return result

    def failure(self, errno: int, verifier_log: str = "") -> BpfError:
        """The error for an errno, with what libbpf said on the way."""
        said = [line.removeprefix("libbpf: ").strip() for line in self.lines]
        logs = [found[1] for line in self.lines if (found := _VERIFIER_LOG.search(line))]
        return BpfError(
            self.op,
            errno,
            said[0] if said else strerror(errno),
            verifier_log or "".join(logs),
        )


def strerror(errno: int) -> str:
    """What an errno of the kernel's or of libbpf's own (4000 and up) means."""
    text = ffi.new("char[128]")
    lib.libbpf_strerror(errno, text, len(text))
    return str(ffi.string(text).decode())
