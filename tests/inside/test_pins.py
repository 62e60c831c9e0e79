# SPDX-License-Identifier: Apache-2.0
"""Pins: what they are worth when the agent dies, and what is refused instead of taken over."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from refagent import layout
from refagent.agent import Agent
from refagent.errors import AgentError, BpfError, Refused
from refagent.libbpf import pins
from refagent.libbpf._libbpf import lib
from refagent.libbpf.maps import Map, Shape
from refagent.policy import Policy
from refagent.state import SHAPE, PolicyRecord, State
from tests.inside.test_concurrency import CALLERS, Callers, Total, folders
from tests.inside.test_failures import descriptors_left
from tests.inside.things import error_of

MKDIR = "security_path_mkdir"


def denied(place: Path) -> int:
    """The errno of making a directory there, or 0."""
    try:
        (place / "x").mkdir()
    except OSError as error:
        return error.errno or -1
    (place / "x").rmdir()
    return 0


def deny(place: Path, error: int = errno.EPERM, name: str = "deny") -> Policy:
    return Policy(name, MKDIR, path=str(place), override=error)


def killed(act: Callable[[], object]) -> None:
    """Another process does this and is killed right after."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == -signal.SIGKILL


def test_a_killed_agent_denies_on_and_the_next_one_goes_on(base: Path, place: Path) -> None:
    agents = []

    def die() -> None:
        agents.append(Agent(base))
        agents[0].load(deny(place))

    killed(die)
    assert denied(place) == errno.EPERM
    with Agent(base) as agent:
        assert agent.policies() == [deny(place)]
        assert denied(place) == errno.EPERM
        assert (agent.counts("deny").matched, agent.counts("deny").denied) == (2, 2)
        with pytest.raises(Refused, match="loaded already"):
            agent.load(deny(place))
    assert denied(place) == 0


def test_who_leaves_can_come_back(base: Path, place: Path) -> None:
    agent = Agent(base)
    agent.load(deny(place))
    agent.load(Policy("off", MKDIR, path=str(place), override=errno.EACCES))
    agent.disable("off")
    agent.leave()
    for _ in range(3):
        assert denied(place) == errno.EPERM
        agent = Agent(base)
        assert agent.status().policies == ("deny",)
        assert agent.status().disabled == ("off",)
        agent.leave()
    with Agent(base) as agent:
        agent.enable("off")
        agent.unload("deny")
        assert denied(place) == errno.EACCES


def test_what_who_leaves_has_not_read_is_the_next_ones(base: Path, place: Path) -> None:
    """As if it had been killed: an event is read once, by whoever asks first."""
    agent = Agent(base)
    agent.load(Policy("watch", "security_path_mkdir", path=str(place), post=True))
    (place / "a").mkdir()
    assert [each.policies for each in agent.events()] == [("watch",)]
    (place / "b").mkdir()
    (place / "c").mkdir()
    agent.leave()
    (place / "d").mkdir()
    with Agent(base) as agent:
        assert [each.policies for each in agent.events()] == [("watch",)] * 3


def test_a_restart_leaves_no_moment_in_which_nothing_holds(base: Path, tmp_path: Path) -> None:
    denied, allowed = folders(tmp_path)
    agent = Agent(base)
    agent.load(deny(denied))
    agent.load(Policy("above", MKDIR, prefix=str(tmp_path), monitor=True))
    with Callers(denied, allowed, at_least=200).calling() as results:
        for _ in range(5):
            agent.leave()
            agent = Agent(base)
    with agent:
        total = Total.of(results)
        total.check(agent.counts("deny"))
    assert total.denied >= 90 * CALLERS


def test_ids_are_not_used_again(base: Path, place: Path) -> None:
    seen = set()
    for number in range(3):
        agent = Agent(base)
        agent.load(deny(place, name=f"n{number}"))
        with records(base) as state:
            seen |= {each.id for each in state.policies()}
        if number < 2:
            agent.unload(f"n{number}")
            agent.load(Policy("keep" + str(number), MKDIR, uid=54321, post=True))
        agent.leave()
    with Agent(base):
        assert len(seen) == 5


@contextlib.contextmanager
def records(base: Path) -> Iterator[State]:
    """What the agent has noted."""
    with Map.pinned(base / "__agent__/state", "state", SHAPE) as state:
        yield State(state)


@pytest.mark.parametrize("half", ["no record", "no policy", "no rule"])
def test_what_was_half_done_is_cleared_away(base: Path, place: Path, half: str) -> None:
    agent = Agent(base)
    agent.load(deny(place))
    agent.load(Policy("other", "security_path_rmdir", path=str(place), override=1))
    with records(base) as state:
        (mkdir,) = [each for each in state.policies() if each.policy.name == "deny"]
        (site,) = [each for each in state.sites() if each.function == MKDIR]
        if half == "no record":
            state.drop_site(site.id)
        if half != "no rule":
            state.drop_policy(mkdir.id)
    agent.leave()
    with Agent(base) as agent:
        if half == "no rule":
            assert denied(place) == errno.EPERM
        else:
            assert [each.name for each in agent.policies()] == ["other"]
            assert not (base / "__sensor__" / MKDIR).exists()
            assert not (base / "__override__/fmod_ret" / MKDIR).exists()


def test_entries_of_the_dead_are_purged(base: Path, place: Path) -> None:
    agent = Agent(base)
    agent.load(deny(place))
    agent.leave()
    size = (layout.OVERRIDE_KEY.size, layout.OVERRIDE_ENTRY.size, 16384)
    shape = Shape(lib.BPF_MAP_TYPE_HASH, *size)
    with records(base) as state:
        (site,), (policy,) = state.sites(), state.policies()
    with Map.pinned(base / "__override__/override_tasks", "override_tasks", shape) as tasks:
        keys = {
            who: layout.OVERRIDE_KEY.pack(1 << 32 | 1, override, 0)
            for who, override in (("mine", site.id), ("nobody's", site.id + 7))
        }
        tasks.set(keys["mine"], layout.OVERRIDE_ENTRY.pack(-1, policy.id, policy.place, 0))
        tasks.set(keys["nobody's"], layout.OVERRIDE_ENTRY.pack(-1, policy.id, policy.place, 0))
        agent = Agent(base)
        assert tasks.get(keys["mine"]) is not None
        assert tasks.get(keys["nobody's"]) is None
    agent.close()


def test_a_second_agent_is_refused(base: Path, place: Path) -> None:
    with Agent(base) as agent:
        with pytest.raises(Refused, match="another agent is running"):
            Agent(base)
        agent.load(deny(place))
        with pytest.raises(Refused, match="another agent is running"):
            Agent(base)
        assert denied(place) == errno.EPERM


def test_a_folder_with_something_else_is_refused(base: Path) -> None:
    (base / "theirs").mkdir(parents=True)
    with pytest.raises(Refused, match="none of an agent's pins"):
        Agent(base)
    (base / "theirs").rmdir()
    base.rmdir()


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("__override__/override_tasks", (lib.BPF_MAP_TYPE_HASH, 16, 16, 64), "max_entries is 64"),
        ("__agent__/binaries", (lib.BPF_MAP_TYPE_HASH, 8, 4, 1024), "key_size is 8, not 256"),
        ("__agent__/state", (lib.BPF_MAP_TYPE_ARRAY, 4, 4096, 1), "type is 2, not 1"),
    ],
)
def test_another_map_is_refused_and_what_runs_goes_on(
    base: Path, place: Path, name: str, shape: tuple[int, int, int, int], words: str
) -> None:
    agent = Agent(base)
    agent.load(deny(place))
    agent.leave()
    (base / name).rename(base / "__agent__/aside")
    with Map.create("foreign", Shape(*shape)) as foreign:
        pins.pin(foreign.fd, base / name)
    with pytest.raises(Refused, match=words):
        Agent(base)
    assert denied(place) == errno.EPERM
    (base / name).unlink()
    (base / "__agent__/aside").rename(base / name)
    with Agent(base) as agent:
        assert agent.policies() == [deny(place)]


@pytest.mark.parametrize("name", ["prog", "link", "policies", "by_binary"])
def test_a_missing_pin_is_refused_and_what_runs_goes_on(base: Path, place: Path, name: str) -> None:
    agent = Agent(base)
    agent.load(deny(place))
    agent.leave()
    pin = base / "__sensor__" / MKDIR / name
    pin.rename(base / "__agent__/aside")
    with pytest.raises(Refused, match="not complete"):
        Agent(base)
    assert denied(place) == errno.EPERM
    (base / "__agent__/aside").rename(pin)
    with Agent(base):
        pass


def test_another_program_is_refused(base: Path, place: Path) -> None:
    agent = Agent(base)
    agent.load(deny(place))
    agent.load(Policy("other", "security_path_rmdir", path=str(place), override=1))
    agent.leave()
    one, other = (
        base / "__override__/fmod_ret" / each / "link" for each in (MKDIR, "security_path_rmdir")
    )
    for source, target in ((one, "aside"), (other, one), (base / "aside", other)):
        source.rename(base / target)
    with pytest.raises(Refused, match="is another link"):
        Agent(base)
    for source, target in ((one, "aside"), (other, one), (base / "aside", other)):
        source.rename(base / target)
    with Agent(base) as agent:
        assert len(agent.policies()) == 2


def test_another_version_is_refused(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent(base)
    agent.load(Policy("a", MKDIR, uid=54321, post=True))
    agent.leave()
    with monkeypatch.context() as patch:
        patch.setattr("refagent.state.build", lambda: "another")
        with pytest.raises(Refused, match="another version"):
            Agent(base)
    with Agent(base):
        pass


def test_a_folder_that_is_no_bpffs_is_refused() -> None:
    with pytest.raises(Refused, match="in no bpffs but in a tmpfs"):
        Agent(Path("/run/refagent"))


def test_a_bpffs_that_is_read_only_is_refused() -> None:
    with tempfile.TemporaryDirectory(dir="/run") as place:
        subprocess.run(["mount", "-t", "bpf", "-o", "ro", "bpf", place], check=True)
        try:
            with pytest.raises(Refused, match="mounted read-only"):
                Agent(Path(place) / "base")
        finally:
            subprocess.run(["umount", place], check=True)


def test_a_policy_about_the_agents_own_pins_goes_with_the_agent(base: Path) -> None:
    with Agent(base) as agent:
        for hook in ("security_path_unlink", "security_path_rmdir"):
            agent.load(Policy(hook, hook, prefix=str(base), override=errno.EPERM))
        pin = base / "__policy__" / "security_path_unlink"
        assert error_of(pin.unlink) == errno.EPERM
    assert not base.exists()


GUARD = "security_path_unlink"


def guarded(base: Path, *loaded: Policy) -> Agent:
    """An agent with these policies, and then one by which no pin can be removed."""
    agent = Agent(base)
    for each in loaded:
        agent.load(each)
    agent.load(Policy("guard", GUARD, prefix=f"{base}/", override=errno.EPERM))
    return agent


@pytest.mark.parametrize("way", ["unload", "disable"])
def test_what_cannot_be_unpinned_is_out_of_effect_and_goes_later(
    base: Path, place: Path, way: str
) -> None:
    with guarded(base, deny(place)) as agent:
        with pytest.raises(AgentError, match="cannot be removed"):
            getattr(agent, way)("deny")
        assert not denied(place)
        with pytest.raises(AgentError, match="cannot be removed"):
            agent.load(deny(place, name="again"))
        agent.unload("guard")
        assert not (base / "__sensor__" / MKDIR).exists()
        agent.load(deny(place, name="again"))
        assert denied(place) == errno.EPERM
    assert not base.exists()


def test_an_override_that_cannot_be_unpinned_goes_later(base: Path, place: Path) -> None:
    watch = Policy("watch", MKDIR, path=str(place), monitor=True, override=errno.EPERM)
    with guarded(base, watch, deny(place)) as agent:
        with pytest.raises(AgentError, match="cannot be removed"):
            agent.unload("deny")
        assert not denied(place)
        with pytest.raises(AgentError, match="cannot be removed"):
            agent.load(deny(place))
        agent.unload("guard")
        agent.load(deny(place))
        assert denied(place) == errno.EPERM
        assert agent.counts("watch").matched == 2
    assert not base.exists()


@pytest.mark.parametrize("end", ["left", "killed"])
@pytest.mark.parametrize("again", [False, True])
def test_the_next_agent_removes_what_could_not_be_unpinned(
    base: Path, place: Path, end: str, *, again: bool
) -> None:
    def unload() -> Agent:
        agent = guarded(base, deny(place))
        with pytest.raises(AgentError, match="cannot be removed"):
            agent.unload("deny")
        return agent

    if end == "left":
        unload().leave()
    else:
        killed(unload)
    with Agent(base) as agent:
        assert [each.name for each in agent.policies()] == ["guard"]
        assert not denied(place)
        agent.unload("guard")
        assert not base.exists() or not list(base.iterdir())
        if again:
            agent.load(deny(place))
            assert denied(place) == errno.EPERM
    assert not base.exists()


def test_rules_that_nobody_knows_of_are_taken_out_before_their_pins(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last agent could not, and ended."""
    agent = guarded(base)
    with monkeypatch.context() as memory:
        memory.setattr(Agent, "_silence", lambda _: None)
        with pytest.raises(AgentError, match="cannot be removed"):
            agent.close()
    with Agent(base) as agent:
        assert agent.policies() == []
    assert not base.exists()


def test_records_stay_as_long_as_what_they_are_about(base: Path, place: Path) -> None:
    """With a stranger in the way at the end, the next agent can begin."""
    agent = Agent(base)
    agent.load(deny(place))
    with Agent() as stranger:
        stranger.load(Policy("guard", GUARD, prefix=f"{base}/", override=errno.EPERM))
        with pytest.raises(AgentError, match="cannot be removed"):
            agent.close()
        assert not denied(place)
        again = Agent(base)
        assert again.policies() == []
    again.close()
    assert not base.exists()


def test_without_a_descriptor_an_override_goes_with_its_pins(base: Path, place: Path) -> None:
    with Agent(base) as agent:
        agent.load(Policy("watch", MKDIR, path=str(place), monitor=True, override=errno.EPERM))
        for _ in range(2):
            agent.load(Policy("deny", MKDIR, path=str(place), override=errno.EPERM))
            assert denied(place) == errno.EPERM
            with descriptors_left(0):
                agent.disable("deny")
            assert not (base / "__override__" / "fmod_ret").exists()
            agent.unload("deny")


def test_a_disable_that_cannot_be_noted_changes_nothing(
    base: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And after it the next agent can go on."""
    agent = Agent(base)
    agent.load(Policy("deny", MKDIR, path=str(place), override=errno.EPERM))

    def full(_: State, __: PolicyRecord) -> None:
        raise BpfError("write to map", errno.ENOMEM, "no memory")

    with monkeypatch.context() as memory:
        memory.setattr(State, "add_policy", full)
        with pytest.raises(BpfError):
            agent.disable("deny")
    assert agent.status().policies == ("deny",)
    agent.leave()
    with Agent(base) as second:
        assert second.status().policies == ("deny",)
        assert denied(place) == errno.EPERM
