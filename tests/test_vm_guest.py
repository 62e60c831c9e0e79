# SPDX-License-Identifier: Apache-2.0
"""JSON lines to a guest, over a real socket, with guests that misbehave."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from vm.errors import GuestHang, HostProblem, LostMachine
from vm.guest import Guest


@contextmanager
def served(behave: Callable[[socket.socket], None]) -> Iterator[Guest]:
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with theirs:
            behave(theirs)

    thread = threading.Thread(target=serve)
    thread.start()
    guest = Guest(ours)
    try:
        yield guest
    finally:
        guest.close()
        thread.join(10)
        assert not thread.is_alive()


def test_a_reply_in_pieces_and_two_requests() -> None:
    def behave(line: socket.socket) -> None:
        with line.makefile("rb") as lines:
            for raw in lines:
                reply = json.dumps({"id": json.loads(raw)["id"], "text": "é" * 70_000}).encode()
                line.sendall(reply[:1])
                line.sendall(reply[1:] + b"\n")

    with served(behave) as guest:
        for number in (1, 2):
            reply = guest.request("hello", deadline=10)
            assert reply == {"id": number, "text": "é" * 70_000}


def test_the_fields_of_a_request_are_sent() -> None:
    heard = []

    def behave(line: socket.socket) -> None:
        with line.makefile("rb") as lines:
            heard.append(json.loads(lines.readline()))
        line.sendall(b'{"id": 1}\n')

    with served(behave) as guest:
        guest.request("step", deadline=10, verb="mkdir", calls=[{"path": "/x"}])
    assert heard == [{"id": 1, "op": "step", "verb": "mkdir", "calls": [{"path": "/x"}]}]


def woken_by(reply: bytes) -> bytes:
    """What a guest hears that is woken and gives that reply."""
    heard = []

    def behave(line: socket.socket) -> None:
        with line.makefile("rb") as lines:
            heard.append(lines.readline())
        line.sendall(reply)

    with served(behave) as guest:
        guest.wake(12, b"\x01\xff", deadline=10)
    return heard[0]


def test_waking_is_a_plain_line() -> None:
    assert woken_by(b"awake\n") == b"wake 12 01ff\n"


def test_a_guest_that_cannot_wake_says_why() -> None:
    with pytest.raises(HostProblem, match="cannot wake: OSError: no clock"):
        woken_by(b"OSError: no clock\n")


def test_silence_is_a_hang_that_names_the_request() -> None:
    def behave(line: socket.socket) -> None:
        while line.recv(100):  # until the other side has had enough
            pass

    with served(behave) as guest, pytest.raises(GuestHang, match="no reply to 'step' within"):
        guest.request("step", deadline=0.05)


def test_half_a_line_is_a_hang_too() -> None:
    def behave(line: socket.socket) -> None:
        line.recv(100)
        line.sendall(b'{"id"')
        while line.recv(100):
            pass

    with served(behave) as guest, pytest.raises(GuestHang):
        guest.request("step", deadline=0.05)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"", "the connection to the guest ended"),
        (b"hello\n", "not JSON"),
        (b"\xff\xfe\n", "not JSON"),
        (b"[1]\n", "belongs to another request"),
        (b'{"id": 7}\n', "belongs to another request"),
    ],
)
def test_what_is_no_reply_loses_the_machine(reply: bytes, said: str) -> None:
    def behave(line: socket.socket) -> None:
        line.recv(100)
        line.sendall(reply)

    with served(behave) as guest, pytest.raises(LostMachine, match=said):
        guest.request("step", deadline=10)


def test_a_guest_cannot_fill_our_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vm.guest._LONGEST", 1 << 17)

    def behave(line: socket.socket) -> None:
        line.recv(100)
        try:
            while True:
                line.sendall(b"x" * (1 << 16))
        except OSError:
            pass  # the other side hung up, as it should

    with served(behave) as guest, pytest.raises(LostMachine, match="longer than"):
        guest.request("step", deadline=10)
