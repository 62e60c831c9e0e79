# SPDX-License-Identifier: Apache-2.0
"""A load that fails half-way, at each of its steps: all is as before, and the next one works."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from refagent import layout, shared
from refagent.agent import Agent, Status
from refagent.errors import AgentError, BpfError, Refused
from refagent.libbpf import ringbuf
from refagent.libbpf.maps import Map
from refagent.policy import Policy
from tests.inside.chains import CHECK, require_chains
from tests.inside.test_chain import run
from tests.inside.things import Inventory, error_of

MKDIR = "security_path_mkdir"


def policies(place: Path) -> dict[str, list[Policy]]:
    """What is there before, and last what is loaded, by what that has to do."""
    binary = os.readlink("/proc/self/exe")  # noqa: PTH115
    there = Policy("there", MKDIR, path=f"{place}/there", override=errno.EXDEV)
    watching = Policy("there", MKDIR, path=f"{place}/there", monitor=True)
    new = Policy("new", MKDIR, path=str(place), override=errno.EPERM, post=True)
    return {
        "the first": [Policy("new", MKDIR, path=str(place), override=errno.EPERM, binary=binary)],
        "one beside it": [there, new],
        "the first override": [watching, new],
        "one above it": [there, Policy("new", MKDIR, prefix=str(place), override=errno.EPERM)],
    }


KINDS = list(policies(Path("/")))


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """So many more descriptors can be had: the limit is on their numbers, so no gap is left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    filling = [os.dup(0)]
    while filling[-1] < len(os.listdir("/proc/self/fd")) - 2:  # noqa: PTH208
        filling.append(os.dup(0))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (filling[-1] + 1 + count, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in filling:
            os.close(each)


@contextlib.contextmanager
def failing_write(number: int) -> Iterator[None]:
    """The kernel has no memory for the write to a map that comes after so many."""
    written = 0
    real = Map.set

    def write(self: Map, key: bytes, value: bytes) -> None:
        nonlocal written
        written += 1
        if written == number + 1:
            raise BpfError(f"update map {self.name}", errno.ENOMEM, "as the test wants it")
        real(self, key, value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Map, "set", write)
        yield


def state(agent: Agent) -> tuple[list[Policy], Status, list[str]]:
    """All that a failure may not change; descriptors and threads among it."""
    return agent.policies(), agent.status(), sorted(Inventory.now().things.elements())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("failing", [descriptors_left, failing_write])
def test_a_load_that_fails_changes_nothing(
    tmp_path: Path,
    kind: str,
    failing: Callable[[int], contextlib.AbstractContextManager[None]],
) -> None:
    *there, new = policies(tmp_path)[kind]
    (tmp_path / "there").mkdir()
    failures: list[AgentError] = []
    with Agent() as agent:
        for each in there:
            agent.load(each)
        before = state(agent)
        held = errno.EXDEV if there and not there[0].monitor else 0
        while "new" not in {each.name for each in agent.policies()}:
            place = tmp_path / "there" / f"{len(failures)}"
            with failing(len(failures)):
                try:
                    agent.load(new)
                except AgentError as failure:
                    failures.append(failure)
            if "new" not in {each.name for each in agent.policies()}:
                assert state(agent) == before, failures[-1]
                assert error_of(os.mkdir, tmp_path / f"{len(failures)}") == 0
                assert error_of(os.mkdir, place) == held
        assert error_of(os.mkdir, tmp_path / "denied") == errno.EPERM
        assert error_of(os.mkdir, tmp_path / "there" / "last") in {held, errno.EPERM}
    # The kernel could, so these are no refusals.
    assert not [each for each in failures if isinstance(each, Refused)]
    # Only what makes no map and no program needs no descriptor.
    assert failures or (kind, failing) == ("one beside it", descriptors_left)


@pytest.mark.parametrize(
    ("failing", "pinned"),
    list(itertools.product((descriptors_left, failing_write), (False, True))),
)
def test_what_a_chain_lacks_is_no_refusal(
    tmp_path: Path,
    base: Path,
    *,
    pinned: bool,
    failing: Callable[[int], contextlib.AbstractContextManager[None]],
) -> None:
    """The kernel has such chains; and nothing is left of what there was memory for."""
    require_chains()
    failures: list[AgentError] = []
    with Agent(base if pinned else None) as agent:
        before = state(agent)
        while not agent.policies():
            with failing(len(failures)):
                try:
                    agent.load(Policy("new", CHECK, path=f"{tmp_path}/x", post=True))
                except AgentError as failure:
                    failures.append(failure)
            if not agent.policies():
                assert state(agent) == before, failures[-1]
    assert failures
    assert not [each for each in failures if isinstance(each, Refused)]


@pytest.mark.parametrize("hook", [MKDIR, CHECK])
@pytest.mark.parametrize("way", ["unload", "disable"])
def test_an_unload_that_fails_changes_nothing(tmp_path: Path, hook: str, way: str) -> None:
    """Another policy's path begins with this one's, so that it takes another table."""
    place = tmp_path.resolve() / "x"

    def call() -> int:
        if hook == MKDIR:
            return error_of(os.mkdir, place)
        place.write_text("#!/bin/true\n")
        place.chmod(0o755)
        return run(place)

    if hook == CHECK:
        require_chains()
    with Agent() as agent:
        agent.load(Policy("wide", hook, prefix=str(place.parent), override=errno.EPERM))
        agent.load(Policy("long", hook, path=f"{place.parent}/longer", monitor=True, post=True))
        before = state(agent)
        with descriptors_left(0), pytest.raises(BpfError) as caught:
            getattr(agent, way)("wide")
        assert caught.value.lack
        assert state(agent) == before
        assert call() == errno.EPERM
        assert agent.counts("wide").denied == 1
        getattr(agent, way)("wide")
        assert call() == 0


def test_events_come_without_a_descriptor_to_wait_with(place: Path) -> None:
    with Agent() as agent:
        agent.load(Policy("watch", MKDIR, path=str(place), post=True))
        with descriptors_left(0):
            assert agent.events(0.01) == []
            (place / "x").mkdir()
            assert len(agent.events(1)) == 1


def test_of_many_events_so_many_are_taken_at_a_time(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or programs that are faster than the reader would never let it come to an end."""
    monkeypatch.setattr(ringbuf, "_MOST", 2)
    with Agent() as agent:
        agent.load(Policy("watch", MKDIR, path=str(place), post=True))
        for number in range(5):
            (place / str(number)).mkdir()
        assert [len(agent.events()) for _ in range(4)] == [2, 2, 1, 0]


def test_places_of_refused_loads_are_given_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if no unload comes in between, for which something would be waited for."""
    monkeypatch.setattr(shared, "_PLACES", layout.RULES_PER_PATH + 2)
    with Agent() as agent:
        for number in range(layout.RULES_PER_PATH):
            agent.load(Policy(f"{number}", MKDIR, path=str(place), override=errno.EPERM))
        for _ in range(4):
            with pytest.raises(Refused, match="fit one path already"):
                agent.load(Policy("too many", MKDIR, path=str(place), override=errno.EPERM))
        for name in "ab":
            agent.load(Policy(name, MKDIR, path=f"{place}/{name}", monitor=True))
        with pytest.raises(Refused, match="policies are loaded already"):
            agent.load(Policy("c", MKDIR, path=f"{place}/c", monitor=True))
