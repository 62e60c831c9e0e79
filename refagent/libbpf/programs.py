# SPDX-License-Identifier: Apache-2.0
"""Programs that the kernel has accepted."""

from __future__ import annotations

from refagent.libbpf.links import Link


class Program:
    """A loaded program; it lives as long as its descriptor and the links to it.

    Attributes:
        fd: belongs to the object that the program came with.
        name: as the C source has it.
    """

    def __init__(self, fd: int, name: str) -> None:
        self.fd, self.name = fd, name

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
