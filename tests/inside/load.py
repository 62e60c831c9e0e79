# SPDX-License-Identifier: Apache-2.0
"""Processes that execute files as fast as they can on all processors, and tell which and when."""

from __future__ import annotations

import itertools
import mmap
import os
import time
from array import array
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

from tests.inside.forked import forked

#: Workers for each processor: one that stays there, and one that the kernel moves as it likes.
_EACH: Final = 2


class Execution(NamedTuple):
    """One, with nanoseconds of the kernel's monotonic clock around it."""

    pid: int
    file: int
    begun: int
    ended: int


class Load:
    """Workers, forked when the block is entered, which wait to `begin`; at its end they are gone.

    To be entered before there are threads, and before there are descriptors that nobody else may
    hold.

    Args:
        files: that are executed, each as often as any other.
        folder: in which workers leave what they did.
        count: executions altogether; without it they go on until `stop`.
    """

    def __init__(self, files: Sequence[Path], folder: Path, count: int | None = None) -> None:
        self._files, self._folder, self._count = files, folder, count
        self._begun, self._stopped = mmap.mmap(-1, 1), mmap.mmap(-1, 1)  # shared with the workers
        self._workers: dict[int, Path] = {}
        self._running: set[int] = set()

    def __enter__(self) -> Load:
        processors = sorted(os.sched_getaffinity(0))
        places = [*([each] for each in processors), *[processors] * len(processors) * (_EACH - 1)]
        for number, place in enumerate(places):
            told = self._folder / f"worker-{number}"
            work = partial(self._work, number, len(places), place, told)
            self._workers[forked(work)] = told
        self._running = set(self._workers)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._stopped[0] = 1
        while self.running():
            time.sleep(0.01)

    def begin(self) -> None:
        """The workers start."""
        self._begun[0] = 1

    def running(self) -> bool:
        """Whether any worker is still at it.

        Raises:
            AssertionError: one failed.
        """
        for pid in list(self._running):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                self._running.remove(pid)
                assert status == 0, f"a worker ended with {os.waitstatus_to_exitcode(status)}"
        return bool(self._running)

    def stop(self) -> list[Execution]:
        """Ends the workers, if they have not; all that they did."""
        self._stopped[0] = 1
        while self.running():
            time.sleep(0.01)
        done = []
        for told in self._workers.values():
            numbers = iter(array("q", told.read_bytes()))
            done += [Execution(*each) for each in zip(*[numbers] * 4, strict=True)]
        return done

    def _work(self, worker: int, workers: int, place: Sequence[int], told: Path) -> None:
        """In a worker: each begins with another file."""
        os.sched_setaffinity(0, place)
        done = array("q")
        numbers = itertools.count(worker, workers)
        while not self._begun[0] and not self._stopped[0]:
            time.sleep(0.001)
        while not self._stopped[0]:
            number = next(numbers)
            if self._count is not None and number >= self._count:
                break
            file = number % len(self._files)
            begun = time.monotonic_ns()
            pid = os.posix_spawn(self._files[file], ["x"], {})
            assert os.waitpid(pid, 0) == (pid, 0)
            done.extend((pid, file, begun, time.monotonic_ns()))
        told.write_bytes(done.tobytes())
