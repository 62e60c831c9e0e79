# SPDX-License-Identifier: Apache-2.0
"""The three programs of an LSM hook while all processors execute programs.

How much is done depends on HOOKPROOF_INSIDE: 200 is 10,000 executions, 1000 are 500 detaches.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic_ns

import pytest

from hookproof.bench.tiny import program
from refagent.agent import Agent
from refagent.events import Event
from refagent.libbpf import census
from refagent.policy import Policy
from tests.inside.chains import CHECK, require_chains, sha256, until, wait
from tests.inside.load import Execution, Load
from tests.inside.sleepers import Sleepers

#: Tasks that are held in the program that may sleep.
HELD = 4

#: An execution's process, its path and its digest: how often.
Counts = Counter[tuple[int, str, str | None]]


@pytest.fixture(scope="module", autouse=True)
def _can() -> None:
    require_chains()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As the kernel calls it."""
    return tmp_path.resolve()


def test_every_execution_has_one_event_and_its_files_digest(folder: Path, sequences: int) -> None:
    """None is missing, none comes twice, none has another file's digest."""
    files = [program(folder / f"x{number}", f"{number}") for number in range(64)]
    count = 50 * sequences
    events: list[Event] = []
    with Load(files, folder, count) as load, Agent() as agent:
        agent.load(Policy("watch", CHECK, prefix=f"{folder}/", post=True, hash=True))
        load.begin()
        while load.running():
            events += agent.events(0.05)
        events += until(agent, count - len(events))
        totals = agent.totals()
        done = load.stop()
    assert (totals.events_lost, totals.calls_unseen, len(done)) == (0, 0, count)
    digests = [sha256(each) for each in files]
    assert len(set(digests)) == len(files)
    right = Counts((each.pid, str(files[each.file]), digests[each.file]) for each in done)
    found = Counts((each.pid, each.path, each.hash) for each in events)
    assert (found - right, right - found) == ({}, {})


@dataclass
class Round:
    """One agent's life, from before its load until it was gone, by the kernel's clock."""

    loading: int = 0
    loaded: int = 0
    closing: int = 0
    closed: int = 0
    held: list[int] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def must(self, done: Execution) -> bool:
        """Whether there has to be an event of an execution."""
        return self.loaded <= done.begun and done.ended <= self.closing


def test_detaching_while_programs_run_and_some_sleep(folder: Path, sequences: int) -> None:
    """The kernel survives, and each execution while the policy was loaded has its event."""
    files = [program(folder / f"x{number}", f"{number}") for number in range(8)]
    held = program(folder / "held", "held")
    with Load(files, folder) as load, Sleepers.of(held, HELD) as sleepers:
        load.begin()
        rounds = [_round(folder, sleepers) for _ in range(1 + (sequences - 1) // 2)]
        done = load.stop()
    digests = {str(each): sha256(each) for each in [*files, held]}
    paths = [str(each) for each in files]
    ran = 0
    for each, near in zip(rounds, _near(rounds, done), strict=True):
        found = Counts((event.pid, event.path, event.hash) for event in each.events)
        right = {pid: (pid, str(held), digests[str(held)]) for pid in each.held}
        keys = {x: (x.pid, paths[x.file], digests[paths[x.file]]) for x in near}
        throughout = [key for x, key in keys.items() if each.must(x)]
        must = Counts([*right.values(), *throughout])
        may = Counts([*right.values(), *keys.values()])
        assert (must - found, found - may) == ({}, {})
        ran += len(throughout)
    assert ran, "nothing ran meanwhile"


def _near(rounds: Sequence[Round], done: Sequence[Execution]) -> list[list[Execution]]:
    """For each round, of which one begins when the last has ended, what may have an event."""
    found: list[list[Execution]] = [[] for _ in rounds]
    begun, ended = [each.loading for each in rounds], [each.closed for each in rounds]
    for each in done:
        for number in range(bisect_left(ended, each.begun), bisect_right(begun, each.ended)):
            found[number].append(each)
    return found


def _round(folder: Path, sleepers: Sleepers) -> Round:
    """Loads a policy, has tasks held in the chain, and closes the agent meanwhile."""
    now = Round(loading=monotonic_ns())
    with Agent() as agent, ThreadPoolExecutor(1) as pool, _reading(agent, now.events):
        agent.load(Policy("watch", CHECK, prefix=f"{folder}/", post=True, hash=True))
        now.loaded = monotonic_ns()
        sleepers.fall_asleep()
        try:
            now.closing = monotonic_ns()
            gone = pool.submit(agent.close)
            wait(_half_detached, "the first programs are detached")
            assert not gone.done()
        finally:
            now.held = sleepers.wake()
        gone.result(60)
        now.closed = monotonic_ns()
    return now


@contextmanager
def _reading(agent: Agent, events: list[Event]) -> Iterator[None]:
    """Meanwhile another thread takes the agent's events, of which the buffer holds a thousand."""
    stopped = threading.Event()

    def read() -> None:
        while not stopped.is_set():
            events.extend(agent.events(0.05))

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        try:
            yield
        finally:
            stopped.set()
            reader.result(60)
            events.extend(agent.events())


def _half_detached() -> bool:
    """The first programs are, and `send` is not."""
    return sum(each.function == "bpf_lsm_bprm_check_security" for each in census.links()) == 1
