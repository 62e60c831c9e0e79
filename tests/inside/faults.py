# SPDX-License-Identifier: Apache-2.0
"""A page of this process that nobody can read until it is said: userfaultfd(2).

The arguments of this process are said to be there (prctl(2), PR_SET_MM), so that a program of an
LSM hook's chain that reads them is asleep for as long as a test wants.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

_USERFAULTFD = 323  # x86-64
#: include/uapi/linux/userfaultfd.h
_API = 0xC018AA3F
_REGISTER = 0xC020AA00
_ZEROPAGE = 0xC020AA04
_API_VERSION = 0xAA
_MODE_MISSING = 1
#: Bytes of a struct uffd_msg, of which there is one for each that sleeps.
_MESSAGE = 32
#: include/uapi/linux/prctl.h
_SET_MM, _ARG_START, _ARG_END = 35, 8, 9

_LIBC = ctypes.CDLL(None, use_errno=True)


class HeldPage:
    """The page; whoever reads it sleeps until `release`."""

    def __init__(self, fd: int, address: int) -> None:
        self._fd, self.address, self._asleep = fd, address, 0

    def asleep(self) -> int:
        """How many have come to sleep so far, by the kernel's messages about them."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._asleep += len(os.read(self._fd, 64 * _MESSAGE)) // _MESSAGE
        return self._asleep

    def release(self) -> None:
        """Whoever sleeps goes on, and finds zeros."""
        with contextlib.suppress(FileExistsError):
            fcntl.ioctl(self._fd, _ZEROPAGE, struct.pack("=QQQq", self.address, 4096, 0, 0))


@contextlib.contextmanager
def arguments_held() -> Iterator[HeldPage]:
    """This process's arguments are on a page that is held; released at the latest at the end."""
    fd = _called("syscall", _USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK)
    memory = mmap.mmap(-1, 4096)
    view = ctypes.c_char.from_buffer(memory)
    page = HeldPage(fd, ctypes.addressof(view))
    start, end = _arguments()
    try:
        fcntl.ioctl(fd, _API, struct.pack("=QQQ", _API_VERSION, 0, 0))
        fcntl.ioctl(fd, _REGISTER, struct.pack("=QQQQ", page.address, 4096, _MODE_MISSING, 0))
        _set_arguments(page.address, page.address + 256)
        try:
            yield page
        finally:
            page.release()
            _set_arguments(start, end)
    finally:
        os.close(fd)
        del view
        memory.close()


def _arguments() -> tuple[int, int]:
    """Where they are: proc(5), fields 48 and 49 of stat."""
    fields = Path("/proc/self/stat").read_text("ascii").rpartition(")")[2].split()
    return int(fields[45]), int(fields[46])


def _set_arguments(start: int, end: int) -> None:
    """The end is never before the beginning, also in between."""
    order = [(_ARG_START, start), (_ARG_END, end)]
    for what, value in order if start <= _arguments()[1] else reversed(order):
        _called("prctl", _SET_MM, what, ctypes.c_ulong(value), 0, 0)


def _called(name: str, *arguments: object) -> int:
    result = int(getattr(_LIBC, name)(*arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result
