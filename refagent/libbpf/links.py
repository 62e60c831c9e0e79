# SPDX-License-Identifier: Apache-2.0
"""Attachments: a program runs while its link is open."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from refagent.errors import Refused
from refagent.libbpf import ids, pins
from refagent.libbpf._libbpf import ffi, lib
from refagent.libbpf.call import Operation


class Link:
    """One attachment by its file descriptors; a context manager.

    Without a pin, and with no other process holding the descriptor, `close` is
    synchronous: no call that begins afterwards runs the program.

    Attributes:
        fd: the link's, or the perf event's where that is all there is (kprobes on 5.10).
    """

    def __init__(self, fd: int, program: str, event: int = -1, *, linked: bool = True) -> None:
        self.fd, self._program, self._event, self._linked = fd, program, event, linked

    @classmethod
    def tracing(cls, program_fd: int, program: str) -> Link:
        """Attaches a tracing or LSM program to the function it was loaded for.

        Raises:
            BpfError: among others E2BIG, the function's trampoline is full.
        """
        with Operation(f"attach {program}") as op:
            return cls(op.check(lib.bpf_raw_tracepoint_open(ffi.NULL, program_fd)), program)

    @classmethod
    def iterator(cls, program_fd: int, program: str) -> Link:
        """Makes an iterator's program one that can be read.

        Raises:
            BpfError: the kernel would not.
        """
        with Operation(f"attach {program}") as op:
            fd = lib.bpf_link_create(program_fd, 0, lib.BPF_TRACE_ITER, ffi.NULL)
            return cls(op.check(fd), program)

    @classmethod
    def pinned(cls, path: Path, program_fd: int, program: str) -> Link:
        """A link by its pin.

        Raises:
            Refused: it runs another program.
            BpfError: there is no pin, or it is no link.
        """
        link = cls(pins.opened(path), program)
        try:
            same = ids.link_program(link.fd) == ids.program_id(program_fd)
        except BaseException:
            link.close()
            raise
        if not same:
            link.close()
            raise Refused(f"the pin {path} is another link than that of the agent's {program}")
        return link

    @property
    def can_be_pinned(self) -> bool:
        """Kprobes before 5.15 cannot: they hang on a perf event, which ends with its process."""
        return self._linked

    @classmethod
    def kprobe(cls, program_fd: int, program: str, function: str) -> Link:
        """Attaches a program to the entry of a kernel function.

        Raises:
            BpfError: among others ENOENT, no such function or none that may be probed.
        """
        with Operation(f"attach {program} to {function}") as op:
            event = op.check(lib.hp_kprobe_open(function.encode()))
            try:
                fd = op.check(lib.hp_kprobe_attach(event, program_fd))
            except BaseException:
                os.close(event)
                raise
        if fd == event:
            return cls(event, program, linked=False)
        return cls(fd, program, event)

    def close(self) -> None:
        """Detaches."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
        event, self._event = self._event, -1
        if event >= 0:
            os.close(event)

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "fd", -1) >= 0:
            warnings.warn(
                f"link of {self._program} was never closed", ResourceWarning, stacklevel=1
            )
