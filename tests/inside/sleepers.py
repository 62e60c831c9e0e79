# SPDX-License-Identifier: Apache-2.0
"""A process whose children fall asleep in the chain of an LSM hook, and sleep until it is said.

Not the agent's own: until it has another program, a child has all descriptors of its parent, and so
would keep the agent's links attached.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hookproof.guest.pages import arguments_held
from tests.inside.chains import wait
from tests.inside.forked import forked

_PID: Final = struct.Struct("=i")


class Sleepers:
    """So many executions of a file at a time, each asleep where its arguments are read.

    Args:
        ask: the descriptor on which the process takes requests.
        told: and that on which it answers.
        count: how many they are.
    """

    def __init__(self, ask: int, told: int, count: int) -> None:
        self._ask, self._told, self._count = ask, told, count

    @classmethod
    @contextmanager
    def of(cls, path: Path, count: int) -> Iterator[Sleepers]:
        """To be entered before there are descriptors that nobody else may hold."""
        (asked, ask), (told, tell) = os.pipe(), os.pipe()

        def work() -> None:
            os.close(ask)
            os.close(told)
            _serve(asked, tell, path, count)

        pid = forked(work)
        os.close(asked)
        os.close(tell)
        try:
            yield cls(ask, told, count)
        finally:
            os.close(ask)
            os.close(told)
            assert os.waitpid(pid, 0) == (pid, 0)

    def fall_asleep(self) -> None:
        """Returns when all sleep."""
        os.write(self._ask, b"s")
        assert os.read(self._told, 1) == b"s", "they did not fall asleep"

    def wake(self) -> list[int]:
        """Returns when all have run; their process ids."""
        os.write(self._ask, b"w")
        raw = os.read(self._told, self._count * _PID.size)
        return [pid for (pid,) in _PID.iter_unpack(raw)]


def _serve(asked: int, tell: int, path: Path, count: int) -> None:
    """In the process, until nobody asks any more."""
    while os.read(asked, 1):
        with ThreadPoolExecutor(count) as pool, arguments_held() as page:
            calls = [pool.submit(_execute, path) for _ in range(count)]
            wait(lambda: page.asleep() == count, "all sleep")
            os.write(tell, b"s")
            os.read(asked, 1)
            page.open()
            pids = [each.result(60) for each in calls]
        os.write(tell, b"".join(map(_PID.pack, pids)))


def _execute(path: Path) -> int:
    """Its process's id. By ctypes, which lets other threads run meanwhile; os.posix_spawn does not.

    Until it has another program, the child is in this process's memory and has its arguments.
    """
    name, pid = os.fsencode(path), ctypes.c_int()
    words, no_words = (ctypes.c_char_p * 2)(name, None), (ctypes.c_char_p * 1)(None)
    spawn = ctypes.CDLL(None).posix_spawn
    error = spawn(ctypes.byref(pid), name, None, None, words, no_words)
    assert error == 0, os.strerror(error)
    assert os.waitpid(pid.value, 0) == (pid.value, 0)
    return pid.value
