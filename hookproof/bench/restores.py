# SPDX-License-Identifier: Apache-2.0
"""A thousand restores in a row, some at a time: none may fail, and nothing may grow."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from hookproof.bench import boots, memory
from hookproof.bench.setup import Setup
from hookproof.bench.spread import Spread
from hookproof.bench.table import Row, seconds
from vm import store
from vm.errors import HostProblem
from vm.kernel import Image

COUNT: Final = 1000
_PARALLEL: Final = 2
#: Restores before the first look: until then threads and caches fill.
_BEFORE: Final = 200
#: How much more may be held after all than after the first ones, in the units of `Holding`: a page
#: and half a kilobyte of disk for each restore are too much. Of what is counted, one is.
_MORE: Final = {"memory": 4.0, "disk": 0.5}


@dataclass(frozen=True)
class Holding:
    """What this process holds between two restores.

    Attributes:
        memory: MiB, resident.
        descriptors: open ones.
        threads: of its own.
        processes: started and not ended.
        disk: MiB of the cache.
    """

    memory: float
    descriptors: int
    threads: int
    processes: int
    disk: float

    @classmethod
    def now(cls) -> Holding:
        """Looks, when all that is of no use any more has been given back to the kernel.

        What was measured before leaves gaps in the heap, in which pages come and go.
        """
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        me = os.getpid()
        return cls(
            memory.sizes(me, "status").get("VmRSS", 0.0),
            len(list(Path("/proc/self/fd").iterdir())),
            threading.active_count(),
            len(memory.below(me)),
            sum(memory.disk(store.root()).values()),
        )


@dataclass(frozen=True)
class Restores:
    """What came of them.

    Attributes:
        kernel: its name.
        count: how many.
        parallel: at a time.
        restore: seconds of each, start to first answer.
        before: held after the first ones.
        after: held after all.
    """

    kernel: str
    count: int
    parallel: int
    restore: Spread
    before: Holding
    after: Holding

    def to_json(self) -> Any:
        """As docs/results.md has it."""
        return {**asdict(self), "growth": self._growth}

    def rows(self) -> list[Row]:
        """Their time, and what grew."""
        what = f"{self.kernel}: {self.count} restores, {self.parallel} at a time"
        return [Row(what, seconds(self.restore), f"growth: {_listed(self._growth) or 'none'}")]

    def check(self) -> None:
        """Sees that nothing has grown.

        Raises:
            HostProblem: something has, by more than `_MORE`.
        """
        grown = {name: by for name, by in self._growth.items() if by > _MORE.get(name, 0)}
        if grown:
            what = f"more is held after {self.count} restores than before: {_listed(grown)}"
            hint = "find what a restore leaves behind: hookproof/bench/restores.py"
            raise HostProblem(what, where=self.kernel, hint=hint)

    @property
    def _growth(self) -> dict[str, float]:
        first, last = asdict(self.before), asdict(self.after)
        return {name: last[name] - first[name] for name in first}


def measure(setup: Setup) -> Iterator[Restores]:
    """Restores; one result.

    Raises:
        Problem: a restore failed, or left something behind.
    """
    image = setup.image(setup.one)
    boots.snapshot(setup, image).save()
    with ThreadPoolExecutor(_PARALLEL) as pool:
        _many(pool, setup, image, _BEFORE)
        Holding.now()  # to walk through the cache takes memory, too, which is not given back
        before = Holding.now()
        setup.say(f"restores: {COUNT} of {setup.one.name}, {_PARALLEL} at a time")
        each = _many(pool, setup, image, COUNT)
        after = Holding.now()
    found = Restores(setup.one.name, COUNT, _PARALLEL, Spread.of(each), before, after)
    yield found
    found.check()


def _listed(growth: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {by:+.3g}" for name, by in growth.items() if by)


def _many(pool: ThreadPoolExecutor, setup: Setup, image: Image, count: int) -> list[float]:
    return list(pool.map(lambda _: _one(setup, image), range(count)))


def _one(setup: Setup, image: Image) -> float:
    begun = time.monotonic()
    with boots.snapshot(setup, image):
        return time.monotonic() - begun
