# SPDX-License-Identifier: Apache-2.0
"""QMP, QEMU's control protocol, over a socket whose other end QEMU was given.

The wire format is docs/interop/qmp-spec of QEMU: a greeting, then one JSON object a line,
replies in the order of the commands, events in between.
"""

from __future__ import annotations

import array
import json
import socket
import time
from collections import deque
from collections.abc import Collection, Mapping
from typing import Any, Final

from vm.errors import HostProblem, LostMachine

#: Bytes of a message; those that we cause have some hundred.
_LONGEST: Final = 1 << 20
#: Events kept until somebody waits for one.
_EVENTS: Final = 1000

Message = Mapping[str, Any]


class Qmp:
    """A connection to one QEMU, for one thread at a time.

    Every wait takes a deadline in seconds from now. All methods raise HostProblem where
    QEMU refuses or does not answer in time, and LostMachine where it is gone; both name
    the command.

    Args:
        line: connected to QEMU; closing it is the owner's.
    """

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._buffer = bytearray()
        self._events: deque[Message] = deque(maxlen=_EVENTS)

    def greet(self, *, deadline: float) -> str:
        """Takes the greeting and enters command mode; QEMU's version, such as `7.2.22`."""
        until = time.monotonic() + deadline
        greeting = self._next("its greeting", until)
        self.execute("qmp_capabilities", deadline=until - time.monotonic())
        version = greeting["QMP"]["version"]["qemu"]
        return f"{version['major']}.{version['minor']}.{version['micro']}"

    def execute(
        self, command: str, *, deadline: float, fd: int | None = None, **arguments: Any
    ) -> Any:
        """Runs a command and returns what it gave.

        Args:
            command: its name.
            deadline: seconds until the reply.
            fd: a descriptor that goes with it; QEMU gets a copy.
            arguments: of the command.
        """
        until = time.monotonic() + deadline
        message: Message = {"execute": command}
        if arguments:
            message = {**message, "arguments": arguments}
        # QEMU reads it byte by byte, with eight system calls for each.
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        rights = (
            [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        )
        try:
            self._line.settimeout(max(0.001, deadline))
            sent = self._line.sendmsg([line], rights)
            self._line.sendall(line[sent:])
        except TimeoutError:
            raise HostProblem(f"QEMU did not take '{command}' within {deadline:.0f} s") from None
        except OSError as error:
            raise LostMachine(f"QEMU is gone at '{command}': {error.strerror}") from None
        while "event" in (message := self._next(f"'{command}'", until)):
            self._events.append(message)
        if "error" in message:
            raise HostProblem(f"QEMU refused '{command}': {message['error'].get('desc')}")
        return message["return"]

    def wait_for(
        self, event: str, *, deadline: float, status: Collection[str], after: str
    ) -> Message:
        """Waits for an event with one of some values of its `status`; returns its data.

        Args:
            event: its name.
            deadline: seconds until it came.
            status: the values that count.
            after: the command that causes it, for messages.
        """
        until = time.monotonic() + deadline
        while True:
            while self._events:
                message = self._events.popleft()
                data: Message = message.get("data", {})
                if message["event"] == event and data.get("status") in status:
                    return data
            self._events.append(self._next(f"the end of '{after}'", until))

    def _next(self, what: str, until: float) -> dict[str, Any]:
        """The next message; `what` says what it is waited for."""
        try:
            while (end := self._buffer.find(b"\n")) < 0:
                if len(self._buffer) > _LONGEST:
                    raise HostProblem(f"QEMU sent no end of a line instead of {what}")
                self._line.settimeout(max(0.001, until - time.monotonic()))
                chunk = self._line.recv(1 << 16)
                if not chunk:
                    raise LostMachine(f"QEMU ended before {what}")
                self._buffer += chunk
            message = json.loads(self._buffer[:end])
        except TimeoutError:
            raise HostProblem(f"QEMU did not come to {what} in time") from None
        except OSError as error:
            raise LostMachine(f"QEMU is gone before {what}: {error.strerror}") from None
        except ValueError:
            raise HostProblem(f"QEMU sent something that is not JSON instead of {what}") from None
        del self._buffer[: end + 1]
        if not isinstance(message, dict):
            raise HostProblem(f"QEMU sent no object instead of {what}")
        return message
