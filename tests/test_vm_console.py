# SPDX-License-Identifier: Apache-2.0
"""Waiting on a console: for a word, for a death, for its end, and no longer than allowed."""

from __future__ import annotations

import threading

import pytest

from vm.console import Console
from vm.errors import BootFailure, GuestPanic
from vm.watch import Watch

PANIC = b"[    1.234567] Kernel panic - not syncing: Attempted to kill init!\r\n"


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch.load()


def test_a_mark_is_found_across_chunks(watch: Watch) -> None:
    console = Console(watch)
    waiter = threading.Thread(
        target=lambda: console.wait_for("Server listening", deadline=10, what="sshd")
    )
    waiter.start()
    console.feed(b"\x1b[0mSSS Server lis")
    console.feed(b"tening on 22\r\n")
    waiter.join(10)
    assert not waiter.is_alive()
    assert "Server listening on 22\n" in console.text


def test_a_panic_ends_the_wait(watch: Watch) -> None:
    console = Console(watch)
    console.feed(PANIC)
    with pytest.raises(GuestPanic, match="Attempted to kill init"):
        console.wait_for("Server listening", deadline=10, what="sshd")
    fatal = console.fatal
    assert fatal is not None
    assert fatal.kind == "panic"


def test_a_panic_without_a_last_newline_counts(watch: Watch) -> None:
    console = Console(watch)
    console.feed(PANIC.rstrip())
    assert console.fatal is None
    console.end()
    assert console.fatal is not None


def test_the_end_of_qemu_ends_the_wait(watch: Watch) -> None:
    console = Console(watch)
    console.feed(b"SeaBIOS\n")
    console.end()
    with pytest.raises(BootFailure, match="the machine ended while waiting for sshd"):
        console.wait_for("Server listening", deadline=10, what="sshd")
    assert console.wait_ended(0)


def test_a_deadline_says_what_was_waited_for(watch: Watch) -> None:
    console = Console(watch)
    with pytest.raises(BootFailure, match="no sshd within 0 s"):
        console.wait_for("Server listening", deadline=0.02, what="sshd")
    assert not console.wait_ended(0)


def test_memory_is_bounded_and_both_ends_are_kept(watch: Watch) -> None:
    console = Console(watch)
    console.feed(b"the beginning\n")
    for _ in range(64):
        console.feed(b"noise\n" * 20_000)
    console.feed(b"the end\n")
    text = console.text
    assert text.startswith("the beginning\n")
    assert text.endswith("the end\n")
    assert "left out" in text
    assert len(text) < 2 << 20
