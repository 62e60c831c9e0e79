# SPDX-License-Identifier: Apache-2.0
"""An agent in a process of its own, so that it can be killed as a real one can."""

from __future__ import annotations

import functools
import os
import signal
import traceback
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from refagent.agent import Agent
from refagent.errors import AgentError


class Remote:
    """Has the methods of an `Agent`; what these raise is raised here.

    Args:
        base: the agent's.
    """

    def __init__(self, base: Path) -> None:
        self._pipe, theirs = Pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _live(base, theirs)
        theirs.close()

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return functools.partial(self._ask, method)

    def _ask(self, method: str, *args: Any) -> Any:
        self._pipe.send((method, args))
        answer = self._pipe.recv()
        if isinstance(answer, AgentError):
            raise answer
        return answer

    def kill(self) -> None:
        """It has no time to say goodbye, and is gone when this returns."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        self._pipe.close()


def _live(base: Path, pipe: Connection) -> None:
    """The forked child's life; whoever waits for an answer when it ends sees the pipe's end."""
    try:
        agent = Agent(base)
        while True:
            method, args = pipe.recv()
            try:
                answer = getattr(agent, method)(*args)
            except AgentError as failure:
                answer = failure
            pipe.send(answer)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)
