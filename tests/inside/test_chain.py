# SPDX-License-Identifier: Apache-2.0
"""The three programs of an LSM hook: their order, their events, and how they end."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import mmap
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from hookproof.guest.pages import arguments_held
from refagent import chain, hooks, layout, probes, selftest
from refagent.agent import Agent
from refagent.chain import PROGRAMS, Chain
from refagent.epochs import Patience
from refagent.errors import Refused
from refagent.events import Event
from refagent.libbpf import btf, census, ids
from refagent.libbpf._libbpf import ffi, lib
from refagent.lsmmaps import LsmMaps
from refagent.policy import Policy
from refagent.probes.trying import trying
from refagent.shared import SharedMaps
from tests.inside.chains import CHECK, MAPPED, asleep, map_it, require_chains, sha256, until, wait
from tests.inside.things import error_of, map_named


@pytest.fixture(scope="module", autouse=True)
def _can() -> None:
    require_chains()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As the kernel calls it."""
    return tmp_path.resolve()


def script(path: Path, text: str = "#!/bin/true\n") -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def run(path: Path) -> int:
    """Executes it; 0 or the errno."""

    def spawn() -> None:
        os.waitpid(os.posix_spawn(path, [str(path)], {}), 0)

    return error_of(spawn)


def stranger(hook: str, pid: int, error: int) -> contextlib.AbstractContextManager[object]:
    """Somebody else's program on a hook, which denies what a process asks for."""
    return trying("probe_lsm", {"deny": hook}, tgid=pid, error=-error)


@pytest.mark.parametrize("order", [*itertools.permutations(PROGRAMS)], ids="-".join)
def test_only_the_right_order_is_taken(order: tuple[str, ...]) -> None:
    """Attached the other way round there would be events without digests, or none."""
    shared, lsm = SharedMaps(), LsmMaps()
    with contextlib.closing(shared), contextlib.closing(lsm):
        arguments = (hooks.find(CHECK), 1, shared.by_name, lsm)
        chain = Chain(*arguments, path_argument=0, patience=Patience())
        if order == PROGRAMS:
            chain.start(order)
            chain.close()
            return
        with pytest.raises(Refused, match=r"did not come through|do not run in the order"):
            chain.start(order)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 1 << 20, 64 << 20])
def test_a_digest_is_that_of_the_files_bytes(folder: Path, size: int) -> None:
    path = folder / "x"
    with path.open("wb") as file:
        file.write(os.urandom(min(size, 4097)))
        file.truncate(size)
    path.chmod(0o755)
    with Agent() as agent:
        agent.load(Policy("watch", CHECK, path=str(path), post=True, hash=True))
        assert run(path) == errno.ENOEXEC
        (event,) = until(agent, 1)
    assert (event.hash, event.no_hash) == (sha256(path), None)


@pytest.fixture
def ramfs(folder: Path) -> Iterator[Path]:
    """IMA's own policies leave tmpfs out, and 9p keeps no inodes for it to remember."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"ramfs", bytes(folder), b"ramfs", 0, None) == 0
    yield folder
    assert libc.umount2(bytes(folder), 0) == 0


def test_where_ima_can_only_be_asked_what_it_has_an_event_says_so(
    ramfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on kernels before 5.18. Without a policy (`ima_policy=tcb`) IMA has nothing.

    With one it takes a program's digest after our hook, so the second execution has it.
    """
    monkeypatch.setattr(chain, "_HELPERS", chain._HELPERS[1:])
    path = script(ramfs / "x")
    words = Path("/proc/cmdline").read_text(encoding="ascii").split()
    with Agent() as agent:
        agent.load(Policy("watch", CHECK, path=str(path), post=True, hash=True))
        assert [run(path), run(path)] == [0, 0]
        *_, event = until(agent, 2)
        if "ima_policy=tcb" in words:
            assert (event.hash, event.no_hash) == (sha256(path), None)
            return
        assert event.hash is None
        assert str(event.no_hash).startswith("EOPNOTSUPP")
        deny = Policy("deny", CHECK, digest_in=(sha256(path),), override=errno.EPERM)
        with pytest.raises(Refused, match="IMA cannot hash this file here, or has not"):
            agent.load(deny)


def test_the_agents_own_call_is_made_where_it_can_be(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On many systems nothing can be run in /run."""
    places = [folder / "noexec", folder / "missing", folder]
    places[0].mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"tmpfs", bytes(places[0]), b"tmpfs", os.ST_NOEXEC, None) == 0
    try:
        monkeypatch.setattr(selftest, "_FOLDERS", [str(each) for each in places])
        with Agent() as agent:
            agent.load(Policy("watch", CHECK, path="/x", post=True))
    finally:
        assert libc.umount2(bytes(places[0]), 0) == 0
    assert list(folder.iterdir()) == [places[0]]


def test_an_event_says_who_it_was(folder: Path) -> None:
    path = script(folder / "x")
    with Agent() as agent:
        agent.load(Policy("watch", CHECK, path=str(path), post=True))
        child = os.fork()
        if child == 0:
            os.execv(path, ["x"])  # noqa: S606
        os.waitpid(child, 0)
        (event,) = until(agent, 1)
    assert event.process is not None
    assert (event.pid, event.tid, event.hash, event.no_hash) == (child, child, None, None)
    assert event.process.binary == os.path.realpath("/proc/self/exe")
    assert event.process.command == _own_command()
    assert 0 <= time.clock_gettime_ns(time.CLOCK_BOOTTIME) - event.process.started < 60e9


def _own_command() -> tuple[str, ...]:
    """The first 256 bytes of this process's arguments, which a forked child has too."""
    raw = Path("/proc/self/cmdline").read_bytes()[:256]
    return tuple(each.decode() for each in raw.removesuffix(b"\0").split(b"\0"))


def test_each_execution_has_one_event_with_its_own_digest(folder: Path, sequences: int) -> None:
    """Four threads, eight files, both processors: nothing is lost, doubled or mixed up."""
    files = [script(folder / f"x{i}", f"#!/bin/true\n# {i}\n") for i in range(8)]
    rounds = 1 + sequences // 5
    with Agent() as agent, ThreadPoolExecutor(4) as pool:
        agent.load(Policy("watch", CHECK, prefix=f"{folder}/", post=True, hash=True))
        done = [pool.submit(_run_all, files, rounds) for _ in range(4)]
        events: list[Event] = []
        while not all(each.done() for each in done):
            events += agent.events(0.05)
        events += until(agent, 4 * rounds * len(files) - len(events))
        assert [each.result() for each in done] == [0] * 4
        assert agent.totals().events_lost == agent.totals().calls_unseen == 0
    right = {str(each): sha256(each) for each in files}
    assert [each for each in events if each.hash != right[each.path]] == []
    assert Counter(each.path for each in events) == dict.fromkeys(right, 4 * rounds)


def _run_all(files: list[Path], rounds: int) -> int:
    return sum(run(each) for _ in range(rounds) for each in files)


def test_many_threads_take_many_files(folder: Path, sequences: int) -> None:
    """A thread's frame is its own, however many sleep at once."""
    count = 8 if sequences < 50 else 50
    files = [script(folder / f"x{i}", f"{i}\n" * 500) for i in range(count)]
    hook, take = "lsm/file_post_open", _open_all
    if btf.vmlinux().function("bpf_lsm_file_post_open") is None:  # before 6.9
        hook, take = MAPPED, _map_all
    with Agent() as agent, ThreadPoolExecutor(100) as pool:
        agent.load(Policy("w", hook, prefix=f"{folder}/", post=True, hash=True))
        threads = [pool.submit(take, files) for _ in range(100)]
        events: list[Event] = []
        while not all(each.done() for each in threads):
            events += agent.events(0.05)
        [each.result() for each in threads]
        events += until(agent, 100 * len(files) - len(events))
        lost = agent.totals().events_lost
    right = {str(each): sha256(each) for each in files}
    assert [each for each in events if each.hash != right[each.path]] == []
    assert len(events) + lost == 100 * len(files)


def _open_all(files: list[Path]) -> None:
    for each in files:
        os.close(os.open(each, os.O_RDONLY))


def _map_all(files: list[Path]) -> None:
    for each in files:
        map_it(each)


def test_mapping_a_file_or_nothing(folder: Path) -> None:
    """An anonymous mapping passes the hook as well, and has no file."""
    path = script(folder / "x")
    with Agent() as agent:
        mine = os.getpid()
        agent.load(Policy("watch", MAPPED, path=str(path), pid=mine, post=True, hash=True))
        with path.open("rb") as file:
            mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ).close()
        mmap.mmap(-1, 4096).close()
        (event,) = until(agent, 1)
        assert event.hash == sha256(path)
        agent.unload("watch")
        agent.load(Policy("deny", MAPPED, pid=mine, path=str(path), override=errno.EACCES))
        with path.open("rb") as file:
            assert error_of(mmap.mmap, file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ) == (
                errno.EACCES
            )


@pytest.mark.parametrize("before", ["filter", "ima", "send", None], ids=str)
def test_what_a_stranger_denies_reaches_no_other_call(
    folder: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    """Wherever it is in the order: the thread's next call has its own event, and unloading ends."""
    first, second = script(folder / "a"), script(folder / "b", "#!/bin/true\n# b\n")
    with contextlib.ExitStack() as stack:
        caller = stack.enter_context(Caller.of(first, second))
        denying = stack.enter_context(contextlib.ExitStack())
        plain = Chain._attach

        def attach(chain: Chain, name: str) -> None:
            """What is attached later runs earlier."""
            plain(chain, name)
            if name == before:
                denying.enter_context(stranger("bprm_check_security", caller.pid, errno.EXDEV))

        monkeypatch.setattr(Chain, "_attach", attach)
        if before is None:
            denying.enter_context(stranger("bprm_check_security", caller.pid, errno.EXDEV))
        agent = stack.enter_context(Agent())
        agent.load(Policy("watch", CHECK, prefix=f"{folder}/", post=True, hash=True))
        assert caller.first() == errno.EXDEV
        denying.close()
        assert caller.second() == 0
        events = until(agent, 1 + (before is None))
        agent.unload("watch")
    # The last in the order denies what the chain has seen to its end.
    seen = [first, second] if before is None else [second]
    assert [(each.path, each.hash) for each in events] == [(str(p), sha256(p)) for p in seen]


@dataclass
class Caller:
    """A process that executes one file, and where that is denied, when it is told to, another."""

    pid: int
    ask: int
    told: int

    @classmethod
    @contextlib.contextmanager
    def of(cls, first: Path, second: Path) -> Iterator[Caller]:
        (asked, ask), (told, tell) = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.read(asked, 1)
                os.write(tell, bytes([error_of(os.execv, first, [str(first)])]))
                os.read(asked, 1)
                os.execv(second, [str(second)])  # noqa: S606
            finally:
                os._exit(127)
        os.close(asked)
        os.close(tell)
        try:
            yield cls(pid, ask, told)
        finally:
            os.close(ask)
            os.close(told)

    def first(self) -> int:
        """The errno of its first call."""
        os.write(self.ask, b"1")
        return os.read(self.told, 1)[0]

    def second(self) -> int:
        """The status with which what it executes then ends."""
        os.write(self.ask, b"2")
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.parametrize("how", ["unload", "close"])
def test_who_is_asleep_is_waited_for(folder: Path, sequences: int, how: str) -> None:
    """Held in the program that may sleep: the event comes, and the call goes on unharmed."""
    path = script(folder / "x")
    for _ in range(1 + sequences // 4):
        with Agent() as agent, ThreadPoolExecutor(5) as pool:
            agent.load(Policy("watch", MAPPED, path=str(path), post=True, hash=True))
            with arguments_held() as page:
                held = [pool.submit(map_it, path) for _ in range(4)]
                with map_named("hpn_mmap_file") as chains:
                    wait(partial(asleep, chains, 4), "four calls are in the chain")
                gone = pool.submit(agent.close) if how == "close" else _unloading(agent, pool)
                begun = _half_detached if how == "close" else _turned_over
                wait(begun, "it has begun")
                time.sleep(0.5)  # who does not wait detaches the rest within a tenth of a second
                assert begun()
                assert not gone.done()
                page.open()
                gone.result(60)
                assert [each.result(60) for each in held] == [None] * 4
            assert [each.hash for each in until(agent, 4)] == [sha256(path)] * 4


def _unloading(agent: Agent, pool: ThreadPoolExecutor) -> Future[None]:
    return pool.submit(agent.unload, "watch")


def _turned_over() -> bool:
    """The epoch is another one than at the beginning, for there is something to wait for."""
    with map_named("hpm_mmap_file") as settings:
        raw = settings.get(bytes(4))
    assert raw is not None
    return raw != bytes(layout.CHAIN_SETTINGS.size)


def _half_detached() -> bool:
    """The first programs are, and `send` is not."""
    names = {each.id: each.name for each in census.programs()}
    left = [each for each in census.links() if each.function == "bpf_lsm_mmap_file"]
    return [names.get(each.program) for each in left] == ["hpe_mmap_file"]


def test_policies_come_and_go_while_programs_run(folder: Path, sequences: int) -> None:
    """Each event is of a policy that was there, and the one that stays misses nothing."""
    path = script(folder / "x")
    stop = threading.Event()
    count = [0, 0]

    def load(number: int) -> None:
        while not stop.is_set():
            assert run(path) == 0
            count[number] += 1

    with Agent() as agent, ThreadPoolExecutor(2) as pool:
        agent.load(Policy("stays", CHECK, path=str(path), post=True, hash=True))
        done = [pool.submit(load, each) for each in range(2)]
        try:
            for _ in range(sequences):
                agent.load(Policy("comes", CHECK, path=str(path), post=True))
                agent.unload("comes")
        finally:
            stop.set()
        [each.result(60) for each in done]
        events = until(agent, sum(count))
        assert {each.hash for each in events} == {sha256(path)}
        assert sum("stays" in each.policies for each in events) == sum(count)
        assert not any(name.startswith("#") for each in events for name in each.policies)


def test_no_room_for_three_programs(folder: Path) -> None:
    """The places of others are respected, and nothing is left of what was attached already."""
    found = btf.vmlinux().function("bpf_lsm_bprm_check_security")
    (answer,) = probes.run(("trampoline_limit",))
    assert found is not None
    assert isinstance(answer.value, int)
    with contextlib.ExitStack() as stack:
        numbers: list[int] = []
        stack.callback(ids.wait_gone, numbers, ())
        for _ in range(answer.value - 2):
            program = lib.hp_return_zero_load(
                lib.BPF_TRACE_FENTRY, found.btf_id, b"stranger", ffi.NULL, 0
            )
            stack.callback(os.close, program)
            numbers.append(ids.program_id(program))
            stack.callback(os.close, lib.bpf_raw_tracepoint_open(ffi.NULL, program))
        with Agent() as agent:
            with pytest.raises(Refused, match="no further program fits"):
                agent.load(Policy("watch", CHECK, path=str(folder / "x"), post=True))
            assert agent.status().functions == {}
