# SPDX-License-Identifier: Apache-2.0
"""The calls that are within a chain: who is there is waited for by turning an epoch over.

A call is counted in the epoch in which it is given a frame, and again when it gives that back
(bpf/chain.h). All of that is in maps, so that an agent can go on where one was killed that waited.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from refagent import layout
from refagent.errors import AgentError
from refagent.libbpf.maps import Map

#: How long a task may be asleep in the ima program when it has to end: a slow disk's time.
_PATIENCE: Final = 30.0
#: And how long a call may then take to the chain's end, if it comes there at all: a stranger's
#: program may have denied it in between, which nobody tells.
_LAST_STEPS: Final = 1.0

_SLOT: Final = bytes(4)


class Epochs:
    """What the programs of one chain tell of its calls; for one thread at a time.

    Args:
        function: of the chain, for errors.
        settings: the map of that name.
        chains: likewise.

    Attributes:
        settled: whether none is inside that has not been waited for, of a chain that is new, or
            when the last wait ended; of one that was there, whether it was empty then.
    """

    def __init__(self, function: str, settings: Map, chains: Map) -> None:
        self._function, self._settings, self._chains = function, settings, chains
        self._denied = [0, 0]  # calls of an epoch that a stranger has denied inside the chain
        self.settled = not any(map(self._inside, (0, 1)))

    @property
    def asleep(self) -> int:
        """How many tasks are in the ima program."""
        return sum(map(self._asleep, (0, 1)))

    def told(self) -> tuple[Any, ...]:
        """What the programs tell of calls of the agent's own: how many, and the rest of CHAIN."""
        return self._told()[6:]

    def drain(self, settle: Callable[[], None]) -> None:
        """Returns when all calls have ended that are in the chain now.

        Args:
            settle: returns when each program has ended that runs now and does not sleep.

        Raises:
            AgentError: a task has been asleep there for too long.
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
        # What a stranger denied is given back with the thread's next call, if there is one.
        self._denied[epoch] = min(self._denied[epoch], self._inside(epoch))
        start = awake = time.monotonic()
        while (asleep := self._asleep(epoch)) or self._inside(epoch) > self._denied[epoch]:
            now = time.monotonic()
            if asleep:
                awake = now
            if now - start > _PATIENCE:
                raise AgentError(
                    f"{self._function}: a task has been asleep in the ima program for "
                    f"{_PATIENCE:.0f} s; what it uses stays in the kernel"
                )
            if now - awake > _LAST_STEPS:
                self._denied[epoch] = self._inside(epoch)
            time.sleep(0.002)

    def _epoch(self) -> int:
        raw = self._settings.get(_SLOT) or bytes(layout.CHAIN_SETTINGS.size)
        epoch: int = layout.CHAIN_SETTINGS.unpack(raw)[0]
        return epoch & 1

    def _inside(self, epoch: int) -> int:
        """Calls that were given a frame in an epoch and have not given it back."""
        told = self._told()
        inside: int = told[epoch] - told[2 + epoch]
        return inside

    def _asleep(self, epoch: int) -> int:
        asleep: int = self._told()[4 + epoch]
        return asleep

    def _told(self) -> tuple[Any, ...]:
        """What the programs tell: layout.CHAIN."""
        return layout.CHAIN.unpack(self._chains.get(_SLOT) or bytes(layout.CHAIN.size))
