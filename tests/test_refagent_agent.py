# SPDX-License-Identifier: Apache-2.0
"""The agent as many threads use it: who asks never waits for who changes something."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from refagent import hooks
from refagent.agent import Agent, Status
from refagent.errors import Refused
from refagent.events import Events, Names
from refagent.policy import Policy
from refagent.shared import Totals

POLICY = Policy("a", "security_path_mkdir", path="/x", override=1)


@pytest.mark.parametrize("attempt", [Agent.load, lambda agent, _: agent.unload("a")])
def test_who_asks_does_not_wait_for_a_load(
    attempt: Callable[[Agent, Policy], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's part of a load is a wait for this test; a second change waits for it."""
    loading, go_on = threading.Event(), threading.Event()

    def slow(_: str) -> hooks.Hook:
        loading.set()
        assert go_on.wait(60)
        raise Refused("slowly")

    monkeypatch.setattr(hooks, "find", slow)
    with Agent() as agent, ThreadPoolExecutor() as pool:
        load = pool.submit(agent.load, POLICY)
        assert loading.wait(60)
        second = pool.submit(attempt, agent, POLICY)
        try:
            assert pool.submit(agent.policies).result(60) == []
            assert pool.submit(agent.states).result(60) == []
            assert pool.submit(agent.status).result(60) == Status((), (), {}, Totals(0, 0, 0))
            assert pool.submit(agent.events).result(60) == []
            with pytest.raises(Refused, match="no policy a is loaded"):
                pool.submit(agent.counts, "a").result(60)
            assert not second.done()
        finally:
            go_on.set()
        with pytest.raises(Refused, match="slowly"):
            load.result(60)
        with pytest.raises(Refused):
            second.result(60)


def test_what_is_unknown_makes_no_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refagent.agent.SharedMaps", None)
    with Agent() as agent, pytest.raises(Refused, match="no policy a is loaded"):
        agent.counts("a")


def descriptors() -> set[str]:
    gc.collect()
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_a_wait_for_events_ends_in_time_and_leaves_no_descriptor() -> None:
    before = descriptors()
    events = Events(Names())
    assert events.read(0.01) == []
    events.close()
    del events
    assert descriptors() == before
