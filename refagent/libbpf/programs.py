# SPDX-License-Identifier: Apache-2.0
"""Programs that the kernel has accepted."""

from __future__ import annotations

from refagent.libbpf._libbpf import ffi, lib
from refagent.libbpf.call import Operation
from refagent.libbpf.links import Link


class Program:
    """A loaded program; it lives as long as its descriptor and the links to it.

    Attributes:
        fd: belongs to the object that the program came with.
        name: as the C source has it.
    """

    def __init__(self, fd: int, name: str) -> None:
        self.fd, self.name = fd, name

    @classmethod
    def returning_zero(cls, kind: int, target: int, name: str) -> Program:
        """A tracing program that does nothing; its descriptor is the caller's to close.

        Args:
            kind: BPF_TRACE_FENTRY and the like.
            target: the BTF id of the kernel function.
            name: at most 15 characters.

        Raises:
            BpfError: with the verifier's log.
        """
        log = ffi.new("char[4096]")
        with Operation(f"load program {name}") as op:
            fd = lib.hp_return_zero_load(kind, target, name.encode(), log, len(log))
            if fd < 0:
                raise op.failure(-fd, ffi.string(log).decode("utf-8", "replace"))
        return cls(fd, name)

    def attach(self) -> Link:
        """Attaches to the function it was loaded for.

        Raises:
            BpfError: among others E2BIG, the function's trampoline is full.
        """
        return Link.tracing(self.fd, self.name)

    def attach_kprobe(self, function: str) -> Link:
        """Attaches to the entry of a kernel function.

        Raises:
            BpfError: among others ENOENT, no such function or none that may be probed.
        """
        return Link.kprobe(self.fd, self.name, function)
