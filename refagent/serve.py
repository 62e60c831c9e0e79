# SPDX-License-Identifier: Apache-2.0
"""The agent behind a socket: one JSON object a line, one answer a line (docs/agent.md)."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from refagent.agent import Agent
from refagent.errors import AgentError, Refused
from refagent.policy import Policy

Answer = dict[str, Any]


def serve(sock: socket.socket) -> None:
    """Runs an agent for a connected stream socket until `stop` or the end of the stream.

    All policies are unloaded when this returns. The socket stays open.

    Raises:
        BpfError: the kernel failed at the last unload.
    """
    with Agent() as agent, sock.makefile("rb") as requests:
        for line in requests:
            answer = _answer(agent, line)
            sock.sendall(json.dumps(answer).encode() + b"\n")
            if answer == _STOPPED:
                return


def _answer(agent: Agent, line: bytes) -> Answer:
    try:
        request = json.loads(line)
        return {"ok": _OPS[request["op"]](agent, request)}
    except Refused as refusal:
        return {"refused": str(refusal)}
    except AgentError as failure:
        return {"error": str(failure)}
    except KeyError as unknown:
        return {"error": f"{unknown} is missing or unknown; ops are {', '.join(_OPS)}"}
    except (ValueError, TypeError) as mistake:
        return {"error": f"not understood: {mistake}"}


def _load(agent: Agent, request: Answer) -> bool:
    try:
        policy = Policy.from_json(request["policy"])
    except ValueError as mistake:
        raise Refused(str(mistake)) from None
    agent.load(policy)
    return True


def _name(request: Answer) -> str:
    name = request["name"]
    if not isinstance(name, str):
        raise TypeError("name is to be a string")
    return name


def _list(agent: Agent, _: Answer) -> list[str]:
    return [policy.name for policy in agent.policies()]


def _named(act: Callable[[Agent, str], None]) -> Callable[[Agent, Answer], bool]:
    def do(agent: Agent, request: Answer) -> bool:
        act(agent, _name(request))
        return True

    return do


def _events(agent: Agent, _: Answer) -> list[Answer]:
    return [event.to_json() for event in agent.events()]


def _status(agent: Agent, _: Answer) -> Answer:
    return asdict(agent.status())


def _counts(agent: Agent, request: Answer) -> Answer:
    return asdict(agent.counts(_name(request)))


def _pin(agent: Agent, request: Answer) -> bool:
    agent.pin(Path(request["base"]))
    return True


def _stop(_: Agent, __: Answer) -> str:
    return "stopped"


_OPS: dict[str, Callable[[Agent, Answer], Any]] = {
    "load": _load,
    "unload": _named(Agent.unload),
    "enable": _named(Agent.enable),
    "disable": _named(Agent.disable),
    "pin": _pin,
    "list": _list,
    "counts": _counts,
    "events": _events,
    "status": _status,
    "stop": _stop,
}
_STOPPED: Answer = {"ok": "stopped"}
