# SPDX-License-Identifier: Apache-2.0
"""An entry that waits for an override is taken by nobody else, and does not outlive its policy.

The entries are planted by hand, as a thread would leave them that died or was preempted between a
sensor and its override, and whose id another one then has.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from refagent import layout, trampoline
from refagent.agent import Agent
from refagent.errors import Refused
from refagent.libbpf import btf
from refagent.libbpf.links import Link
from refagent.libbpf.maps import Map
from refagent.libbpf.programs import Program
from refagent.overrides import Override
from refagent.policy import Policy
from refagent.shared import SharedMaps
from tests.inside.things import (
    SENSOR,
    Inventory,
    error_of,
    map_named,
    override_id,
    plant,
    policies_found,
    program_on,
    this_thread,
    waiting,
)

MKDIR, SYMLINK = "security_path_mkdir", "security_path_symlink"


def made(function: str, number: int, shared: SharedMaps) -> Override:
    found = btf.vmlinux().function(function)
    assert found is not None
    return Override(function, found.btf_id, number, shared.by_name)


@contextlib.contextmanager
def lone_overrides(second_id: int = 8) -> Iterator[tuple[Map, Override, Override]]:
    """The map, and an override of mkdir and of symlink, without sensors."""
    shared = SharedMaps()
    with (
        contextlib.closing(shared),
        contextlib.closing(made(MKDIR, 7, shared)) as first,
        contextlib.closing(made(SYMLINK, second_id, shared)) as second,
    ):
        yield shared.by_name["override_tasks"], first, second


@pytest.fixture
def other() -> Iterator[ThreadPoolExecutor]:
    """A further thread."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.mark.parametrize("second_id", [8, 7 + 2**8, 7 + 2**16, 7 + 2**31])
def test_an_override_takes_its_own_entry_and_takes_it_once(tmp_path: Path, second_id: int) -> None:
    with lone_overrides(second_id) as (tasks, first, second):
        plant(tasks, [this_thread()], first.id, errno.EXDEV)
        os.symlink("x", tmp_path / "link")  # noqa: PTH211
        assert waiting(tasks) == {(this_thread(), first.id)}
        assert error_of(os.mkdir, tmp_path / "new") == errno.EXDEV
        assert waiting(tasks) == set()
        assert error_of(os.mkdir, tmp_path / "new") == 0
        plant(tasks, [this_thread()], second.id, errno.EDQUOT)
        assert error_of(os.symlink, "x", tmp_path / "other") == errno.EDQUOT


def test_without_sharing_one_function_has_room_for_the_limit_and_no_more(tmp_path: Path) -> None:
    limit = trampoline.documented_limit(trampoline.running())
    with contextlib.ExitStack() as stack:
        shared = stack.enter_context(contextlib.closing(SharedMaps()))
        overrides = []
        for number in range(1, limit + 1):
            override = stack.enter_context(contextlib.closing(made(MKDIR, number, shared)))
            overrides.append(override)
        before = Inventory.now()
        for _ in range(2):
            with pytest.raises(Refused, match=rf"fits on {MKDIR} \(E2BIG\)"):
                made(MKDIR, limit + 1, shared)
            assert Inventory.now().since(before) == []
        tasks = shared.by_name["override_tasks"]
        for each in overrides:
            plant(tasks, [this_thread()], each.id, 1000 + each.id)
            assert error_of(os.mkdir, tmp_path / "new") == 1000 + each.id
        overrides[0].close()
        with contextlib.closing(made(MKDIR, limit + 1, shared)) as another:
            plant(tasks, [this_thread()], another.id, errno.EXDEV)
            assert error_of(os.mkdir, tmp_path / "new") == errno.EXDEV
        assert error_of(os.mkdir, tmp_path / "new") == 0


def test_an_override_takes_no_other_threads_entry(
    tmp_path: Path, other: ThreadPoolExecutor
) -> None:
    def try_it(name: str) -> int:
        return error_of(os.mkdir, tmp_path / name)

    with lone_overrides() as (tasks, first, _):
        theirs = other.submit(this_thread).result()
        plant(tasks, [theirs], first.id, errno.EXDEV)
        assert try_it("mine") == 0
        assert waiting(tasks) == {(theirs, first.id)}
        assert other.submit(try_it, "theirs").result() == errno.EXDEV


@pytest.mark.parametrize("entry", [1, 0, -4096, -(2**31)])
def test_what_is_no_errno_never_reaches_the_caller(tmp_path: Path, entry: int) -> None:
    with lone_overrides() as (tasks, first, _):
        plant(tasks, [this_thread()], first.id, -entry)
        assert error_of(os.mkdir, tmp_path / "new") == errno.EPERM


def test_an_entry_left_over_denies_no_call_that_fits_no_policy(
    tmp_path: Path, other: ThreadPoolExecutor
) -> None:
    with Agent() as agent:
        agent.load(Policy("a", MKDIR, path="/nowhere", override=errno.EPERM))
        agent.load(Policy("b", SYMLINK, path="/nowhere", override=errno.EPERM))
        mkdir, symlink = override_id(MKDIR), override_id(SYMLINK)
        theirs = other.submit(this_thread).result()
        with map_named("override_tasks") as tasks:
            for override in (mkdir, symlink):
                plant(tasks, [this_thread(), theirs], override, errno.EPERM)
            # A thread that got a dead one's id: its first call is its own.
            assert other.submit(error_of, os.mkdir, tmp_path / "theirs").result() == 0
            assert waiting(tasks) == {
                (this_thread(), mkdir),
                (this_thread(), symlink),
                (theirs, symlink),
            }
            assert error_of(os.symlink, "x", tmp_path / "link") == 0
            assert error_of(os.mkdir, tmp_path / "mine") == 0
            assert waiting(tasks) == {(theirs, symlink)}


@pytest.mark.parametrize("end", [Agent.unload, Agent.disable])
def test_with_a_policy_its_entries_go(tmp_path: Path, end: Callable[[Agent, str], None]) -> None:
    with Agent() as agent:
        agent.load(Policy("a", MKDIR, path="/nowhere/a", override=errno.EPERM))
        agent.load(Policy("b", MKDIR, path="/nowhere/b", override=errno.EPERM))
        agent.load(Policy("c", SYMLINK, path="/nowhere/a", override=errno.EPERM))
        with map_named("policies", program_on(MKDIR, SENSOR)) as slot:
            (first,) = policies_found(slot, "/nowhere/a")
            (second,) = policies_found(slot, "/nowhere/b")
        with map_named("policies", program_on(SYMLINK, SENSOR)) as slot:
            (third,) = policies_found(slot, "/nowhere/a")
        mkdir, symlink = override_id(MKDIR), override_id(SYMLINK)
        with map_named("override_tasks") as tasks:
            # More than the kernel gives at once.
            callers = [*range(1, 2000), this_thread()]
            plant(tasks, callers, mkdir, errno.EPERM, policy=first)
            plant(tasks, [3001], mkdir, errno.EPERM, policy=second)
            plant(tasks, [3001], symlink, errno.EPERM, policy=third)
            end(agent, "a")
            assert waiting(tasks) == {(3001, mkdir), (3001, symlink)}
            assert error_of(os.mkdir, tmp_path / "new") == 0
            end(agent, "b")  # the last on its function: program and all
            assert waiting(tasks) == {(3001, symlink)}


def test_a_function_that_is_used_again_does_not_find_old_entries(tmp_path: Path) -> None:
    policy = Policy("a", MKDIR, path="/nowhere", override=errno.EPERM)
    with Agent() as agent:
        agent.load(Policy("b", SYMLINK, path="/nowhere", override=errno.EPERM))
        agent.load(policy)
        old = override_id(MKDIR)
        agent.unload("a")
        with map_named("override_tasks") as tasks:
            plant(tasks, [this_thread()], old, errno.EPERM)
            agent.load(policy)
            assert override_id(MKDIR) != old
            assert error_of(os.mkdir, tmp_path / "new") == 0
            assert waiting(tasks) == {(this_thread(), old)}


def test_no_call_that_begins_after_an_unload_is_denied(tmp_path: Path) -> None:
    """Other threads call all the while, on another CPU than the one of load and unload."""
    over = threading.Event()
    loads = [0]  # odd from before a load to after the unload
    cpus = os.sched_getaffinity(0)
    mine, theirs = min(cpus), max(cpus)

    def call(name: str) -> tuple[int, list[str]]:
        os.sched_setaffinity(0, {theirs})
        done, wrong = 0, []
        while not over.is_set():
            before = loads[0]
            error = error_of(os.mkdir, tmp_path / f"{name}-{done}")
            if error and before % 2 == 0 and before == loads[0]:
                wrong.append(f"{errno.errorcode[error]} after load {before // 2}")
            done += 1
        return done, wrong

    with Agent() as agent, ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(call, f"{number}") for number in range(3)]
        os.sched_setaffinity(0, {mine})
        try:
            for number in range(3):
                loads[0] += 1
                agent.load(Policy("a", MKDIR, path=str(tmp_path), override=errno.EPERM))
                assert error_of(os.mkdir, tmp_path / f"main-{number}") == errno.EPERM
                agent.unload("a")
                loads[0] += 1
                assert error_of(os.mkdir, tmp_path / f"main-{number}") == 0
        finally:
            over.set()
            os.sched_setaffinity(0, cpus)
        for each in calls:
            done, wrong = each.result()
            assert done > 0
            assert wrong == []


def test_a_policy_matches_no_call_that_it_cannot_deny_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call is made whenever an override is about to be attached."""
    given: list[int] = []
    attach = trampoline.attach

    def called_first(program: Program, function: str) -> Link:
        given.append(error_of(os.mkdir, tmp_path / f"{len(given)}"))
        return attach(program, function)

    monkeypatch.setattr(trampoline, "attach", called_first)
    with Agent() as agent:
        agent.load(Policy("deny", MKDIR, path=str(tmp_path), override=errno.EPERM))
        assert given == [0]
        assert agent.counts("deny").matched == 0
        assert error_of(os.mkdir, tmp_path / "new") == errno.EPERM


def test_calls_of_idle_processors_are_denied_each_for_itself() -> None:
    """All of them are of thread 0: here packets that a timer sends again, as nothing comes in.

    An entry of that thread and of another processor, of none here, is left alone.
    """
    function = "security_sock_rcv_skb"
    with socket.create_server(("127.0.0.1", 0)) as server, Agent() as agent:
        there = socket.create_connection(server.getsockname())
        here, _ = server.accept()
        agent.load(Policy("deny", function, override=errno.EPERM, post=True))
        with there, here, map_named("override_tasks") as tasks:
            plant(tasks, [0], override_id(function), errno.EXDEV)
            there.sendall(b"x")
            idle, end = 0, time.monotonic() + 60
            while idle < 3 and time.monotonic() < end:
                idle += sum(not each.tid for each in agent.events(seconds=1))
            assert tasks.get(layout.OVERRIDE_KEY.pack(0, override_id(function), 0)) is not None
            agent.disable("deny")
            counts = agent.counts("deny")
        assert idle >= 3, "no timer of an idle processor has sent again within a minute"
        assert counts.matched == counts.denied >= 3


def test_a_packet_that_comes_in_takes_nothing_from_the_thread_that_it_interrupts() -> None:
    """What is sent over loopback comes in at once, in a softirq on the sender's CPU.

    The entry is as a thread would have it that is interrupted between a sensor and its override.
    """
    function = "security_sock_rcv_skb"
    first, second = socket.socketpair(type=socket.SOCK_DGRAM)
    with socket.socket(type=socket.SOCK_DGRAM) as udp, first, second, Agent() as agent:
        udp.bind(("127.0.0.1", 0))
        agent.load(Policy("deny", function, override=errno.EPERM, post=True))
        with map_named("override_tasks") as tasks:
            plant(tasks, [this_thread()], override_id(function), errno.EXDEV)
            mine, end = 0, time.monotonic() + 60
            while mine < 3 and time.monotonic() < end:
                udp.sendto(b"x", udp.getsockname())
                mine += sum(each.tid == threading.get_native_id() for each in agent.events())
            assert mine >= 3, "no packet came in on its sender's CPU within a minute"
            assert waiting(tasks) == {(this_thread(), override_id(function))}
            # This one the thread hands over itself, so that it is the thread's call. That it is
            # thrown away the sender is not told (unix_dgram_sendmsg of net/unix/af_unix.c).
            first.send(b"x")
            assert waiting(tasks) == set()
        second.setblocking(False)
        with pytest.raises(BlockingIOError):
            second.recv(1)
        agent.disable("deny")
        counts = agent.counts("deny")
        assert counts.matched == counts.denied >= 4


def test_entries_of_threads_that_have_ended_are_swept_away_when_the_map_is_full(
    tmp_path: Path, other: ThreadPoolExecutor
) -> None:
    with Agent() as agent:
        agent.load(Policy("deny", MKDIR, path=str(tmp_path), override=errno.EPERM))
        override = override_id(MKDIR)
        with ThreadPoolExecutor(1) as pool:
            ended = pool.submit(this_thread).result()
        theirs = other.submit(this_thread).result()
        with map_named("override_tasks") as tasks:
            plant(tasks, [ended, theirs], override, errno.EXDEV)
            assert agent.sweep() == 0  # as long as there is room
            # No process has such a number (PID_MAX_LIMIT of the kernel's include/linux/threads.h).
            nobody = [((1 << 22) + number) * (1 << 32 | 1) for number in range(1, 16384)]
            plant(tasks, nobody[: 16384 - len(waiting(tasks))], override, errno.EXDEV)
            assert error_of(os.mkdir, tmp_path / "lost") == 0
            assert agent.counts("deny").lost == 1
            assert agent.sweep() == 16383
            assert waiting(tasks) == {(theirs, override)}
            assert error_of(os.mkdir, tmp_path / "denied") == errno.EPERM
            assert agent.sweep() == 0
