# SPDX-License-Identifier: Apache-2.0
"""Attachments: a program runs while its link is open."""

from __future__ import annotations

import warnings
from typing import Any

from refagent.libbpf._libbpf import lib
from refagent.libbpf.call import Operation


class Link:
    """One attachment; a context manager.

    Without a pin, and with no other process holding the descriptor, `close` is
    synchronous: no call that begins afterwards runs the program.
    """

    def __init__(self, pointer: Any, program: str) -> None:
        self._pointer, self._program = pointer, program

    @property
    def fd(self) -> int:
        """The link's descriptor; on 5.10 a kprobe's is that of its perf event."""
        return int(lib.bpf_link__fd(self._pointer))

    def close(self) -> None:
        """Detaches.

        Raises:
            BpfError: the kernel would not; the link is gone for us all the same.
        """
        if self._pointer is not None:
            pointer, self._pointer = self._pointer, None
            with Operation(f"detach {self._program}") as op:
                op.check(lib.bpf_link__destroy(pointer))

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_pointer", None) is not None:
            warnings.warn(
                f"link of {self._program} was never closed", ResourceWarning, stacklevel=1
            )
