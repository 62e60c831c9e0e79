# SPDX-License-Identifier: Apache-2.0
"""QMP, spoken with a QEMU without a machine; strange replies come from a socket of our own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from vm.errors import HostProblem, LostMachine
from vm.qmp import Qmp

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 1}}, "capabilities": []}}


@pytest.fixture
def qemu() -> Iterator[tuple[Qmp, subprocess.Popen[bytes]]]:
    ours, theirs = socket.socketpair()
    argv = ["qemu-system-x86_64", "-machine", "none", "-display", "none", "-nodefaults"]
    argv += ["-chardev", f"socket,id=qmp,fd={theirs.fileno()}", "-mon", "chardev=qmp,mode=control"]
    with ours, subprocess.Popen(argv, pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        yield Qmp(ours), process
        process.kill()


@pytest.fixture
def line() -> Iterator[tuple[Qmp, socket.socket]]:
    """A connection whose other end is the test's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Qmp(ours), theirs


def test_its_version_is_the_programs(qemu: tuple[Qmp, subprocess.Popen[bytes]]) -> None:
    said = subprocess.run(["qemu-system-x86_64", "--version"], stdout=subprocess.PIPE, check=True)
    assert f"version {qemu[0].greet(deadline=20)} ".encode() in said.stdout


def test_a_command_gives_what_it_returns(qemu: tuple[Qmp, subprocess.Popen[bytes]]) -> None:
    qmp, _ = qemu
    qmp.greet(deadline=20)
    assert qmp.execute("query-status", deadline=20)["running"] is True
    assert qmp.execute("stop", deadline=20) == {}
    assert qmp.execute("query-status", deadline=20)["status"] == "paused"


def test_a_refusal_names_the_command_and_the_reason(
    qemu: tuple[Qmp, subprocess.Popen[bytes]],
) -> None:
    qmp, _ = qemu
    qmp.greet(deadline=20)
    with pytest.raises(HostProblem, match=r"QEMU refused 'device_del': .*nothing-of-this-name"):
        qmp.execute("device_del", deadline=20, id="nothing-of-this-name")
    assert "status" in qmp.execute("query-status", deadline=20)


def test_a_descriptor_goes_along(qemu: tuple[Qmp, subprocess.Popen[bytes]]) -> None:
    qmp, process = qemu
    qmp.greet(deadline=20)
    reading, writing = os.pipe()
    try:
        node = os.fstat(reading).st_ino
        links = f"/proc/{process.pid}/fd"
        assert f"pipe:[{node}]" not in opened(links)
        qmp.execute("getfd", deadline=20, fd=reading, fdname="given")
        assert f"pipe:[{node}]" in opened(links)
    finally:
        os.close(reading)
        os.close(writing)


def opened(links: str) -> set[str]:
    return {os.readlink(f"{links}/{name}") for name in os.listdir(links)}  # noqa: PTH115, PTH208


def test_its_end_is_seen_at_once(qemu: tuple[Qmp, subprocess.Popen[bytes]]) -> None:
    qmp, process = qemu
    qmp.greet(deadline=20)
    process.kill()
    process.wait()
    with pytest.raises(LostMachine, match="'query-status'"):
        qmp.execute("query-status", deadline=20)


def test_a_qemu_that_does_not_answer_is_not_waited_for_longer(
    qemu: tuple[Qmp, subprocess.Popen[bytes]],
) -> None:
    qmp, process = qemu
    qmp.greet(deadline=20)
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(HostProblem, match="QEMU did not come to 'query-status' in time"):
        qmp.execute("query-status", deadline=0.1)


def say(line: socket.socket, *messages: object) -> None:
    line.sendall(b"".join(json.dumps(message).encode() + b"\r\n" for message in messages))


def test_an_event_that_came_before_is_found(line: tuple[Qmp, socket.socket]) -> None:
    qmp, theirs = line
    say(theirs, GREETING, {"event": "RESUME"}, {"return": {}})
    assert qmp.greet(deadline=20) == "7.2.1"
    say(
        theirs,
        {"event": "MIGRATION", "data": {"status": "setup"}},
        {"event": "MIGRATION", "data": {"status": "completed"}},
        {"return": {"a": 1}},
        {"event": "STOP"},
    )
    assert qmp.execute("migrate", deadline=20) == {"a": 1}
    assert qmp.wait_for(
        "MIGRATION", deadline=20, status=("completed", "failed"), after="migrate"
    ) == {"status": "completed"}
    with pytest.raises(HostProblem, match="the end of 'migrate' in time"):
        qmp.wait_for("MIGRATION", deadline=0.05, status=("completed",), after="migrate")


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"no JSON\n", "not JSON instead of 'stop'"),
        (b"[]\n", "no object instead of 'stop'"),
        (b"\xff" * ((1 << 20) + 1), "no end of a line instead of 'stop'"),
    ],
)
def test_a_strange_reply_is_refused(
    line: tuple[Qmp, socket.socket], tmp_path: Path, sent: bytes, message: str
) -> None:
    qmp, theirs = line
    (tmp_path / "sent").write_bytes(sent)
    with subprocess.Popen(["cat", tmp_path / "sent"], stdout=theirs.fileno()) as writer:
        with pytest.raises(HostProblem, match=message):
            qmp.execute("stop", deadline=20)
        writer.kill()
