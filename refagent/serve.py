# SPDX-License-Identifier: Apache-2.0
"""An agent of its own behind a few connections: one JSON object a line, one answer a line.

The protocol stands in docs/agent.md. Many connections to one agent: refagent/daemon.py.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from refagent import protocol
from refagent.agent import Agent
from refagent.ops import OPS, Message, Op, answer


def serve(sock: socket.socket, *others: socket.socket) -> None:
    """Runs an agent for a connected stream socket until `stop` or the end of the stream.

    All policies are unloaded when this returns. The socket stays open.

    Args:
        sock: whose end is the agent's.
        others: by which the same agent is asked at the same time.

    Raises:
        BpfError: the kernel failed at the last unload.
    """
    with Agent() as agent:
        for each in others:
            threading.Thread(target=_answer, args=(agent, each), daemon=True).start()
        _answer(agent, sock)


def _answer(agent: Agent, sock: socket.socket) -> None:
    """Answers what comes by one connection, until `stop` or its end."""
    with sock.makefile("rb") as requests:
        while line := protocol.read_line(requests):
            reply = answer(agent, _OPS, line)
            sock.sendall(protocol.encode(reply))
            if reply == _STOPPED:
                return


def _events(agent: Agent, _: Message) -> list[Message]:
    return [event.to_json() for event in agent.events()]


def _pin(agent: Agent, request: Message) -> bool:
    agent.pin(Path(request["base"]))
    return True


def _stop(_: Agent, __: Message) -> str:
    return "stopped"


_OPS: Final[Mapping[str, Op]] = {**OPS, "pin": _pin, "events": _events, "stop": _stop}
_STOPPED: Final[Message] = {"ok": "stopped"}
