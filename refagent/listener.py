# SPDX-License-Identifier: Apache-2.0
"""A control socket's place in the file system: one daemon at a time, and only its user's."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from refagent.errors import Refused

_BACKLOG: Final = 16


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A listening stream socket of mode 0600; it is removed at the end.

    Beside it stays `PATH.lock`, which is locked as long as somebody listens: so what a killed
    daemon left behind is known for it, and replaced.

    Raises:
        Refused: somebody listens there, something else is there, or it cannot be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            if _is_other(path):
                raise Refused(f"{path}: is no socket; choose another --socket")
            _lock(path, stack)
            path.unlink(missing_ok=True)  # nobody listens to it
            listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            # bind() makes the file with the mode that the socket has: nobody ever sees another.
            os.fchmod(listener.fileno(), 0o600)
            listener.bind(str(path))
            stack.callback(path.unlink, missing_ok=True)
            listener.listen(_BACKLOG)
        except OSError as failure:
            why = failure.strerror or str(failure)  # a path that is too long has no errno
            raise Refused(f"{path}: {why}; choose another --socket") from None
        yield listener


def _lock(path: Path, stack: contextlib.ExitStack) -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(path.with_name(f"{path.name}.lock"), flags, 0o600)
    stack.callback(os.close, fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Refused(
            f"{path}: a daemon runs there already; stop it, or choose another --socket"
        ) from None


def _is_other(path: Path) -> bool:
    try:
        return not stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return False
