# SPDX-License-Identifier: Apache-2.0
"""Names in a bpffs that keep kernel objects alive without a process."""

from __future__ import annotations

from pathlib import Path

from refagent.libbpf._libbpf import lib
from refagent.libbpf.call import Operation


def pin(fd: int, path: Path) -> None:
    """Gives a program, map or link a name.

    Raises:
        BpfError: among others EEXIST, the name is taken; EINVAL, the object has no pins.
    """
    with Operation(f"pin {path}") as op:
        op.check(lib.bpf_obj_pin(fd, str(path).encode()))


def opened(path: Path) -> int:
    """A descriptor of what has the name.

    Raises:
        BpfError: among others ENOENT, nothing has it.
    """
    with Operation(f"open pin {path}") as op:
        return op.check(lib.bpf_obj_get(str(path).encode()))
