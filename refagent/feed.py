# SPDX-License-Identifier: Apache-2.0
"""An agent's events, read by one thread and handed to all who want them; and the agent swept."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Final

from refagent import protocol
from refagent.agent import Agent
from refagent.errors import AgentError
from refagent.outlet import Line, Outlet, lost

#: Seconds after which it is seen that the kernel has lost events, and no others came.
_WAIT: Final = 0.5


class Feed:
    """Nobody who reads can make it wait, so that the kernel's buffer is emptied in any case.

    Attributes:
        failure: what ended it before its time, or None.
    """

    def __init__(self, agent: Agent) -> None:
        self.failure: AgentError | None = None
        self._agent = agent
        self._lock = threading.Lock()
        self._outlets: list[Outlet] = []
        self._lost = agent.totals().events_lost
        self._missed = 0  # by outlets that have left
        self._stopping = threading.Event()

    def join(self, outlet: Outlet, *first: Line) -> None:
        """Gives an outlet some lines, and all events that are read from now on."""
        with self._lock:
            outlet.put(first)
            self._outlets.append(outlet)

    def leave(self, outlet: Outlet) -> None:
        """It gets nothing more."""
        with self._lock:
            self._outlets.remove(outlet)
            self._missed += outlet.lost

    def readers(self) -> tuple[int, int]:
        """How many outlets there are; events that they, or those before them, did not take."""
        with self._lock:
            return len(self._outlets), self._missed + sum(each.lost for each in self._outlets)

    def stop(self) -> None:
        """Lets `run` end when it has read what is there; to be called when no more can come."""
        self._stopping.set()

    def run(self) -> None:
        """Reads until `stop`, or until it fails."""
        try:
            sweep = time.monotonic() + _WAIT
            while not self._stopping.is_set():
                self._pass_on(_WAIT)
                if time.monotonic() > sweep:
                    with contextlib.suppress(AgentError):  # there is a next time
                        self._agent.sweep()
                    sweep = time.monotonic() + _WAIT
            self._pass_on(0)
        except AgentError as failure:
            self.failure = failure

    def _pass_on(self, seconds: float) -> None:
        events = self._agent.events(seconds)
        lines = [Line(protocol.encode(event.to_json())) for event in events]
        total = self._agent.totals().events_lost
        if total > self._lost:
            lines.append(lost(total - self._lost))
            self._lost = total
        if lines:
            with self._lock:
                for outlet in self._outlets:
                    outlet.put(lines)
