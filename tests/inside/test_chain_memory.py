# SPDX-License-Identifier: Apache-2.0
"""An LSM hook's chain where the kernel has no memory for a call's frame."""

from __future__ import annotations

import errno
import mmap
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest

from refagent import trampoline
from refagent.agent import Agent
from refagent.policy import Policy
from tests.inside.chains import MAPPED, require_chains, sha256, until, wait
from tests.inside.memory import group
from tests.inside.things import error_of

#: More than the frames that the kernel has ready for a processor.
THREADS = 24
WHY = "there was no memory to keep the call in mind"


@pytest.fixture(scope="module", autouse=True)
def _can() -> None:
    require_chains()
    version = trampoline.running()
    if (version.major, version.minor) < (6, 4):
        pytest.skip("a cgroup's limit does not hold before 08a7ce384e33 (6.4): nothing fails")


def test_a_call_without_a_frame_is_denied_and_told_without_a_digest(tmp_path: Path) -> None:
    """And when there is memory again, there are digests again."""
    folder = tmp_path.resolve()
    cgroups, seen, denied, other = (
        folder / name for name in ("cgroups", "seen", "denied", "other")
    )
    cgroups.mkdir()
    for each in (seen, denied, other):
        each.write_text(each.name)
    limit = Barrier(THREADS + 1, timeout=60)

    def call() -> list[int]:
        os.sched_setaffinity(0, {0})
        found = [_map(other)]  # a call that no policy fits: what else a call needs is the thread's
        limit.wait()
        limit.wait()
        found += [_map(seen), _map(denied)]
        return found

    with group(cgroups) as charged, Agent() as agent, ThreadPoolExecutor(THREADS) as pool:
        with charged.joined():
            agent.load(Policy("seen", MAPPED, path=str(seen), post=True, hash=True))
            deny = Policy("denied", MAPPED, path=str(denied), override=errno.EACCES, post=True)
            agent.load(replace(deny, digest_not_in=(sha256(seen),)))
        calls = [pool.submit(call) for _ in range(THREADS)]
        limit.wait()
        with charged.exhausted():
            limit.wait()
            assert [each.result(60) for each in calls] == [[0, 0, errno.EACCES]] * THREADS
            events = until(agent, 2 * THREADS)

        def hashed() -> bool:
            _map(seen)
            return until(agent, 1)[0].hash == sha256(seen)

        wait(hashed, "there is memory again")
        totals = agent.totals()
    assert (totals.calls_unseen, totals.events_lost) == (0, 0)
    without = {each.tid for each in events if each.no_hash == f"ENOMEM: {WHY}"}
    assert without, "the kernel had memory for all"
    found = Counter((each.tid, each.path, each.hash, each.decided) for each in events)
    right = Counter(
        (tid, str(path), None if tid in without else sha256(path), decided)
        for tid in {each.tid for each in events}
        for path, decided in ((seen, None), (denied, "denied"))
    )
    assert (found - right, right - found) == ({}, {})
    assert len(events) == 2 * THREADS


def _map(path: Path) -> int:
    """0 or the errno."""
    with path.open("rb") as file:
        return error_of(_mapped, file.fileno())


def _mapped(descriptor: int) -> None:
    mmap.mmap(descriptor, 0, mmap.MAP_PRIVATE, mmap.PROT_READ).close()
