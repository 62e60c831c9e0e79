# SPDX-License-Identifier: Apache-2.0
"""Calls on every CPU while policies come and go: none is lost, none is denied for nothing.

But for those that the kernel keeps from our programs, and counts: an override is skipped where a
task was preempted inside it on the same CPU, and a sensor where one was inside a map's system call.
An entry whose override was skipped is taken by the thread's next call if the sensor is skipped
there. It takes a kernel that preempts itself, as 7.3 does (PREEMPT_LAZY); 5.10 and 6.12 do not.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refagent.agent import Agent
from refagent.libbpf import census
from refagent.libbpf._libbpf import lib
from refagent.libbpf.maps import Map, Shape
from refagent.policy import Policy
from refagent.shared import Counts
from tests.inside.forked import forked
from tests.inside.things import error_of

MKDIR = "security_path_mkdir"
#: Two for each CPU, so that each is preempted in the middle of a call once in a while.
CALLERS = 2 * len(os.sched_getaffinity(0))


class Callers:
    """Threads that make folders in turns, where it is denied and where it is not."""

    def __init__(self, denied: Path, allowed: Path, at_least: int) -> None:
        self._denied, self._allowed, self._at_least = denied, allowed, at_least
        self._over = threading.Event()

    @contextmanager
    def calling(self) -> Iterator[list[Future[Counter[tuple[str, int]]]]]:
        """They have ended with the block; the results are (where, errno) and how often."""
        with ThreadPoolExecutor(CALLERS) as pool:
            try:
                yield [pool.submit(self._call, number) for number in range(CALLERS)]
            finally:
                self._over.set()

    def _call(self, number: int) -> Counter[tuple[str, int]]:
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cpus[number % len(cpus)]})  # of this thread
        found: Counter[tuple[str, int]] = Counter()
        while not self._over.is_set() or found.total() < self._at_least:
            name = f"{number}-{found.total()}"
            found["denied", error_of(os.mkdir, self._denied / name)] += 1
            found["allowed", error_of(os.mkdir, self._allowed / name)] += 1
        return found


@dataclass(frozen=True)
class Total:
    """What came of all calls, and what the kernel kept from our programs.

    Attributes:
        denied: of those that are to be denied.
        passed: of these too.
        wrong: denied, of those that are to be allowed.
        sensor_missed: calls that the sensor did not see.
        missed: and those together with what the override did not.
    """

    denied: int
    passed: int
    wrong: int
    sensor_missed: int
    missed: int

    @classmethod
    def of(cls, results: list[Future[Counter[tuple[str, int]]]]) -> Total:
        """To be called while the programs are there, of that one function."""
        found: Counter[tuple[str, int]] = sum((each.result() for each in results), Counter())
        misses = {each.name[:3]: each.recursion_misses for each in census.programs()}
        sensor, override = misses["hps"], misses["hpo"]
        assert found.keys() <= {(w, n) for w in ("denied", "allowed") for n in (errno.EPERM, 0)}
        return cls(
            found["denied", errno.EPERM],
            found["denied", 0],
            found["allowed", errno.EPERM],
            sensor,
            sensor + override,
        )

    def check(self, counts: Counts) -> None:
        """Whether the policy's counts are what came, and only what was missed got through."""
        assert self.passed <= self.missed
        assert self.wrong <= self.missed
        assert counts.denied == self.denied + self.wrong
        assert 0 <= self.denied + self.passed - counts.matched <= self.sensor_missed
        assert (counts.outvoted, counts.lost) == (0, 0)


def folders(place: Path) -> tuple[Path, Path]:
    denied, allowed = place / "denied", place / "allowed"
    denied.mkdir()
    allowed.mkdir()
    return denied, allowed


def test_calls_that_map_writes_keep_from_a_sensor_are_counted(tmp_path: Path) -> None:
    # A kernel that preempts itself can have a writer stopped in the middle for a while.
    cpu = min(os.sched_getaffinity(0))

    def write() -> None:
        os.sched_setaffinity(0, {cpu})
        with Map.create("test_writer", Shape(lib.BPF_MAP_TYPE_HASH, 4, 4096, 64)) as table:
            while True:
                for key in range(64):
                    table.set(key.to_bytes(4, "little"), bytes(4096))

    def call() -> Counter[int]:
        os.sched_setaffinity(0, {cpu})  # of this thread
        return Counter(error_of(os.mkdir, tmp_path / f"{number}") for number in range(20_000))

    writer = forked(write)
    try:
        with Agent() as agent, ThreadPoolExecutor(1) as pool:
            agent.load(Policy(name="deny", hook=MKDIR, path=str(tmp_path), override=errno.EPERM))
            found = pool.submit(call).result()
            passed = found.pop(0, 0)
            assert {*found} == {errno.EPERM}
            assert agent.status().skipped == {MKDIR: passed}
            assert agent.counts("deny").denied == found[errno.EPERM]
    finally:
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)


def test_a_policy_holds_while_others_come_and_go(tmp_path: Path) -> None:
    denied, allowed = folders(tmp_path)
    # Of these the first writes over the entry of what is denied, the second makes a new table,
    # the third and the fourth are beside it, the last is on another function.
    others = (
        Policy("same", MKDIR, path=str(denied), override=errno.EXDEV),
        Policy("above", MKDIR, prefix=str(tmp_path), monitor=True),
        Policy("every", MKDIR, uid=1000, override=errno.EXDEV),
        Policy("beside", MKDIR, path=f"{denied}/x", override=errno.EXDEV),
        Policy("elsewhere", "security_path_symlink", override=errno.EXDEV),
    )
    with Agent() as agent:
        agent.load(Policy("held", MKDIR, path=str(denied), override=errno.EPERM))
        with Callers(denied, allowed, at_least=200).calling() as results:
            for _ in range(3):
                for each in others:
                    agent.load(each)
                agent.disable("same")
                agent.enable("same")
                for each in others:
                    agent.unload(each.name)
        total = Total.of(results)
        total.check(agent.counts("held"))
    assert total.denied >= 90 * CALLERS


def test_an_update_leaves_no_moment_in_which_nothing_holds(tmp_path: Path) -> None:
    """The new version is loaded before the old one is unloaded; all calls are denied throughout."""
    denied, allowed = folders(tmp_path)
    # A change of one is an entry written over, or another table, or nothing but the order.
    versions: tuple[dict[str, Any], ...] = (
        {"path": str(denied)},
        {"path": str(denied), "uid": os.getuid()},
        {"prefix": str(denied)},
        {"prefix": str(denied), "post": True},
        {"path": str(denied), "binary": os.readlink("/proc/self/exe")},  # noqa: PTH115
    )
    with Agent() as agent:
        agent.load(Policy("v0", MKDIR, override=errno.EPERM, **versions[0]))
        with Callers(denied, allowed, at_least=200).calling() as results:
            for number in range(1, 3 * len(versions)):
                how = versions[number % len(versions)]
                agent.load(Policy(f"v{number}", MKDIR, override=errno.EPERM, **how))
                agent.unload(f"v{number - 1}")
        total = Total.of(results)
    assert total.denied >= 90 * CALLERS
    assert total.passed <= total.missed
    assert total.wrong <= total.missed


def test_every_call_is_told_or_counted_as_lost(tmp_path: Path) -> None:
    denied, allowed = folders(tmp_path)
    with Agent() as agent:
        agent.load(Policy("a", MKDIR, path=str(denied), override=errno.EPERM, post=True))
        # More than the buffer of 1 MiB takes, where nobody reads it.
        with Callers(denied, allowed, at_least=2 * 2800 // CALLERS).calling() as results:
            pass
        counts = agent.counts("a")
        Total.of(results).check(counts)
        lost = agent.status().totals.events_lost
        assert len(agent.events()) + lost == counts.matched
        assert lost > 0
        # And while somebody does.
        seen, read = [], threading.Event()

        def reader() -> None:
            while not read.is_set():
                seen.extend(agent.events(0.05))

        thread = threading.Thread(target=reader)
        thread.start()
        try:
            with Callers(denied, allowed, at_least=400).calling():
                pass
        finally:
            read.set()
            thread.join()
        seen += agent.events()
        lost = agent.status().totals.events_lost - lost
        assert len(seen) + lost == agent.counts("a").matched - counts.matched
    assert len({each.tid for each in seen}) == CALLERS
    assert {(each.path, each.override, each.policies) for each in seen} == {
        (str(denied), errno.EPERM, ("a",))
    }


def test_several_threads_load_and_unload(tmp_path: Path) -> None:
    functions = (MKDIR, "security_path_symlink")

    def work(number: int) -> None:
        os.sched_setaffinity(0, {cpus[number]})  # alone there, so that nothing is missed
        place = tmp_path / f"{number}"
        place.mkdir()
        for turn in range(6):
            function = functions[(number + turn) % 2]
            name = f"{number}-{turn}"
            agent.load(Policy(name, function, path=str(place), override=errno.EPERM))
            denied = error_of(os.mkdir, place / name) if function == MKDIR else None
            assert denied in {None, errno.EPERM}
            if denied is None:
                assert error_of(os.symlink, "x", place / name) == errno.EPERM
            assert agent.counts(name).denied == 1
            agent.unload(name)

    cpus = sorted(os.sched_getaffinity(0))
    with Agent() as agent, ThreadPoolExecutor(len(cpus)) as pool:
        for each in [pool.submit(work, number) for number in range(len(cpus))]:
            each.result()
        assert agent.policies() == []
