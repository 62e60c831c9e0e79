# SPDX-License-Identifier: Apache-2.0
"""The kernel's ids of programs and maps, and how to see that one is gone."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final, TypeAlias

from refagent.errors import AgentError
from refagent.libbpf._libbpf import ffi, lib
from refagent.libbpf.call import Operation

#: An id, what it is of, and who gives its descriptor.
_Waiting: TypeAlias = tuple[int, str, Callable[[int], int]]


class _Later(threading.local):
    """What a thread's `together` will wait for; None outside of one."""

    waiting: list[_Waiting] | None = None


_later: Final = _Later()


@contextlib.contextmanager
def together(*, deadline: float = 20.0) -> Iterator[None]:
    """Has this thread's `wait_gone` wait at the end of the block, for all at the same time.

    Each is gone after grace periods of the kernel, which then pass for all at once.

    Raises:
        AgentError: one is still there after `deadline` seconds, and which.
    """
    before, mine = _later.waiting, list[_Waiting]()
    _later.waiting = mine
    try:
        yield
    finally:
        _later.waiting = before
        _wait(mine, deadline)


def wait_gone(
    program_ids: Collection[int], map_ids: Collection[int], *, deadline: float = 20.0
) -> None:
    """Waits until the kernel has freed these; it does so a grace period after the last close.

    Within `together` it returns at once.

    Raises:
        AgentError: one is still there after `deadline` seconds, and which.
    """
    waiting: list[_Waiting] = [(each, "program", lib.bpf_prog_get_fd_by_id) for each in program_ids]
    waiting += [(each, "map", lib.bpf_map_get_fd_by_id) for each in map_ids]
    if _later.waiting is None:
        _wait(waiting, deadline)
    else:
        _later.waiting += waiting


def _wait(waiting: Sequence[_Waiting], deadline: float) -> None:
    until = time.monotonic() + deadline
    while waiting := [each for each in waiting if _is_there(*each)]:
        if time.monotonic() > until:
            number, what, _ = waiting[0]
            raise AgentError(f"{what} {number} is still in the kernel after {deadline:.0f} s")
        time.sleep(0.002)


def program_id(fd: int) -> int:
    """The id of a program by its descriptor."""
    return int(_program(fd).id)


def program_name(fd: int) -> str:
    """The name that a program was loaded with, at most 15 characters."""
    return str(ffi.string(_program(fd).name).decode("utf-8", "replace"))


def maps_of(fd: int) -> set[int]:
    """The ids of the maps that a program uses, of the first 32."""
    info = _program(fd)
    return set(info.maps[0 : min(info.map_count, len(info.maps))])


def recursion_misses(fd: int) -> int:
    """How often the kernel skipped a program, as it ran on that CPU already; 0 before 5.12."""
    return int(_program(fd).recursion_misses)


def link_program(fd: int) -> int:
    """The id of the program that a link runs."""
    info = ffi.new("struct hp_link_info *")
    with Operation("ask for a link's program") as op:
        op.check(lib.hp_link_info(fd, info))
    return int(info.prog_id)


def map_id(fd: int) -> int:
    """The id of a map by its descriptor."""
    info = ffi.new("struct hp_map_info *")
    with Operation("ask for a map's id") as op:
        op.check(lib.hp_map_info(fd, info))
    return int(info.id)


def _program(fd: int) -> Any:
    info = ffi.new("struct hp_prog_info *")
    with Operation("ask about a program") as op:
        op.check(lib.hp_prog_info(fd, info))
    return info


def _is_there(number: int, _what: str, open_by_id: Callable[[int], int]) -> bool:
    fd = open_by_id(number)
    if fd >= 0:
        os.close(fd)
    return fd != -errno.ENOENT
