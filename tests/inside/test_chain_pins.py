# SPDX-License-Identifier: Apache-2.0
"""Pinned chains: what goes on without an agent, what the next one takes over, and what it ends."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from hookproof.guest.pages import Page, arguments_held
from refagent import naming, trampoline
from refagent.agent import Agent
from refagent.chain import PROGRAMS
from refagent.errors import AgentError, Refused
from refagent.libbpf import census, pins
from refagent.libbpf.call import Operation
from refagent.libbpf.links import Link
from refagent.libbpf.template import Loaded
from refagent.policy import Policy
from tests.inside.chains import CHECK, MAPPED, asleep, require_chains, sha256, until, wait
from tests.inside.remote import Remote
from tests.inside.test_chain import _half_detached as half_detached
from tests.inside.test_chain import run, script
from tests.inside.test_pins import killed
from tests.inside.things import Inventory, error_of, map_named

OPENED, CREDS = "lsm/file_open", "lsm/bprm_creds_for_exec"


@pytest.fixture(scope="module", autouse=True)
def _can() -> None:
    require_chains()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As the kernel calls it."""
    return tmp_path.resolve()


def opened(path: Path) -> int:
    """The errno of opening it, or 0."""
    return error_of(lambda: os.close(os.open(path, os.O_RDONLY)))


def map_it(fd: int) -> int:
    """The errno of mapping it, or 0; by ctypes, which lets other threads run meanwhile."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    place = libc.mmap(None, mmap.PAGESIZE, mmap.PROT_READ, mmap.MAP_PRIVATE, fd, 0)
    if place == ctypes.c_void_p(-1).value:
        return ctypes.get_errno()
    libc.munmap(ctypes.c_void_p(place), mmap.PAGESIZE)
    return 0


def deny(path: Path, name: str = "deny", hook: str = OPENED) -> Policy:
    return Policy(name, hook, path=str(path), override=errno.EPERM)


def test_a_killed_agents_chains_go_on_and_the_next_agent_with_them(
    base: Path, folder: Path
) -> None:
    """Denied by path, binary and digest, allowed by digest; each call has one event."""
    known, other, named, data = (
        script(folder / each, f"#!/bin/true\n# {each}\n")
        for each in ("known", "other", "named", "data")
    )
    me = os.path.realpath("/proc/self/exe")
    inside = f"{folder}/"
    policies = [
        Policy("path", CHECK, path=str(named), override=errno.EACCES, post=True, hash=True),
        Policy("list", CHECK, prefix=inside, digest_not_in=(sha256(known),), override=errno.EPERM),
        Policy("mine", OPENED, path=str(data), binary=me, override=errno.EROFS, post=True),
        Policy("watch", CHECK, prefix=inside, post=True, hash=True),
        Policy("banned", CREDS, digest_in=(sha256(other),), override=errno.EXDEV),
    ]
    agents = []

    def die() -> None:
        agents.append(Agent(base))
        for each in policies:
            agents[0].load(each)
        agents[0].disable("banned")

    def calls() -> list[int]:
        return [run(named), run(known), run(other), opened(data), opened(known)]

    killed(die)
    must = [errno.EACCES, 0, errno.EPERM, errno.EROFS, 0]
    assert calls() == must
    with Agent(base) as agent:
        assert calls() == must
        found = {each.policy.name: each for each in agent.states()}
        assert [each.policy for each in found.values()] == policies
        assert {name for name, each in found.items() if not each.enabled} == {"banned"}
        assert agent.status().functions == {CHECK: "lsm", OPENED: "lsm"}
        counted = {name: (each.counts.matched, each.counts.denied) for name, each in found.items()}
        assert counted == {
            "path": (2, 2),
            "list": (4, 2),
            "mine": (2, 2),
            "watch": (6, 0),
            "banned": (0, 0),
        }
        events = until(agent, 8)
        assert Counter((each.hook, each.path, each.hash, each.override) for each in events) == {
            (CHECK, str(named), sha256(named), errno.EACCES): 2,
            (CHECK, str(known), sha256(known), None): 2,
            (CHECK, str(other), sha256(other), errno.EPERM): 2,
            (OPENED, str(data), None, errno.EROFS): 2,
        }
        agent.unload("list")
        agent.enable("banned")
        assert [run(other), run(known), run(named)] == [errno.EXDEV, 0, errno.EACCES]
        sha1 = f"sha1:{'0' * 40}"  # what IMA gives is known again
        with pytest.raises(Refused, match="IMA gives sha256 and no sha1"):
            agent.load(Policy("sha1", CHECK, digest_in=(sha1,), override=errno.EPERM))
    assert calls() == [0] * 5


def test_a_restart_leaves_no_moment_in_which_nothing_holds(base: Path, folder: Path) -> None:
    """Each call is denied, is counted once, and gives one event or is counted as lost."""
    path = script(folder / "x")
    agent = Agent(base)
    agent.load(Policy("deny", MAPPED, path=str(path), override=errno.EPERM, post=True, hash=True))
    done = threading.Event()
    results: list[Counter[int]] = []
    with path.open("rb") as file, ThreadPoolExecutor(3) as pool:
        callers = [pool.submit(_mapping, file.fileno(), done) for _ in range(3)]
        events = []
        for _ in range(5):
            events += agent.events(0.2)
            agent.leave()
            events += agent.events()
            agent = Agent(base)
        done.set()
        results = [each.result(60) for each in callers]
    calls = sum(results, Counter())
    with agent:
        events += until(agent, 1)
        counts = agent.counts("deny")
        lost = agent.totals().events_lost
    assert set(calls) == {errno.EPERM}
    assert (counts.matched, counts.denied) == (calls.total(), calls.total())
    assert len(events) + lost == calls.total()
    assert {each.hash for each in events} == {sha256(path)}


def _mapping(fd: int, done: threading.Event) -> Counter[int]:
    results: Counter[int] = Counter()
    while not done.is_set() or results.total() < 20:
        results[map_it(fd)] += 1
    return results


def test_events_wait_for_the_next_agent_and_what_has_no_room_is_counted(
    base: Path, folder: Path
) -> None:
    path, calls = script(folder / "x"), 1500
    killed(partial(_load, base, Policy("watch", OPENED, path=str(path), post=True)))
    for _ in range(calls):
        assert opened(path) == 0
    with Agent(base) as agent:
        events = agent.events()
        assert agent.counts("watch").matched == calls
        assert len(events) + agent.totals().events_lost == calls
        assert 500 < len(events) < calls  # of 1 MiB, each 1 KiB or more
        assert opened(path) == 0
        assert len(until(agent, 1)) == 1


def _load(base: Path, *policies: Policy) -> Agent:
    agent = Agent(base)
    for each in policies:
        agent.load(each)
    return agent


def test_proving_a_chain_again_is_no_policys_business(base: Path) -> None:
    """Neither counted nor told; and a chain that denies all is no obstacle for another's proof."""
    everything = [
        Policy("checked", CHECK, monitor=True, post=True),
        Policy("mapped", MAPPED, pid=1, monitor=True),
        Policy("all", CREDS, override=errno.EPERM, post=True),
    ]
    agent = _load(base, *everything)
    before = agent.counts("checked"), agent.counts("all")
    for _ in range(2):
        agent.leave()
        agent = Agent(base)
    with agent:
        assert run(Path("/bin/true")) == errno.EPERM
        (event,) = until(agent, 1)
        assert event.policies == ("all",)
        assert agent.counts("checked") == before[0]
        assert agent.counts("all").matched == before[1].matched + 1


def test_what_is_pinned_and_what_it_is_called(base: Path, folder: Path) -> None:
    before = {each.id for each in census.programs()}
    with Agent(base) as agent:
        agent.load(deny(folder / "x", hook=CHECK))
        agent.load(deny(folder / "y", "other", hook=CHECK))
        assert sorted(each.name for each in census.programs() if each.id not in before) == [
            "hpe_bprm_check",
            "hpf_bprm_check",
            "hpi_bprm_check",
        ]
        assert sorted(str(each.relative_to(base / "__lsm__")) for each in files(base)) == sorted(
            [f"bprm_check_security/{program}/{what}" for program in PROGRAMS for what in _BOTH]
            + [f"bprm_check_security/{each}" for each in _MAPS]
            + ["path_walks", "calls", "found_matches", "digests"]
        )
        assert {each.name for each in (base / "__policy__").iterdir()} == {"deny", "other"}
        agent.unload("deny")
        assert {each.name for each in (base / "__policy__").iterdir()} == {"other"}
        assert sum(each.function == "bpf_lsm_bprm_check_security" for each in census.links()) == 3
        agent.unload("other")
        assert not (base / "__lsm__").exists()
        with pytest.raises(Refused, match="another agent is running"):
            Agent(base)


_BOTH = ("prog", "link")
_MAPS = ("policies", "by_binary", "frames", "chains", "settings")


def files(base: Path) -> Iterator[Path]:
    return (each for each in (base / "__lsm__").rglob("*") if not each.is_dir())


@pytest.mark.parametrize(
    "name",
    [
        *(f"file_open/{each}" for each in (*_MAPS, "filter/prog", "ima/link", "send/link")),
        "digests",
    ],
)
def test_a_missing_pin_is_refused_and_what_runs_goes_on(
    base: Path, folder: Path, name: str
) -> None:
    path = script(folder / "x")
    _load(base, deny(path)).leave()
    pin = base / "__lsm__" / name
    pin.rename(base / "__agent__/aside")
    with pytest.raises(Refused, match="not complete"):
        Agent(base)
    assert opened(path) == errno.EPERM
    (base / "__agent__/aside").rename(pin)
    with Agent(base) as agent:
        assert agent.policies() == [deny(path)]
        assert opened(path) == errno.EPERM


def test_a_chain_that_is_gone_is_refused(base: Path, folder: Path) -> None:
    agent = _load(base, deny(folder / "x"), deny(folder, "stays", hook="security_path_mkdir"))
    agent.leave()
    (base / "__lsm__/file_open").rename(base / "__agent__/aside")
    with pytest.raises(Refused, match="lacks the programs of lsm/file_open"):
        Agent(base)
    (base / "__agent__/aside").rename(base / "__lsm__/file_open")
    with Agent(base) as agent:
        assert [each.name for each in agent.policies()] == ["deny", "stays"]


def test_another_program_or_map_is_refused(base: Path, folder: Path) -> None:
    path = script(folder / "x")
    _load(base, deny(path), deny(path, "mapped", hook=MAPPED)).leave()
    for one, other, words in (
        ("file_open/filter/link", "file_open/send/link", "is another link"),
        ("file_open/ima/prog", "mmap_file/ima/prog", "another program than the agent's"),
        ("file_open/send/prog", "mmap_file/send/prog", "another program than the agent's"),
        ("file_open/chains", "file_open/settings", "value_size is"),
        ("file_open/chains", "mmap_file/chains", "another program than the agent's"),
    ):
        exchange(base, base / "__lsm__" / one, base / "__lsm__" / other)
        with pytest.raises(Refused, match=words):
            Agent(base)
        assert opened(path) == errno.EPERM
        exchange(base, base / "__lsm__" / one, base / "__lsm__" / other)
    with Agent(base) as agent:
        assert len(agent.policies()) == 2


def exchange(base: Path, one: Path, other: Path) -> None:
    for source, target in ((one, "aside"), (other, one), (base / "aside", other)):
        source.rename(base / target)


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("filter send ima", "do not run in the order"),
        ("ima filter send", "do not run in the order"),
        ("send filter ima", "did not come through"),
    ],
)
def test_a_wrong_order_is_refused_and_what_runs_goes_on(
    base: Path, folder: Path, order: str, words: str
) -> None:
    path = script(folder / "x")
    _load(base, deny(path)).leave()
    attach_again(base / "__lsm__/file_open", order.split())
    with pytest.raises(Refused, match=words):
        Agent(base)
    if order != "send filter ima":
        assert opened(path) == errno.EPERM
    attach_again(base / "__lsm__/file_open", list(PROGRAMS))
    assert opened(path) == errno.EPERM
    with Agent(base) as agent:
        assert agent.policies() == [deny(path)]


def attach_again(folder: Path, order: list[str]) -> None:
    """Somebody attaches a chain's programs so that they run in an order."""
    with contextlib.ExitStack() as stack:
        programs = {}
        for name in order:
            called = naming.on("lsm/file_open")(name)
            programs[name] = Loaded.pinned(folder / name / "prog", called, {}, ())
            stack.callback(programs[name].leave)
            with Link.pinned(folder / name / "link", programs[name].fd, name):
                (folder / name / "link").unlink()
        for name in reversed(order):
            with trampoline.attach(programs[name], "bpf_lsm_file_open") as link:
                pins.pin(link.fd, folder / name / "link")


@pytest.mark.parametrize("change", ["load", "unload"])
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside another"])
def test_who_is_killed_at_any_step_leaves_nothing_by_half(
    base: Path, folder: Path, sequences: int, change: str, beside: bool
) -> None:
    """Loaded or not, as the next agent says; and at its end nothing is left."""
    x, y = script(folder / "x"), script(folder / "y")
    policy = Policy(
        "half",
        CHECK,
        path=str(x),
        binary=os.path.realpath("/proc/self/exe"),
        digest_in=(sha256(x),),
        override=errno.EPERM,
    )
    there = [deny(y, "there", hook=CHECK)] if beside else []
    before = Inventory.now()
    steps = interrupted(base, change, there, policy, None)
    outcomes = set()
    for step in range(0, steps, max(1, steps // (2 * sequences))):
        assert interrupted(base, change, there, policy, step) == step
        with Agent(base) as agent:
            loaded = policy in agent.policies()
            outcomes.add(loaded)
            assert [each for each in agent.policies() if each != policy] == there
            assert run(x) == (errno.EPERM if loaded else 0)
            assert run(y) == (errno.EPERM if beside else 0)
            if not loaded:
                agent.load(policy)
                assert run(x) == errno.EPERM
            assert agent.counts("half").denied == 1
        wait(lambda: not Inventory.now().since(before), f"all is gone, of step {step} of {steps}")
        assert not base.exists()
    assert outcomes == ({False} if change == "load" else {False, True})


def interrupted(
    base: Path, change: str, there: list[Policy], policy: Policy, step: int | None
) -> int:
    """An agent is killed when it has done so many steps, or ends of itself; how many it did."""
    counted, count = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            agent = _load(base, *there, *([policy] if change == "unload" else []))
            with counting(count, step):
                agent.load(policy) if change == "load" else agent.unload("half")
            agent.close()
            os._exit(0)
        finally:
            os._exit(1)
    os.close(count)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with os.fdopen(counted, "rb") as pipe:
        done = len(pipe.read())
    assert status == (0 if step is None else -signal.SIGKILL)
    return done


@contextlib.contextmanager
def counting(count: int, last: int | None) -> Iterator[None]:
    """Counts what changes anything that outlives a process, and kills this one before a step."""
    done = 0

    def step() -> None:
        nonlocal done
        if done == last:
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1
        os.write(count, b".")

    def stepping(plain: Callable[..., object], *first: str) -> Callable[..., object]:
        def call(self: object, *args: object, **more: object) -> object:
            if not first or str(getattr(self, "op", "")).startswith(first):
                step()
            return plain(self, *args, **more)

        return call

    with pytest.MonkeyPatch.context() as patch:
        doing = ("pin ", "attach ", "update ", "delete ")
        patch.setattr(Operation, "__enter__", stepping(Operation.__enter__, *doing))
        patch.setattr(Path, "unlink", stepping(Path.unlink))
        patch.setattr(Link, "close", stepping(Link.close))
        yield


@contextlib.contextmanager
def sleepers(base: Path, path: Path, *policies: Policy) -> Iterator[tuple[Remote, Page]]:
    """Four calls are asleep in the chain of another process's agent; at the end they have come."""
    agent = Remote(base)
    try:
        for each in policies:
            agent.load(each)
        with ThreadPoolExecutor(4) as pool, path.open("rb") as file, arguments_held() as page:
            held = [pool.submit(map_it, file.fileno()) for _ in range(4)]
            with map_named("hpn_mmap_file") as chains:
                wait(partial(asleep, chains, 4), "four calls are in the chain")
            yield agent, page
            page.open()
            assert [each.result(60) for each in held] == [0] * 4
    finally:
        agent.kill()


def die(agent: Remote) -> None:
    """It is killed, and has let go of everything."""
    os.kill(agent._pid, signal.SIGKILL)
    os.waitid(os.P_PID, agent._pid, os.WEXITED | os.WNOWAIT)


def watch(path: Path, name: str = "watch") -> Policy:
    return Policy(name, MAPPED, path=str(path), post=True, hash=True)


def programs() -> set[str]:
    """The chain's that are in the kernel."""
    names = {naming.on(MAPPED)(each): each for each in PROGRAMS}
    return {names[each.name] for each in census.programs() if each.name in names}


@pytest.mark.parametrize("how", ["unload", "close"])
def test_the_next_agent_waits_for_who_fell_asleep_before(
    base: Path, folder: Path, how: str
) -> None:
    path = script(folder / "x")
    with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as stack:
        with sleepers(base, path, watch(path)) as (first, page):
            die(first)
            agent = stack.enter_context(Agent(base))
            assert agent.policies() == [watch(path)]
            gone = pool.submit(agent.close if how == "close" else partial(agent.unload, "watch"))
            wait(half_detached if how == "close" else _turned, "it has begun")
            assert not gone.done()
            assert programs() == set(PROGRAMS)
            page.open()
            gone.result(60)
        assert programs() == set()
        assert [each.hash for each in until(agent, 4)] == [sha256(path)] * 4


def _turned() -> bool:
    with map_named("hpm_mmap_file") as settings:
        return settings.get(bytes(4)) != bytes(settings.value_size)


def test_who_is_killed_while_it_waits_leaves_that_to_the_next(
    base: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three policies one was being unloaded: its calls are asleep in an epoch that is over."""
    path = script(folder / "x")
    others = [watch(folder / each, each) for each in ("second", "last")]
    with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as stack:
        with sleepers(base, path, watch(path), *others) as (first, page):
            begun = pool.submit(first.unload, "watch")
            wait(_turned, "the unload waits")
            die(first)
            assert isinstance(begun.exception(60), EOFError)
            agent = stack.enter_context(Agent(base))
            assert agent.status().policies == ("last", "second")
            # A place where a sleeper will count is nobody else's.
            agent.load(Policy("new", "security_path_mkdir", path=str(folder), monitor=True))
            monkeypatch.setattr("refagent.epochs._PATIENCE", 0.2)
            with pytest.raises(AgentError, match="has been asleep in the ima program"):
                agent.unload("second")
            assert agent.status().policies == ("last", "new")
            page.open()
        assert agent.counts("new").matched == 0
        assert [each.hash for each in until(agent, 4)] == [sha256(path)] * 4
        monkeypatch.undo()
        agent.unload("last")
        assert programs() == set()


def test_a_chain_that_was_being_ended_is_ended_when_its_sleepers_wake(
    base: Path, folder: Path
) -> None:
    """The last policy's unload was waiting: its programs stay until nobody is in them."""
    path = script(folder / "x")
    with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as stack:
        with sleepers(base, path, watch(path)) as (first, page):
            begun = pool.submit(first.close)
            wait(half_detached, "it waits for the sleepers")
            die(first)
            assert isinstance(begun.exception(60), EOFError)
            assert programs() == set(PROGRAMS)
            agent = stack.enter_context(Agent(base))
            assert (agent.policies(), agent.status().functions) == ([], {MAPPED: None})
            assert programs() == set(PROGRAMS)
            page.open()
        agent.load(watch(path))
        with path.open("rb") as file:
            assert map_it(file.fileno()) == 0
        (event,) = [each for each in until(agent, 5) if each.policies == ("watch",)]
        assert event.hash == sha256(path)
        assert sum(each.function == "bpf_lsm_mmap_file" for each in census.links()) == 3


def test_who_has_no_patience_leaves_the_rest_to_the_next(
    base: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refagent.epochs._PATIENCE", 0.2)
    path = script(folder / "x")
    with contextlib.ExitStack() as stack:
        with sleepers(base, path, watch(path)) as (first, page):
            with pytest.raises(AgentError, match="has been asleep in the ima program"):
                first.unload("watch")
            assert first.policies() == []
            with pytest.raises(AgentError, match="has been asleep in the ima program"):
                first.load(watch(path))
            with pytest.raises(AgentError, match="has been asleep in the ima program"):
                first.close()
            die(first)
            assert programs() == set(PROGRAMS)
            agent = stack.enter_context(Agent(base))
            assert programs() == set(PROGRAMS)
            page.open()
        monkeypatch.undo()
        agent.load(watch(path))
        assert agent.policies() == [watch(path)]
        assert sorted(each.hash or "" for each in until(agent, 4)) == [sha256(path)] * 4
