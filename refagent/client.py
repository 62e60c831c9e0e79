# SPDX-License-Identifier: Apache-2.0
"""The other end of a daemon's control socket."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from refagent import protocol
from refagent.errors import AgentError, Refused, Unreachable

#: Why nobody is there, by the errno of connect(); what else there may be speaks for itself.
_NOBODY: Final = (errno.ENOENT, errno.ECONNREFUSED)


class Client:
    """A connection; a context manager, for one thread.

    Args:
        path: of the control socket.

    Raises:
        Unreachable: no daemon listens there, or this user may not ask it.
    """

    def __init__(self, path: Path = protocol.CONTROL) -> None:
        self._path = path
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            try:
                sock.connect(str(path))
            except OSError as failure:
                if failure.errno in _NOBODY:
                    raise Unreachable(
                        f"no daemon listens at {path}; start one with refagent run"
                    ) from None
                # A path that is too long has no errno.
                raise Unreachable(f"{path}: {failure.strerror or failure}") from None
            self._stream = sock.makefile("rwb")

    def request(self, op: str, **fields: Any) -> Any:
        """Asks for one thing of docs/agent.md; the result.

        Raises:
            Refused: the agent does not do it, and why.
            AgentError: it could not.
            Unreachable: it has gone.
        """
        line = protocol.encode({"op": op, **fields})
        if len(line) > protocol.LONGEST:
            raise Refused(
                f"a request has at most {protocol.LONGEST} bytes, not {len(line)}; split it"
            )
        with contextlib.suppress(OSError):  # it may have said why before it went
            self._stream.write(line)
            self._stream.flush()
        try:
            reply = json.loads(self._stream.readline())
            if "refused" in reply:
                raise Refused(reply["refused"])
            if "error" in reply:
                raise AgentError(reply["error"])
            return reply["ok"]
        except (OSError, ValueError, KeyError, TypeError):
            raise Unreachable(f"the daemon at {self._path} has gone without an answer") from None

    def follow(self) -> Iterator[bytes]:
        """The agent's events from now on, as lines of JSON, until the daemon ends.

        A line `{"lost": n}` stands for n events that are missing in its place. Nothing else
        can be asked of this connection any more.

        Raises:
            Refused, AgentError, Unreachable: as `request` does; at once.
        """
        self.request("follow")
        return self._lines()

    def close(self) -> None:
        """Ends the connection."""
        with contextlib.suppress(OSError):  # what it did not take
            self._stream.close()

    def _lines(self) -> Iterator[bytes]:
        with contextlib.suppress(OSError):  # the daemon was killed
            yield from self._stream

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
