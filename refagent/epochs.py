# SPDX-License-Identifier: Apache-2.0
"""The calls that are within a chain: who is there is waited for by turning an epoch over.

A call is counted in the epoch in which it is given a frame, and again when it gives that back
(bpf/chain.h). All of that is in maps, so that an agent can go on where one was killed that waited.
What a stranger's program denies in between gives its frame back with the thread's next call, if
there is one. So a frame that is not given back is no proof that its call is there: the task is
looked at as well (refagent/inside.py), and never concluded from how long something takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from refagent import inside, layout
from refagent.errors import AgentError
from refagent.libbpf.maps import Map

#: How long a task may be asleep in the ima program when it has to end: a slow disk's time.
_PATIENCE: Final = 30.0

_SLOT: Final = bytes(4)


class Patience:
    """How long one request may wait for tasks in chains: all of its waits, in all chains."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """A request begins."""
        self._end = time.monotonic() + _PATIENCE

    @property
    def over(self) -> bool:
        """Whether it is to wait no longer."""
        return time.monotonic() > self._end


class Epochs:
    """What the programs of one chain tell of its calls; for one thread at a time.

    Args:
        function: of the chain, for errors.
        settings: the map of that name.
        chains: likewise.
        frames: likewise.
        patience: the agent's.

    Attributes:
        settled: whether none is inside that has not been waited for, of a chain that is new, or
            when the last wait ended; of one that was there, whether it was empty then.
    """

    def __init__(
        self, function: str, settings: Map, chains: Map, frames: Map, patience: Patience
    ) -> None:
        self._function, self._settings, self._chains = function, settings, chains
        self._frames, self._patience = frames, patience
        self.settled = not any(map(self._taken, (0, 1)))

    @property
    def occupied(self) -> bool:
        """Whether a call is in the chain.

        Raises:
            BpfError: the kernel failed.
        """
        with inside.Looker(self._frames) as looker:
            return any(self._in(epoch, looker) is not None for epoch in (0, 1))

    def told(self) -> tuple[Any, ...]:
        """What the programs tell of calls of the agent's own: how many, and the rest of CHAIN."""
        return self._told()[6:]

    def drain(self, settle: Callable[[], None]) -> None:
        """Returns when all calls have ended that are in the chain now.

        Args:
            settle: returns when each program has ended that runs now and does not sleep.

        Raises:
            AgentError: one has been there for too long.
            BpfError: the kernel failed.
        """
        self.settled = False
        settle()  # who ran the filter has been given a frame, or none
        now = self._epoch()
        # Of whom an agent had not seen the end when it was killed, or had no more patience.
        self._wait(1 - now)
        self._settings.set(_SLOT, layout.CHAIN_SETTINGS.pack(1 - now))
        self._wait(now)
        settle()  # who ran `send` has come to its end
        self.settled = True

    def _wait(self, epoch: int) -> None:
        with inside.Looker(self._frames) as looker:
            while (who := self._in(epoch, looker)) is not None:
                if self._patience.over:
                    raise AgentError(
                        f"{self._function}: {who} for {_PATIENCE:.0f} s; "
                        "what it uses stays in the kernel"
                    )
                time.sleep(0.002)

    def _in(self, epoch: int, looker: inside.Looker) -> str | None:
        """Who is in the chain, of those who came in an epoch; None: nobody."""
        if not self._taken(epoch):
            return None
        if self._asleep(epoch):
            return "a task has been asleep in the ima program"
        thread = looker.look().get(epoch)
        return None if thread is None else f"thread {thread} has been between two programs"

    def _epoch(self) -> int:
        raw = self._settings.get(_SLOT) or bytes(layout.CHAIN_SETTINGS.size)
        epoch: int = layout.CHAIN_SETTINGS.unpack(raw)[0]
        return epoch & 1

    def _taken(self, epoch: int) -> int:
        """Calls that were given a frame in an epoch and have not given it back."""
        told = self._told()
        taken: int = told[epoch] - told[2 + epoch]
        return taken

    def _asleep(self, epoch: int) -> int:
        asleep: int = self._told()[4 + epoch]
        return asleep

    def _told(self) -> tuple[Any, ...]:
        """What the programs tell: layout.CHAIN."""
        return layout.CHAIN.unpack(self._chains.get(_SLOT) or bytes(layout.CHAIN.size))
