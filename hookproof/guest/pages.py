# SPDX-License-Identifier: Apache-2.0
"""A page of this process that nobody can read until it is said: userfaultfd(2).

A system call that is given a path there sleeps where the kernel copies it. And if the arguments
of this process are said to be there (prctl(2), PR_SET_MM), a program of an LSM hook's chain that
reads them sleeps in the middle of the chain.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import select
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_USERFAULTFD: Final = 323  # x86-64
#: include/uapi/linux/userfaultfd.h
_API: Final = 0xC018AA3F
_REGISTER: Final = 0xC020AA00
_COPY: Final = 0xC028AA03
_API_VERSION: Final = 0xAA
_MODE_MISSING: Final = 1
#: UFFD_FEATURE_THREAD_ID, 4.14 and later.
_FEATURES: Final = 1 << 8
#: struct uffd_msg, of which there is one for each that sleeps: at its end its thread's id.
_MESSAGE: Final = struct.Struct("=24xI4x")
#: include/uapi/linux/prctl.h
_SET_MM, _ARG_START, _ARG_END = 35, 8, 9
#: No less than the bytes of a posix_spawn_file_actions_t, which are 80.
_ACTIONS: Final = 128
#: The first descriptor that is not standard input, output or error.
_FIRST: Final = 3

_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class Page:
    """The page; whoever reads it sleeps until `open`, and finds the content then.

    Args:
        content: the rest is zeros.

    Attributes:
        address: of its first byte.
        sleepers: the threads that have come to sleep, in order.
    """

    def __init__(self, content: bytes) -> None:
        self.sleepers: list[int] = []
        self._content = ctypes.create_string_buffer(content, mmap.PAGESIZE)
        self._fd = called("syscall", _USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK)
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)
        view = ctypes.c_char.from_buffer(self._memory)
        self.address = ctypes.addressof(view)
        del view
        try:
            fcntl.ioctl(self._fd, _API, struct.pack("=QQQ", _API_VERSION, _FEATURES, 0))
            where = (self.address, mmap.PAGESIZE, _MODE_MISSING, 0)
            fcntl.ioctl(self._fd, _REGISTER, struct.pack("=QQQQ", *where))
        except BaseException:
            self.close()
            raise

    def reached(self, seconds: float) -> bool:
        """Whether somebody has come to sleep, at the latest after so many seconds."""
        if not self.asleep():
            poll = select.poll()
            poll.register(self._fd, select.POLLIN)
            poll.poll(seconds * 1000)
        return self.asleep() > 0

    def asleep(self) -> int:
        """How many have come to sleep so far, by the kernel's messages about them."""
        with contextlib.suppress(BlockingIOError):
            while True:
                said = os.read(self._fd, 64 * _MESSAGE.size)
                self.sleepers += [thread for (thread,) in _MESSAGE.iter_unpack(said)]
        return len(self.sleepers)

    def open(self) -> None:
        """Whoever sleeps goes on."""
        what = (self.address, ctypes.addressof(self._content), mmap.PAGESIZE, 0, 0)
        with contextlib.suppress(FileExistsError):  # it was opened before
            fcntl.ioctl(self._fd, _COPY, struct.pack("=QQQQq", *what))

    def close(self) -> None:
        """Gives it back; nobody may use it any more."""
        os.close(self._fd)
        self._memory.close()


@contextlib.contextmanager
def holding(content: bytes) -> Iterator[Page]:
    """A page with this content; opened at the latest at the end."""
    with contextlib.closing(Page(content)) as page:
        try:
            yield page
        finally:
            page.open()


@contextlib.contextmanager
def arguments_held() -> Iterator[Page]:
    """This process's arguments are on such a page; opened at the latest at the end."""
    start, end = _arguments()
    size = min(end - start, 256)
    with holding(ctypes.string_at(start, size)) as page:
        _set_arguments(page.address, page.address + size)
        try:
            yield page
        finally:
            page.open()
            _set_arguments(start, end)


def called(name: str, *arguments: object) -> int:
    """Calls a function of the C library, while others of this process go on.

    Raises:
        OSError: it gave -1.
    """
    result = int(getattr(_LIBC, name)(*arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def spawn(program: str, argv: list[str], *, alone: bool) -> int:
    """posix_spawn(3), which shares this process's memory until the program begins; the child's id.

    Unlike Python's own it lets other threads go on meanwhile.

    Args:
        program: its path.
        argv: its name and arguments.
        alone: whether the child gives its copies of our descriptors back before the program
            begins. While it is held it else keeps attached what we detach.

    Raises:
        OSError: with the errno of execve(2).
    """
    pid = ctypes.c_int()
    words = (ctypes.c_char_p * (len(argv) + 1))(*map(os.fsencode, argv), None)
    settings = [b"%s=%s" % pair for pair in os.environb.items()]
    environment = (ctypes.c_char_p * (len(settings) + 1))(*settings, None)
    path = os.fsencode(program)
    actions = ctypes.create_string_buffer(_ACTIONS)
    _LIBC.posix_spawn_file_actions_init(actions)
    if alone:
        _LIBC.posix_spawn_file_actions_addclosefrom_np(actions, _FIRST)
    code = _LIBC.posix_spawn(ctypes.byref(pid), path, actions, None, words, environment)
    _LIBC.posix_spawn_file_actions_destroy(actions)
    if code:
        raise OSError(code, f"posix_spawn: {errno.errorcode.get(code, code)}")
    return pid.value


def _arguments() -> tuple[int, int]:
    """Where they are: proc(5), fields 48 and 49 of stat."""
    fields = Path("/proc/self/stat").read_text("ascii").rpartition(")")[2].split()
    return int(fields[45]), int(fields[46])


def _set_arguments(start: int, end: int) -> None:
    """The end is never before the beginning, also in between."""
    order = [(_ARG_START, start), (_ARG_END, end)]
    for what, value in order if start <= _arguments()[1] else reversed(order):
        called("prctl", _SET_MM, what, ctypes.c_ulong(value), 0, 0)
