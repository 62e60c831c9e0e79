# SPDX-License-Identifier: Apache-2.0
"""One guest as its service shows itself: requests and replies, a JSON line each."""

from __future__ import annotations

import json
import time
from typing import Any, Final, Protocol

from vm.errors import GuestHang, HostProblem, LostMachine

#: A line of a guest is data of a stranger: it may not fill our memory.
_LONGEST: Final = 64 << 20


class Stream(Protocol):
    """Bytes both ways; what a paramiko channel and a socket have in common."""

    def settimeout(self, timeout: float | None, /) -> None: ...  # noqa: D102
    def sendall(self, data: bytes, /) -> None: ...  # noqa: D102
    def recv(self, nbytes: int, /) -> bytes: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class Guest:
    """Speaks JSON lines over a byte stream.

    Args:
        stream: connected to the guest's service.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._id = 0

    def request(self, op: str, *, deadline: float, **fields: Any) -> dict[str, Any]:
        """Sends one request and waits for its reply.

        Args:
            op: what is asked for.
            deadline: seconds until the reply's end.
            fields: JSON values that go with it.

        Returns:
            The reply's object.

        Raises:
            GuestHang: no reply within the deadline.
            LostMachine: the connection ended, or what came is no reply to this request.
        """
        self._id += 1
        line = json.dumps({"id": self._id, "op": op, **fields}).encode()
        try:
            reply = json.loads(self._exchange(op, line, deadline))
        except ValueError:
            raise LostMachine(f"the reply to '{op}' is not JSON") from None
        if not isinstance(reply, dict) or reply.get("id") != self._id:
            raise LostMachine(f"the reply to '{op}' belongs to another request")
        return reply

    def wake(self, time_ns: int, entropy: bytes, *, deadline: float) -> None:
        """Gives a restored guest the time and random numbers of its own.

        It is a plain line, and so is the reply (hookproof/guest/awake.py says why).

        Args:
            time_ns: nanoseconds since 1970.
            entropy: bytes nobody else has.
            deadline: seconds until it is done.

        Raises:
            GuestHang: no reply within the deadline.
            HostProblem: the guest could not do it.
            LostMachine: the connection ended.
        """
        line = f"wake {time_ns} {entropy.hex()}".encode()
        reply = self._exchange("wake", line, deadline)
        if reply != b"awake":
            raise HostProblem(f"the guest cannot wake: {reply[:200].decode(errors='replace')}")

    def close(self) -> None:
        """Ends the connection; the service ends with it."""
        self._stream.close()

    def _exchange(self, op: str, line: bytes, deadline: float) -> bytes:
        """One line there, one back."""
        until = time.monotonic() + deadline
        try:
            self._stream.settimeout(deadline)
            self._stream.sendall(line + b"\n")
            return self._line(until)
        except TimeoutError:
            raise GuestHang(f"no reply to '{op}' within {deadline:.0f} s") from None
        except OSError as error:
            raise LostMachine(f"the connection broke during '{op}': {error}") from None

    def _line(self, until: float) -> bytes:
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > _LONGEST:
                raise LostMachine(f"a reply is longer than {_LONGEST >> 20} MiB")
            self._stream.settimeout(max(0.001, until - time.monotonic()))
            chunk = self._stream.recv(1 << 16)
            if not chunk:
                raise LostMachine("the connection to the guest ended")
            self._buffer += chunk
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line
