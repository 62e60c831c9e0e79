# SPDX-License-Identifier: Apache-2.0
"""Probes of the maps that carry data out of the kernel and from one call to the next."""

from __future__ import annotations

import os

from refagent.errors import AgentError
from refagent.libbpf.ringbuf import RingBuffer
from refagent.probes.answers import Finding, kernel_says
from refagent.probes.trying import SECURITY, SYSCALL, call, slots, trying


def ringbuf() -> Finding:
    """Has a program emit a number, and receives it."""
    number = int.from_bytes(os.urandom(8), "little")
    with (
        trying(
            "probe_ringbuf",
            {"emit": ""},
            lambda program: program.attach_kprobe(SYSCALL),
            number=number,
        ) as canary,
        kernel_says(),
        RingBuffer(canary.map("records")) as reader,
    ):
        call()
        records = reader.poll(1.0)
    if records != [number.to_bytes(8, "little")]:
        raise AgentError(f"one record was sent, {len(records)} came: {records[:3]}")
    return Finding("a record came through a ring buffer")


def task_storage() -> Finding:
    """Has a program count this task's calls in the task's own storage."""
    with trying("probe_storage", {"store": SECURITY}) as canary:
        call()
        call()
        (stored,) = slots(canary.map("seen"), 1)
    if stored != 2:
        raise AgentError(f"after two calls the task's storage holds {stored}")
    return Finding("a task's second call found what the first one stored")
