# SPDX-License-Identifier: Apache-2.0
"""What a restored machine does first; on real ones in tests/test_vm_snapshot.py."""

from __future__ import annotations

import fcntl
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hookproof.guest import awake

#: What a restored executor has loaded (hookproof/guest/executor.py, `_warm`).
_LOADED = "from hookproof.guest import agents, census, executor, steps; agents.warm()"


def test_clock_and_entropy_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[object, ...]] = []
    monkeypatch.setattr(time, "clock_settime_ns", lambda *what: done.append(what))
    monkeypatch.setattr(fcntl, "ioctl", lambda _fd, *what: done.append(what))
    entropy = bytes(range(64))
    assert awake.wake(f"wake 1700000000000000000 {entropy.hex()}\n".encode()) == b"awake\n"
    assert done == [
        (time.CLOCK_REALTIME, 1700000000000000000),
        (0x40085203, struct.pack("ii64s", 512, 64, entropy)),
        (0x5207,),
    ]


@pytest.mark.parametrize("line", [b"wake\n", b"wake now 00\n"])
def test_a_line_that_is_not_understood_is_said(line: bytes) -> None:
    assert awake.wake(line).startswith(b"ValueError: ")


def test_a_refusal_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_what: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(time, "clock_settime_ns", refuse)
    assert awake.wake(b"wake 1 00\n") == b"PermissionError: [Errno 1] Operation not permitted\n"


def test_python_s_own_generator_is_not_loaded() -> None:
    paths = [str(Path(__file__).resolve().parents[1]), *sys.path]
    code = f"import sys; sys.path[:0] = {paths!r}; {_LOADED}; assert 'random' not in sys.modules"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, timeout=60)
