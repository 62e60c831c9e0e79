# SPDX-License-Identifier: Apache-2.0
"""Two threads that close one machine; a callback stands for what the machine holds."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from vm.machine import VirtmeMachine
from vm.portmachine import PortMachine
from vm.watch import Watch

NOTHING: Any = None
WATCH = Watch.load("6.12")


@pytest.mark.parametrize(
    "machine",
    [
        VirtmeMachine(NOTHING, NOTHING, WATCH),
        PortMachine(NOTHING, NOTHING, WATCH, ram=None, private=True, start=NOTHING),
    ],
    ids=["virtme", "port"],
)
def test_each_who_closes_it_returns_when_nothing_is_left(
    machine: VirtmeMachine | PortMachine,
) -> None:
    going, gone = threading.Event(), threading.Event()
    left: list[str] = []

    def end() -> None:
        going.set()
        gone.wait(60)
        left.clear()

    def close() -> None:
        machine.close()
        closed.append(list(left))

    closed: list[list[str]] = []
    left.append("a QEMU")
    machine._stack.callback(end)
    threads = [threading.Thread(target=close) for _ in range(2)]
    threads[0].start()
    assert going.wait(60)
    threads[1].start()
    threads[1].join(0.2)  # it could have returned; if it is slow, the test shows less
    gone.set()
    for thread in threads:
        thread.join(60)
    assert closed == [[], []]
