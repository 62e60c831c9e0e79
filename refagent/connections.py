# SPDX-License-Identifier: Apache-2.0
"""The clients of a daemon: a thread for each, which answers its requests or sends it events."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from typing import IO, Final

from refagent import protocol
from refagent.agent import Agent
from refagent.feed import Feed
from refagent.ops import OPS, Message, Op, answer
from refagent.outlet import Line, Outlet

#: Connections at a time.
CLIENTS: Final = 64
#: Seconds for which clients that do not read their answers can hold up the end.
_PATIENCE: Final = 5.0
_FOLLOWING: Final[Message] = {"ok": "following"}


class Connections:
    """For one agent; `begin`, `dismiss` and `end` are for one thread.

    Args:
        agent: who is asked.
        feed: where the events come from.
    """

    def __init__(self, agent: Agent, feed: Feed) -> None:
        self.agent, self.feed = agent, feed
        self.ops: Mapping[str, Op] = {
            **OPS,
            "status": self._status,
            "follow": lambda _, __: _FOLLOWING["ok"],
        }
        self._lock = threading.Lock()
        self._clients: set[_Client] = set()
        self._dismissed = False

    def begin(self, sock: socket.socket) -> None:
        """Takes a connection over, or refuses it."""
        client = _Client(sock, self)
        with self._lock:
            room = len(self._clients) < CLIENTS
            if room:
                self._clients.add(client)
        refusal = {"refused": f"{CLIENTS} clients are connected already"}
        if room:
            try:
                client.start()
            except RuntimeError as lack:  # of processes, as a fork bomb takes them all
                self.leave(client)
                refusal = {"refused": f"this client cannot be served: {lack}"}
            else:
                return
        with sock, contextlib.suppress(OSError):
            sock.send(protocol.encode(refusal), socket.MSG_DONTWAIT)

    def dismiss(self) -> None:
        """Ends those that ask: when it returns, nobody changes the agent any more.

        What is being done is done to its end, and answered.
        """
        with self._lock:
            self._dismissed = True
            asking = [each for each in self._clients if each.outlet is None]
        _shut(asking, socket.SHUT_RD)
        end = time.monotonic() + _PATIENCE
        for each in asking:
            each.join(max(0.0, end - time.monotonic()))
        _shut(asking, socket.SHUT_RDWR)
        for each in asking:
            each.join()

    def end(self) -> None:
        """Ends those that follow, too, when they have got what there is or do not take it."""
        with self._lock:
            following = list(self._clients)
        for each in following:
            if each.outlet is not None:
                each.outlet.close()
        for each in following:
            each.join()

    def may_follow(self, client: _Client, outlet: Outlet) -> bool:
        """Whether there will be events for it; it is then no longer one of those that ask."""
        with self._lock:
            if not self._dismissed:
                client.outlet = outlet
            return not self._dismissed

    def is_dismissed(self) -> bool:
        """Whether no further request is to be answered."""
        return self._dismissed

    def leave(self, client: _Client) -> None:
        """Its thread has nothing more to do."""
        with self._lock:
            self._clients.remove(client)

    def _status(self, agent: Agent, request: Message) -> Message:
        readers, missed = self.feed.readers()
        with self._lock:
            clients = len(self._clients)
        status: Message = OPS["status"](agent, request)
        return status | {
            "pid": os.getpid(),
            "clients": clients,
            "events_readers": readers,
            "events_missed": missed,
        }


class _Client(threading.Thread):
    """One connection; it has an outlet if it follows events."""

    def __init__(self, sock: socket.socket, among: Connections) -> None:
        super().__init__(name="client")
        self.sock, self._among = sock, among
        self.outlet: Outlet | None = None

    def run(self) -> None:
        """Serves it until one of both goes."""
        try:
            with self.sock, contextlib.suppress(OSError):
                with self.sock.makefile("rb") as requests:
                    wants_events = self._answer(requests)
                if wants_events:
                    self._follow()
        finally:
            self._among.leave(self)

    def _answer(self, requests: IO[bytes]) -> bool:
        """Answers until the stream ends, or it is to be one of events."""
        while not self._among.is_dismissed():
            try:
                line = protocol.read_line(requests)
            except ValueError as mistake:
                self.sock.sendall(protocol.encode({"error": str(mistake)}))
                return False
            if not line:
                return False
            reply = answer(self._among.agent, self._among.ops, line)
            if reply == _FOLLOWING:
                return True
            self.sock.sendall(protocol.encode(reply))
        return False

    def _follow(self) -> None:
        outlet = Outlet(self.sock.fileno(), client=True)
        if self._among.may_follow(self, outlet):
            self._among.feed.join(outlet, Line(protocol.encode(_FOLLOWING)))
            try:
                outlet.run()
            finally:
                self._among.feed.leave(outlet)


def _shut(clients: Iterable[_Client], how: int) -> None:
    for each in clients:
        with contextlib.suppress(OSError):  # it has gone
            each.sock.shutdown(how)
