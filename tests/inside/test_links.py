# SPDX-License-Identifier: Apache-2.0
"""What is attached to a function is found, whoever attached it."""

from __future__ import annotations

from pathlib import Path

import pytest

from refagent.agent import Agent
from refagent.libbpf import btf, census
from refagent.policy import Policy
from tests.inside.things import SENSOR, program_on

RMDIR = "security_path_rmdir"


def test_a_kprobe_of_the_dead_is_seen(base: Path) -> None:
    """By its link, where the kernel tells (6.6); its perf event is nobody's any more."""
    if btf.vmlinux().enumerator("BPF_PERF_EVENT_KPROBE") is None:
        pytest.skip("this kernel does not tell what a perf event's link is on")

    def seen() -> list[tuple[str, int]]:
        return [(each.kind, each.program) for each in census.links() if each.function == RMDIR]

    agent = Agent(base)
    agent.load(Policy("a", RMDIR, uid=54321, post=True))
    wanted = [("kprobe", program_on(RMDIR, SENSOR).id)]
    assert seen() == wanted
    agent.leave()
    assert seen() == wanted
    with Agent(base):
        assert seen() == wanted
    assert seen() == []
