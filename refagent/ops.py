# SPDX-License-Identifier: Apache-2.0
"""What an agent can be asked through a socket: the table of ops, and one answer for one line."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any, Final

from refagent.agent import Agent
from refagent.errors import AgentError, Refused
from refagent.policy import Policy

Message = dict[str, Any]
Op = Callable[[Agent, Message], Any]


def answer(agent: Agent, ops: Mapping[str, Op], line: bytes) -> Message:
    """Does what a request asks: `{"ok": result}`, `{"refused": why}` or `{"error": what failed}`.

    Args:
        agent: who is asked.
        ops: what it can be asked, by the names.
        line: the request.
    """
    try:
        request = json.loads(line)
        return {"ok": ops[request["op"]](agent, request)}
    except Refused as refusal:
        return {"refused": str(refusal)}
    except AgentError as failure:
        return {"error": str(failure)}
    except KeyError as unknown:
        return {"error": f"{unknown} is missing or unknown; ops are {', '.join(ops)}"}
    except (ValueError, TypeError, RecursionError) as mistake:
        return {"error": f"not understood: {mistake}"}


def load_all(agent: Agent, policies: Iterable[Policy]) -> None:
    """Loads all of several policies, in their order, or none.

    Raises:
        Refused: and which one's fault it is. Those before it are unloaded again.
        BpfError: the kernel failed; the same.
    """
    with contextlib.ExitStack() as undo:
        for policy in policies:
            try:
                agent.load(policy)
            except Refused as refusal:
                raise Refused(f"policy {policy.name}: {refusal}") from refusal
            undo.callback(_unload_again, agent, policy.name)
        undo.pop_all()


def _unload_again(agent: Agent, name: str) -> None:
    with contextlib.suppress(Refused):  # somebody else has unloaded it meanwhile
        agent.unload(name)


def _policy(raw: object) -> Policy:
    try:
        return Policy.from_json(raw)
    except ValueError as mistake:
        raise Refused(str(mistake)) from None


def _load(agent: Agent, request: Message) -> bool:
    several = request.get("policies")
    if several is None:
        agent.load(_policy(request["policy"]))
    elif isinstance(several, list):
        load_all(agent, [_policy(each) for each in several])
    else:
        raise TypeError("policies is to be a list")
    return True


def _name(request: Message) -> str:
    name = request["name"]
    if not isinstance(name, str):
        raise TypeError("name is to be a string")
    return name


def _named(act: Callable[[Agent, str], None]) -> Op:
    def do(agent: Agent, request: Message) -> bool:
        act(agent, _name(request))
        return True

    return do


def _list(agent: Agent, _: Message) -> list[str]:
    return [policy.name for policy in agent.policies()]


def _policies(agent: Agent, _: Message) -> list[Message]:
    return [
        {"policy": each.policy.to_json(), "enabled": each.enabled, "counts": asdict(each.counts)}
        for each in agent.states()
    ]


def _counts(agent: Agent, request: Message) -> Message:
    return asdict(agent.counts(_name(request)))


def _status(agent: Agent, _: Message) -> Message:
    return asdict(agent.status())


#: The ops that do not depend on who is connected.
OPS: Final[Mapping[str, Op]] = {
    "load": _load,
    "unload": _named(Agent.unload),
    "enable": _named(Agent.enable),
    "disable": _named(Agent.disable),
    "list": _list,
    "policies": _policies,
    "counts": _counts,
    "status": _status,
}
