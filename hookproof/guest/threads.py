# SPDX-License-Identifier: Apache-2.0
"""Threads that a scenario names: `by: a` has a step's system call made by thread `a`.

What the agent keeps about a thread is found out by the next call of the same one, so a thread
lives from the first step that names it to the scenario's end.
"""

from __future__ import annotations

import errno
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

#: The thread whose id was given last in this process's namespace; proc(5).
_LAST_ID: Final = Path("/proc/sys/kernel/ns_last_pid")
#: Others may be given the id between the two steps of asking for it.
_TRIES: Final = 100
_PATIENCE: Final = 30.0

_THERE: dict[str, Thread] = {}


class Answer:
    """What a thread has been asked for, and gives when it is done."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._result: Any = None
        self._error: BaseException | None = None

    def fill(self, work: Callable[[], Any]) -> None:
        """Does the work."""
        try:
            self._result = work()
        except BaseException as error:
            self._error = error
        self._done.set()

    def done(self, seconds: float = 0.0) -> bool:
        """Whether it is there, at the latest after so many seconds."""
        return self._done.wait(seconds)

    def get(self, seconds: float = _PATIENCE) -> Any:
        """The result; what the work raised is raised here.

        Raises:
            TimeoutError: it is not there after so many seconds.
        """
        if not self.done(seconds):
            raise TimeoutError(f"a thread did not come back within {seconds:.0f} s")
        if self._error is not None:
            raise self._error
        return self._result


class Thread:
    """One thread, which does what it is asked to in order.

    Attributes:
        id: the kernel's.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[tuple[Answer, Callable[[], Any]] | None]
        self._work = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()
        self.id: int = self._thread.native_id or 0

    def ask(self, work: Callable[[], Any]) -> Answer:
        """Has it do something; returns at once."""
        answer = Answer()
        self._work.put((answer, work))
        return answer

    def end(self) -> None:
        """Ends it, and returns when its id can be another's.

        Raises:
            TimeoutError: it is still at work.
        """
        self._work.put(None)
        until = time.monotonic() + _PATIENCE
        while self._thread.is_alive() or os.path.exists(f"/proc/self/task/{self.id}"):  # noqa: PTH110
            if time.monotonic() > until:
                raise TimeoutError(f"thread {self.id} did not end within {_PATIENCE:.0f} s")
            time.sleep(0.002)

    def _live(self) -> None:
        while (item := self._work.get()) is not None:
            answer, work = item
            answer.fill(work)


def named(name: str) -> Thread:
    """The thread of that name, which is started if there is none."""
    if name not in _THERE:
        _THERE[name] = Thread()
    return _THERE[name]


def start(name: str, id_of: str | None) -> None:
    """Starts a thread.

    Args:
        name: its.
        id_of: a thread that ends before, and whose id the new one is given.

    Raises:
        OSError: EEXIST, there is one of that name; EAGAIN, somebody else has the id now.
    """
    if name in _THERE:
        raise OSError(errno.EEXIST, f"there is a thread {name} already")
    if id_of is None:
        named(name)
        return
    wanted = named(id_of).id
    _THERE.pop(id_of).end()
    for _ in range(_TRIES):
        _LAST_ID.write_text(str(wanted - 1), "ascii")
        fresh = Thread()
        if fresh.id == wanted:
            _THERE[name] = fresh
            return
        fresh.end()
    raise OSError(errno.EAGAIN, f"thread id {wanted} is not to be had again")


def end_all() -> None:
    """Ends all there are."""
    while _THERE:
        _THERE.popitem()[1].end()


def forget_all() -> None:
    """In a forked child, which has none of them."""
    _THERE.clear()
