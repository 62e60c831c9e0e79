# SPDX-License-Identifier: Apache-2.0
"""One agent for many: a control socket, and events for a file and for whoever follows them."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from refagent.agent import Agent
from refagent.connections import Connections
from refagent.feed import Feed
from refagent.listener import listening
from refagent.outlet import Outlet

#: Seconds until the next attempt to accept a connection after one that failed.
_PAUSE: Final = 0.1


class Daemon:
    """Runs until `stop`; then nothing of it is left in the kernel, and no socket.

    Args:
        path: of the control socket.
        events: where events go as JSON lines: a descriptor that stays open, or None.
        agent: makes the agent.
        end: ends it.

    Attributes:
        wakeup: a descriptor; a byte that is written there is as good as `stop`.
    """

    def __init__(
        self,
        path: Path,
        events: int | None = None,
        agent: Callable[[], Agent] = Agent,
        end: Callable[[Agent], None] = lambda agent: agent.close(),
    ) -> None:
        self._path, self._events, self._agent, self._end = path, events, agent, end
        self._stopping, self.wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for each in (self._stopping, self.wakeup):
            weakref.finalize(self, os.close, each)

    def stop(self) -> None:
        """Lets `run` end; for any thread and for signal handlers, any number of times."""
        with contextlib.suppress(BlockingIOError):  # it is full of what says the same
            os.write(self.wakeup, b"\0")

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serves until `stop`.

        Args:
            ready: called once clients can connect.

        Raises:
            Refused: there can be no socket at this path.
            BpfError: events cannot be read, or the last unload failed; all else is given back.
        """
        # What is entered last ends first: nobody connects any more, nobody asks any more, the
        # policies are unloaded, the last events read, and sent.
        with listening(self._path) as listener, contextlib.ExitStack() as ends:
            agent = self._agent()
            feed = Feed(agent)
            connections = Connections(agent, feed)
            ends.callback(connections.end)
            if self._events is not None:
                ends.enter_context(_written(feed, self._events))
            ends.enter_context(self._reading(feed))
            ends.callback(self._end, agent)
            ends.callback(connections.dismiss)
            ends.callback(listener.close)
            ready()
            self._accept(listener, connections)

    def _accept(self, listener: socket.socket, connections: Connections) -> None:
        """Takes connections until `stop`."""
        stop, poll = select.poll(), select.poll()
        for each in (stop, poll):
            each.register(self._stopping, select.POLLIN)
        poll.register(listener, select.POLLIN)
        while self._stopping not in dict(poll.poll()):
            try:
                sock, _ = listener.accept()
            except OSError:  # no descriptor is free; one may be soon
                stop.poll(1000 * _PAUSE)
            else:
                connections.begin(sock)

    @contextlib.contextmanager
    def _reading(self, feed: Feed) -> Iterator[None]:
        def read() -> None:
            feed.run()
            self.stop()

        reader = threading.Thread(target=read, name="events")
        reader.start()
        try:
            yield
        finally:
            feed.stop()
            reader.join()
            if feed.failure is not None:
                raise feed.failure


@contextlib.contextmanager
def _written(feed: Feed, fd: int) -> Iterator[None]:
    outlet = Outlet(fd, client=False)
    # A terminal that is held can hold a write for good, and is left behind then.
    writer = threading.Thread(target=outlet.run, name="events file", daemon=True)
    writer.start()
    feed.join(outlet)
    try:
        yield
    finally:
        outlet.close()
        writer.join(10.0)
