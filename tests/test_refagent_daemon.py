# SPDX-License-Identifier: Apache-2.0
"""The daemon's socket, its clients, and the way of events to them.

Nothing is loaded here: what the kernel does is tests/test_refagent_guest.py's.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import queue
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from refagent import connections, outlet, protocol
from refagent.agent import Agent
from refagent.client import Client
from refagent.daemon import Daemon
from refagent.errors import AgentError, BpfError, Refused, Unreachable
from refagent.events import Event
from refagent.ops import load_all
from refagent.policy import Policy
from refagent.shared import Totals


def event(number: int) -> Event:
    return Event(number, "security_path_mkdir", 7, 7, 0, "\udcff", "/x", (), ("a",), None, 1, None)


class Eventful(Agent):
    """An agent whose events come from the test, not from a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: queue.SimpleQueue[list[Event]] = queue.SimpleQueue()
        self.events_lost = 0
        self.closed = False
        self.failure: AgentError | None = None

    def events(self, seconds: float = 0.0) -> list[Event]:
        if self.failure is not None:
            raise self.failure
        with contextlib.suppress(queue.Empty):
            return self.sent.get(block=bool(seconds), timeout=min(seconds, 0.05) or None)
        return []

    def totals(self) -> Totals:
        return Totals(self.events_lost, 0, 0)

    def close(self) -> None:
        self.closed = True
        super().close()


@dataclass
class Running:
    """A daemon in this process."""

    path: Path
    agent: Eventful = field(default_factory=Eventful)

    @contextlib.contextmanager
    def run(self, events: int | None = None) -> Iterator[Daemon]:
        ready = threading.Event()
        daemon = Daemon(self.path, events, lambda: self.agent)
        failures: list[Exception] = []

        def body() -> None:
            try:
                daemon.run(ready.set)
            except AgentError as failure:
                failures.append(failure)
            finally:
                ready.set()

        thread = threading.Thread(target=body)
        thread.start()
        try:
            assert ready.wait(60)
            yield daemon
        finally:
            daemon.stop()
            thread.join(60)
            assert not thread.is_alive()
        if failures:
            raise failures[0]

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(60)
        sock.connect(str(self.path))
        return sock


@pytest.fixture
def running(tmp_path: Path) -> Running:
    return Running(tmp_path / "control.sock")


def begin_and_end(path: Path) -> None:
    daemon = Daemon(path)
    daemon.stop()
    daemon.run()


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """No test waits for good for something that does not come."""

    def ring(_signal: int, _frame: object) -> None:
        raise AssertionError("waited in vain")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 60)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def ask(sock: socket.socket, request: object) -> Any:
    raw = request if isinstance(request, bytes) else json.dumps(request).encode() + b"\n"
    sock.sendall(raw)
    return json.loads(line_of(sock))


def line_of(sock: socket.socket) -> bytes:
    """The next line, and not a byte more."""
    line = b""
    while not line.endswith(b"\n"):
        byte = sock.recv(1)
        assert byte, line
        line += byte
    return line


def wait_for(condition: Callable[[], object], what: str) -> None:
    """A daemon thread's next step cannot be waited for otherwise."""
    waiting = threading.Event()
    for _ in range(6000):
        if condition():
            return
        waiting.wait(0.01)
    raise AssertionError(f"waited in vain for {what}")


def test_the_socket_is_its_users_only_whatever_the_umask(running: Running) -> None:
    before = os.umask(0)
    try:
        with running.run():
            assert stat.S_IMODE(running.path.stat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert not running.path.exists()


def test_a_folder_is_made_for_it(tmp_path: Path) -> None:
    with Running(tmp_path / "new" / "control.sock").run():
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_a_socket_without_a_daemon_is_replaced(running: Running) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(running.path))
    with running.run(), Client(running.path) as client:
        assert client.request("list") == []


def test_a_second_daemon_is_refused_and_disturbs_nothing(running: Running) -> None:
    with running.run():
        with pytest.raises(Refused, match="a daemon runs there already; stop it, or choose"):
            begin_and_end(running.path)
        with Client(running.path) as client:
            assert client.request("list") == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("file", "is no socket; choose another --socket"),
        ("no/such/socket", "No such file or directory; choose another --socket"),
        ("x" * 108, "path too long; choose another --socket"),
    ],
)
def test_where_there_can_be_no_socket(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(Refused, match=words):
        begin_and_end(tmp_path / name)
    assert (tmp_path / "file").read_text() == "kept"


def test_clients_are_served_side_by_side(running: Running) -> None:
    with running.run(), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(running.path)) for _ in range(5)]
        for client in [*clients, *reversed(clients)]:
            assert client.request("policies") == []
        status = clients[0].request("status")
        assert (status["clients"], status["pid"]) == (5, os.getpid())


def test_there_is_an_end_of_clients(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CLIENTS", 2)
    with running.run(), Client(running.path) as first:
        with Client(running.path) as second:
            second.request("list")
            with Client(running.path) as third, pytest.raises(Refused, match="2 clients are"):
                third.request("list")
        wait_for(lambda: first.request("status")["clients"] == 1, "the second one to leave")
        with Client(running.path) as fourth:
            assert fourth.request("list") == []


def test_a_client_without_a_thread_ends_nothing(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine whose processes are all taken."""

    def none(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with running.run(), Client(running.path) as first:
        assert first.request("list") == []
        with monkeypatch.context() as full:
            full.setattr(connections._Client, "start", none)
            with Client(running.path) as second, pytest.raises(Refused, match="can't start new"):
                second.request("list")
        assert first.request("status")["clients"] == 1


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (b"{\n", "not understood"),
        (b"[" * 100_000 + b"\n", "not understood"),
        ({"op": "events"}, "'events' is missing or unknown; ops are load, unload,"),
        ({"op": "stop"}, "'stop' is missing or unknown"),
        ({"op": "load", "policies": 7}, "policies is to be a list"),
    ],
)
def test_what_is_no_request_ends_nothing(running: Running, request_: object, words: str) -> None:
    with running.run(), running.connect() as sock:
        assert words in ask(sock, request_)["error"]
        assert ask(sock, {"op": "list"}) == {"ok": []}


def test_a_request_without_end_ends_its_connection(running: Running) -> None:
    with running.run(), running.connect() as sock:
        longest = b'"' + b"x" * (protocol.LONGEST - 3) + b'"\n'
        assert "not understood" in ask(sock, longest)["error"]
        assert "at most 1048576 bytes" in ask(sock, b"x" * (protocol.LONGEST + 1))["error"]
        assert sock.recv(1) == b""


def test_a_request_that_is_too_long_is_not_sent(running: Running) -> None:
    with running.run(), Client(running.path) as client:
        with pytest.raises(Refused, match="at most 1048576 bytes, not 10000"):
            client.request("list", more="x" * 10_000_000)
        assert client.request("list") == []


def test_several_policies_are_loaded_all_or_none() -> None:
    done = []

    class Strict(Agent):
        def load(self, policy: Policy) -> None:
            if policy.name == "c":
                raise Refused("no")
            done.append(f"load {policy.name}")

        def unload(self, name: str) -> None:
            done.append(f"unload {name}")
            if name == "a":
                raise Refused("gone")

    policies = [Policy(name, "security_path_mkdir") for name in "abcd"]
    with Strict() as agent, pytest.raises(Refused, match="policy c: no"):
        load_all(agent, policies)
    assert done == ["load a", "load b", "unload b", "unload a"]
    done.clear()
    with Strict() as agent:
        load_all(agent, policies[:2])
    assert done == ["load a", "load b"]


def test_events_go_to_the_file_and_to_all_that_follow(running: Running, tmp_path: Path) -> None:
    with (tmp_path / "events").open("ab") as file, contextlib.ExitStack() as stack:
        stack.enter_context(running.run(file.fileno()))
        clients = [stack.enter_context(Client(running.path)) for _ in range(3)]
        streams = [client.follow() for client in clients]
        expected = [
            event(number).to_json() | {"arguments": [], "policies": ["a"]} for number in (1, 2)
        ]
        running.agent.sent.put([event(1)])
        running.agent.sent.put([event(2)])
        for stream in streams:
            assert [json.loads(next(stream)) for _ in expected] == expected
        running.agent.events_lost = 7
        for stream in streams:
            assert json.loads(next(stream)) == {"lost": 7}
        running.agent.sent.put([event(3)])
        for stream in streams:
            assert json.loads(next(stream))["time"] == 3
    lines = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    assert lines[:2] == expected
    assert lines[2] == {"lost": 7}
    assert [line["time"] for line in lines[3:]] == [3]


def test_the_last_events_come_after_the_policies_have_gone(running: Running) -> None:
    agent = running.agent
    last: list[Event] = []

    def events(seconds: float = 0.0) -> list[Event]:
        if agent.closed and not last:
            last.append(event(9))
            return [event(9)]
        return Eventful.events(agent, seconds)

    agent.events = events  # type: ignore[method-assign]
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(contextlib.ExitStack())
        with running.run():
            stream = client.enter_context(Client(running.path)).follow()
        assert [json.loads(line)["time"] for line in stream] == [9]


def test_who_does_not_read_holds_up_nobody_and_is_told_its_losses(
    running: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(outlet, "QUEUE", 500)
    count = 2000  # more than a queue and a socket hold
    path = tmp_path / "events"
    with (
        path.open("ab") as file,
        running.run(file.fileno()),
        Client(running.path) as slow,
        Client(running.path) as quick,
        Client(running.path) as asking,
    ):
        slow_stream, quick_stream = slow.follow(), quick.follow()
        for number in range(count):
            running.agent.sent.put([event(number)])
            assert json.loads(next(quick_stream))["time"] == number
            if number % 100 == 99:
                wait_for(functools.partial(_is_last, path, number), "the file")
        missed = asking.request("status")["events_missed"]
        assert missed > 0
        # What it did get is a beginning, and then it is told how many are missing.
        got = []
        while "lost" not in (line := json.loads(next(slow_stream))):
            got.append(line["time"])
        assert got == list(range(len(got)))
        assert len(got) + line["lost"] == count
        assert line["lost"] == missed
        running.agent.sent.put([event(count)])
        assert json.loads(next(slow_stream))["time"] == count
        assert json.loads(next(quick_stream))["time"] == count
        slow.close()
        wait_for(lambda: asking.request("status")["events_readers"] == 2, "it to leave")
        assert asking.request("status")["events_missed"] == missed
    assert times(path) == list(range(count + 1))


def _is_last(path: Path, number: int) -> bool:
    return times(path)[-1:] == [number]


def times(path: Path) -> list[int]:
    """Of the events in a file to which somebody may be adding one."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line)["time"] for line in lines if line.endswith("\n")]


def test_a_reader_that_goes_frees_its_place(running: Running) -> None:
    with running.run(), Client(running.path) as asking:
        with Client(running.path) as follower:
            follower.follow()
            assert asking.request("status")["events_readers"] == 1
        wait_for(lambda: asking.request("status")["events_readers"] == 0, "it to be noticed")
        wait_for(lambda: asking.request("status")["clients"] == 1, "it to be noticed")


def test_clients_that_read_nothing_do_not_hold_up_the_end(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_PATIENCE", 0.1)
    monkeypatch.setattr(outlet, "_PATIENCE", 0.1)
    pipe_read, pipe_write = os.pipe()
    with contextlib.ExitStack() as stack:
        with running.run(pipe_write):
            follower = stack.enter_context(Client(running.path))
            follower.follow()
            asking = stack.enter_context(running.connect())
            asking.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while asking.send(b'{"op": "status"}\n' * 100):
                    pass
            for number in range(5000):
                running.agent.sent.put([event(number)])
            running.agent.sent.put([])
            wait_for(running.agent.sent.empty, "the events to be taken")
        assert running.agent.closed
    os.close(pipe_read)
    os.close(pipe_write)


@dataclass
class Slow:
    """A load that takes as long as the test likes."""

    running: Running
    begun: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    closed_too_early: bool = False

    def __post_init__(self) -> None:
        self.running.agent.load = self.load  # type: ignore[method-assign]

    def load(self, policy: Policy) -> None:
        self.begun.set()
        assert self.go_on.wait(60)
        self.closed_too_early |= self.running.agent.closed

    def begin(self, sock: socket.socket) -> None:
        policy = {"name": "a", "hook": "security_path_mkdir"}
        sock.sendall(protocol.encode({"op": "load", "policy": policy}) * 2)
        assert self.begun.wait(60)


def test_what_is_being_done_at_the_end_is_done_and_answered(running: Running) -> None:
    slow = Slow(running)
    with contextlib.ExitStack() as stack:
        with running.run() as daemon:
            sock = stack.enter_context(running.connect())
            slow.begin(sock)
            daemon.stop()
            wait_for(lambda: not _takes(sock), "it to hear no more requests")
            slow.go_on.set()
        assert json.loads(line_of(sock)) == {"ok": True}
        with contextlib.suppress(ConnectionResetError):  # as not all of it was read
            assert sock.recv(1) == b""  # the second one was not begun
    assert not slow.closed_too_early


def _takes(sock: socket.socket) -> bool:
    try:
        return bool(sock.send(b" "))
    except BrokenPipeError:
        return False


def test_policies_are_unloaded_when_the_last_load_is_done(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_PATIENCE", 0.01)
    slow = Slow(running)
    with contextlib.ExitStack() as stack, running.run() as daemon:
        sock = stack.enter_context(running.connect())
        slow.begin(sock)
        daemon.stop()
        assert sock.recv(1) == b""  # patience has ended
        # Were the load not waited for, the agent would be closed by the end of this.
        threading.Event().wait(0.2)
        slow.go_on.set()
    assert not slow.closed_too_early


def test_events_that_cannot_be_read_end_the_daemon(running: Running) -> None:
    running.agent.failure = BpfError("poll", 5, "it broke")
    with pytest.raises(BpfError, match="it broke"), running.run():
        wait_for(lambda: running.agent.closed, "the end")
    assert not running.path.exists()


def test_it_sweeps_again_and_again_whatever_comes_of_it(running: Running) -> None:
    swept: queue.SimpleQueue[None] = queue.SimpleQueue()

    def sweep() -> int:
        swept.put(None)
        raise BpfError("list map", 12, "no memory")

    running.agent.sweep = sweep  # type: ignore[method-assign]
    with running.run():
        for _ in range(2):
            swept.get(timeout=30)


def test_no_daemon(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="start one with refagent run"):
        Client(tmp_path / "none.sock")
    (tmp_path / "file").touch()
    with pytest.raises(Unreachable, match="no daemon listens at"):
        Client(tmp_path / "file")


def test_a_daemon_that_dies_is_named(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with Client(path) as client:
            listener.accept()[0].close()
            with pytest.raises(Unreachable, match=f"the daemon at {path} has gone without"):
                client.request("list")
