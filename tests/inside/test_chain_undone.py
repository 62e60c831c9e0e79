# SPDX-License-Identifier: Apache-2.0
"""A chain that cannot be made, and cannot be undone either: what it needs stays, and is ended."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from refagent import naming, probes
from refagent.agent import Agent
from refagent.chain import PROGRAMS
from refagent.errors import AgentError
from refagent.libbpf import btf, census, ids
from refagent.libbpf._libbpf import ffi, lib
from refagent.policy import Policy
from tests.inside.chains import CHECK, require_chains, until
from tests.inside.test_chain import run, script
from tests.inside.test_pins import killed

FUNCTION = "bpf_lsm_bprm_check_security"


@pytest.fixture(scope="module", autouse=True)
def _can() -> None:
    require_chains()


@contextlib.contextmanager
def room_for(count: int) -> Iterator[None]:
    """Others have all places of the hook but so many."""
    found = btf.vmlinux().function(FUNCTION)
    (answer,) = probes.run(("trampoline_limit",))
    assert found is not None
    assert isinstance(answer.value, int)
    with contextlib.ExitStack() as stack:
        numbers: list[int] = []
        stack.callback(ids.wait_gone, numbers, ())
        for _ in range(answer.value - count):
            program = lib.hp_return_zero_load(
                lib.BPF_TRACE_FENTRY, found.btf_id, b"stranger", ffi.NULL, 0
            )
            stack.callback(os.close, program)
            numbers.append(ids.program_id(program))
            stack.callback(os.close, lib.bpf_raw_tracepoint_open(ffi.NULL, program))
        yield


def programs() -> set[str]:
    """The chain's that are in the kernel."""
    names = {naming.on(CHECK)(each): each for each in PROGRAMS}
    return {names[each.name] for each in census.programs() if each.name in names}


def attached() -> int:
    return sum(each.function == FUNCTION and each.kind == "lsm" for each in census.links())


def keep(base: Path, *folder: str) -> Policy:
    """Nothing can be removed from a folder, by nobody."""
    place = base.joinpath("__lsm__", "bprm_check_security", *folder)
    return Policy("keep", "security_path_unlink", path=str(place), override=errno.EPERM)


@pytest.mark.parametrize("folder", [("ima",), ("send",), ()], ids=["ima", "send", "maps"])
def test_what_cannot_be_undone_stays_whole_until_it_can(
    base: Path, tmp_path: Path, folder: tuple[str, ...]
) -> None:
    """There is no room for its last program, and a policy keeps the pins of the others."""
    path = script(tmp_path.resolve() / "x")
    with Agent(base) as agent:
        agent.load(keep(base, *folder))
        with room_for(2), pytest.raises(AgentError, match=r"the pin .* cannot be removed"):
            agent.load(Policy("watch", CHECK, path=str(path), post=True, hash=True))
        assert programs() == set(PROGRAMS)
        assert attached() == {"ima": 2, "send": 1, "": 0}["".join(folder)]
        assert run(path) == 0
        assert agent.status().functions == {CHECK: None, "security_path_unlink": "fmod_ret"}
        assert [each.name for each in agent.policies()] == ["keep"]
        agent.unload("keep")
        assert (programs(), attached()) == (set(), 0)
        assert agent.status().functions == {}
        agent.load(Policy("watch", CHECK, path=str(path), post=True, hash=True))
        assert run(path) == 0
        assert len(until(agent, 1)) == 1


def test_what_a_dead_agent_could_not_undo_the_next_one_does(base: Path, tmp_path: Path) -> None:
    path = script(tmp_path.resolve() / "x")

    def die() -> None:
        agent = Agent(base)
        agent.load(keep(base, "ima"))
        with pytest.raises(AgentError, match="cannot be removed"):
            agent.load(Policy("watch", CHECK, path=str(path), post=True))

    with room_for(2):
        killed(die)
    assert programs() == set(PROGRAMS)
    with Agent(base) as agent:
        assert agent.status().functions == {CHECK: None, "security_path_unlink": "fmod_ret"}
        agent.unload("keep")
        assert (programs(), attached()) == (set(), 0)
