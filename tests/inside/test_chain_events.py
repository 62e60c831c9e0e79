# SPDX-License-Identifier: Apache-2.0
"""The events of an LSM hook's chain: how many there are of a call, and of which file they tell."""

from __future__ import annotations

import mmap
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hookproof.bench.tiny import program
from refagent.agent import Agent
from refagent.policy import Policy
from tests.inside.chains import CHECK, require_chains, sha256, until
from tests.inside.forked import forked

#: As many as can be about one path.
POLICIES = 16


@pytest.fixture(scope="module", autouse=True)
def _can() -> None:
    require_chains()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As the kernel calls it."""
    return tmp_path.resolve()


def test_a_call_gives_one_event_however_many_policies_ask(folder: Path) -> None:
    path = program(folder / "x")
    names = tuple(f"p{number}" for number in range(POLICIES))
    with Agent() as agent:
        for name in names:
            agent.load(Policy(name, CHECK, path=str(path), post=True, hash=name == names[-1]))
        assert [_status(path)[1] for _ in range(3)] == [0, 0, 0]
        events = until(agent, 3)
    assert [(each.policies, each.hash) for each in events] == [(names, sha256(path))] * 3


def test_the_digest_is_of_what_is_run_whoever_has_its_name(folder: Path, sequences: int) -> None:
    """The file is replaced all the time; with which status it ends tells what was run."""
    files = [program(folder / f"x{status}", status=status) for status in range(2)]
    path = folder / "x"
    path.hardlink_to(files[0])
    with _replacing(path, files), Agent() as agent:
        agent.load(Policy("watch", CHECK, path=str(path), post=True, hash=True))
        ran = dict(_status(path) for _ in range(20 * sequences))
        events = until(agent, len(ran))
    digests = [sha256(each) for each in files]
    right = Counter((pid, digests[status]) for pid, status in ran.items())
    assert Counter((each.pid, each.hash) for each in events) == right
    assert set(ran.values()) == {0, 1}, "it was always the same file"


@contextmanager
def _replacing(path: Path, files: list[Path]) -> Iterator[None]:
    """Meanwhile another process gives the path to one file after the other."""
    stopped = mmap.mmap(-1, 1)  # shared with it
    other = path.with_name("new")

    def replace() -> None:
        while not stopped[0]:
            for each in reversed(files):
                other.hardlink_to(each)
                other.rename(path)

    pid = forked(replace)
    try:
        yield
    finally:
        stopped[0] = 1
        assert os.waitpid(pid, 0) == (pid, 0)


def _status(path: Path) -> tuple[int, int]:
    """Executes it; its process's id, and the status that it ends with."""
    pid = os.posix_spawn(path, [str(path)], {})
    return pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
