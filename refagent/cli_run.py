# SPDX-License-Identifier: Apache-2.0
"""`refagent run`: the daemon as a process."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from refagent import ready
from refagent.agent import Agent
from refagent.daemon import Daemon
from refagent.errors import Refused

_ENDING: Final = (signal.SIGTERM, signal.SIGINT)


def run(socket: Path, events: str | None, base: Path | None, *, keep: bool) -> int:
    """Runs the daemon until SIGTERM or SIGINT; 0.

    Args:
        socket: the control socket's path.
        events: the file that events are appended to, `-` for stdout, or None.
        base: the folder of its pins, or None.
        keep: whether it leaves these at its end, instead of unloading all.

    Raises:
        Refused: it cannot run here, and why.
        BpfError: something is left in the kernel until this process ends.
    """
    # Each function with policies takes about ten descriptors.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with _opened(events) as sink:
        ready.prepare()
        end = Agent.leave if keep else Agent.close
        daemon = Daemon(socket, sink, lambda: Agent(base), end)
        for number in _ENDING:
            signal.signal(number, lambda *_: daemon.stop())
        # Python runs a handler between two of its own instructions. A signal that comes after the
        # last of these, and before the wait has begun, would not end it.
        signal.set_wakeup_fd(daemon.wakeup, warn_on_full_buffer=False)
        try:
            daemon.run(lambda: print(f"refagent: ready at {socket}", file=sys.stderr, flush=True))
        finally:
            # The process ends now, and with the status that it has.
            for number in _ENDING:
                signal.signal(number, signal.SIG_IGN)
            signal.set_wakeup_fd(-1)
    return 0


@contextlib.contextmanager
def _opened(events: str | None) -> Iterator[int | None]:
    if events is None:
        yield None
    elif events == "-":
        yield sys.stdout.fileno()
    else:
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            fd = os.open(events, flags, 0o600)
        except OSError as failure:
            raise Refused(f"{events}: {failure.strerror}") from None
        try:
            yield fd
        finally:
            os.close(fd)
