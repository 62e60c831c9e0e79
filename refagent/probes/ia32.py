# SPDX-License-Identifier: Apache-2.0
"""System calls by the way of 32-bit programs, made by this 64-bit process: `int $0x80`."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
from typing import Final

from refagent.probes.answers import Finding, Unsupported

#: int call(int number, int first, int second, int third). The kernel takes eax, ebx, ecx and edx.
_CODE: Final = bytes.fromhex(
    "53"  # push %rbx
    "89f8"  # mov %edi, %eax
    "89f3"  # mov %esi, %ebx
    "87ca"  # xchg %ecx, %edx
    "cd80"  # int $0x80
    "5b"  # pop %rbx
    "c3"  # ret
)
#: Where both the code and the texts are, as a pointer has 32 bits there.
_MAP_32BIT: Final = 0x40
_SIZE: Final = 16384

#: Numbers of arch/x86/entry/syscalls/syscall_32.tbl.
GETPID: Final = 20
SYMLINKAT: Final = 304


def call(number: int, *arguments: int | bytes) -> int:
    """Makes one call, in a child: a kernel without them kills who tries.

    Args:
        number: of the call, as 32-bit programs have it.
        arguments: at most three; a text is passed by its address.

    Returns:
        What the kernel gave: a negative errno where it failed.

    Raises:
        Unsupported: this kernel takes no such calls.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, _call(number, arguments).to_bytes(4, "little", signed=True))
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answer:  # noqa: PTH123  a descriptor
        given = answer.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status < 0:
        raise Unsupported(f"int $0x80 gives {signal.Signals(-status).name}")
    return int.from_bytes(given, "little", signed=True)


def _call(number: int, arguments: tuple[int | bytes, ...]) -> int:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_32BIT
    low = mmap.mmap(-1, _SIZE, flags, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    start = ctypes.addressof(ctypes.c_char.from_buffer(low))
    low.write(_CODE)
    registers = [0, 0, 0]
    for index, argument in enumerate(arguments):
        if isinstance(argument, bytes):
            registers[index] = start + low.tell()
            low.write(argument + b"\0")
        else:
            registers[index] = argument
    made = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_int] * 4)(start)
    return int(made(number, *registers))


def works() -> Finding:
    """Asks for a process's id."""
    parent, given = os.getpid(), call(GETPID)
    if given <= 0 or given == parent:
        raise Unsupported(f"getpid by int $0x80 gives {given}")
    return Finding(f"getpid by int $0x80 gave {given}, a child of {parent}")
