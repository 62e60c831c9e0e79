# SPDX-License-Identifier: Apache-2.0
"""The guardian: whatever becomes of us, the process group and the folder are gone.

A shell stands in for QEMU, as it is the guardian that is tested here; the same with real
guests is in test_vm_machine.py.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vm import rundir
from vm.console import Console
from vm.qemu import FIRST_LINE, Qemu
from vm.watch import Watch

#: Two processes in one group: the second must not survive the first.
PAIR = 'sleep 1000 & echo "ready $! $$"; echo words >&2; wait'


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOOKPROOF_CACHE", str(tmp_path))
    return tmp_path


def pids(console: Console) -> list[int]:
    console.wait_for("ready", deadline=20, what="the shell")
    until(lambda: console.text.endswith("\n"), "a whole line")
    return [int(word) for word in console.text.split()[1:]]


def test_closing_kills_the_group_and_removes_the_folder(cache: Path) -> None:
    console = Console(Watch.load())
    with rundir.create() as folder:
        with Qemu(["sh", "-c", PAIR], folder, console) as qemu:
            both = pids(console)
            assert all(map(alive, both))
            until(lambda: qemu.words == "words", "its words")
        assert not any(map(alive, both))
        assert not folder.exists()
    assert console.ended
    assert list((cache / "run").iterdir()) == []


def test_the_end_of_the_program_is_seen_while_the_guardian_waits(cache: Path) -> None:
    console = Console(Watch.load())
    with rundir.create() as folder, Qemu(["sh", "-c", "echo bye"], folder, console):
        assert console.wait_ended(20)
        assert console.text == "bye\n"


def test_lines_reach_the_program_and_nobody_else(cache: Path) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    script = "read word <&{0}; echo $word there >&{1}; read word <&{0}; echo over"
    script = script.format(FIRST_LINE, FIRST_LINE + 1)
    with rundir.create() as folder:
        console = Console(Watch.load())
        with Qemu(["sh", "-c", script], folder, console, [pair[1] for pair in pairs]):
            for ours, _ in pairs:
                ours.settimeout(20)
            pairs[0][0].sendall(b"hello\n")
            assert pairs[1][0].recv(100) == b"hello there\n"
            # It sees the end of a line, as it does not hold our end itself,
            pairs[0][0].close()
            console.wait_for("over", deadline=20, what="its last word")
            # and we see its end, although its guardian lives on.
            assert pairs[1][0].recv(100) == b""
    assert [theirs.fileno() for _, theirs in pairs] == [-1, -1]
    pairs[1][0].close()


def test_more_lines_than_a_guardian_can_close(cache: Path) -> None:
    pairs = [socket.socketpair() for _ in range(8)]
    with rundir.create() as folder, pytest.raises(ValueError, match="8 lines"):
        Qemu(["true"], folder, Console(Watch.load()), [pair[1] for pair in pairs])
    for end in [end for pair in pairs for end in pair]:
        end.close()


def test_a_program_that_is_not_there(cache: Path) -> None:
    console = Console(Watch.load())
    with rundir.create() as folder, Qemu(["/no/such/qemu"], folder, console) as qemu:
        assert console.wait_ended(20)
        until(lambda: "/no/such/qemu" in qemu.words, "setsid's complaint")


OWNER = f"""
import os, signal, sys, time
from vm import rundir
from vm.console import Console
from vm.qemu import FIRST_LINE, Qemu
from vm.watch import Watch
console = Console(Watch.load())
with rundir.create() as folder, Qemu(["sh", "-c", {PAIR!r}], folder, console):
    console.wait_for("ready", deadline=20, what="the shell")
    while not console.text.endswith("\\n"):
        time.sleep(0.01)
    print(*console.text.split()[1:], flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_a_killed_owner(cache: Path, blow: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        both = [int(word) for word in owner.stdout.readline().split()]
        assert len(both) == 2
        owner.send_signal(blow)
        owner.wait(20)
    until(lambda: not any(map(alive, both)), "the end of the group")
    until(lambda: not list((cache / "run").iterdir()), "the end of the folder")


def test_the_next_run_sweeps_what_a_killed_guardian_left(cache: Path) -> None:
    stale = cache / "run" / "stale"
    stale.mkdir(parents=True)
    left = subprocess.Popen(["sh", "-c", "sleep 1000; :", str(stale)], start_new_session=True)
    unrelated = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        (stale / "qemu.pid").write_text(str(left.pid), encoding="ascii")
        other = cache / "run" / "other"
        other.mkdir()
        (other / "qemu.pid").write_text(str(unrelated.pid), encoding="ascii")
        rundir.sweep()
        assert left.wait(20) == -signal.SIGKILL
        assert unrelated.poll() is None, "a process that does not run from the folder was killed"
        assert list((cache / "run").iterdir()) == []
    finally:
        for process in (left, unrelated):
            process.kill()
            process.wait()


def test_a_sweep_leaves_living_runs_alone(cache: Path) -> None:
    with rundir.create() as folder:
        sweeper = subprocess.run(
            [sys.executable, "-c", "from vm import rundir; rundir.sweep()"],
            env=os.environ | {"HOOKPROOF_CACHE": str(cache)},
            check=False,
        )
        assert sweeper.returncode == 0
        assert folder.exists()
