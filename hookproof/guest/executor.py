# SPDX-License-Identifier: Apache-2.0
"""The executor: takes requests as JSON lines, acts in the guest, reports.

It judges nothing. `docs/architecture.md` has the table of requests.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time

from hookproof.guest.kmsg import KernelLog

# Nothing else is loaded before the first answer: under software emulation a module that
# is read over 9p costs a tenth of a second, typing as much as any.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, TypeAlias

    from hookproof.guest.agents import Agent
    from hookproof.guest.census import Census

    Request: TypeAlias = dict[str, Any]

#: A scenario's own file system: empty when it begins, gone when it has ended.
WORKSPACE: Final = "/run/t"
#: Said on the console once connections are taken; the host waits for it.
READY: Final = "hookproof: the executor listens"
#: membarrier(2) with MEMBARRIER_CMD_GLOBAL, on x86-64: returns after an RCU grace period.
_MEMBARRIER: Final = (324, 1, 0)


class Executor:
    """One connection's state: the log's position, the agent, the census before it."""

    def __init__(self) -> None:
        self._log = KernelLog()
        self._agent: Agent | None = None
        self._before: Census = {}

    def handle(self, request: Request) -> dict[str, Any]:
        """Does one request; an unknown one is an error like any other."""
        table: dict[str, Callable[[Request], dict[str, Any]]] = {
            "hello": self._hello,
            "log": self._fresh_log,
            "probe": self._probe,
            "begin": self._begin,
            "step": self._step,
            "end": self._end,
        }
        return table[request["op"]](request)

    def _hello(self, _request: Request) -> dict[str, Any]:
        return {"release": os.uname().release, "taint": _taint()}

    def _fresh_log(self, _request: Request) -> dict[str, Any]:
        records, gaps = self._log.fresh()
        return {"records": records, "gaps": gaps, "taint": _taint()}

    def _probe(self, request: Request) -> dict[str, Any]:
        from refagent import probes

        return {"answers": [answer.to_json() for answer in probes.run(request["names"])]}

    def _begin(self, request: Request) -> dict[str, Any]:
        from hookproof.guest import agents, census

        self._before = census.take()
        os.mkdir(WORKSPACE)  # noqa: PTH102
        _mount("tmpfs", WORKSPACE)
        self._agent = agents.Refagent() if request["agent"] else None
        return {}

    def _step(self, request: Request) -> dict[str, Any]:
        from hookproof.guest import steps

        verb, calls = request["verb"], request["calls"]
        if verb in steps.STEPS:
            return {"results": [steps.act(verb, call) for call in calls]}
        if self._agent is None:
            raise RuntimeError("this scenario began without an agent")
        return {"results": [self._ask_agent(self._agent, verb, call) for call in calls]}

    @staticmethod
    def _ask_agent(agent: Agent, verb: str, call: Request) -> Any:
        from hookproof.guest import agents

        try:
            return agent.request(verb, **call)
        except agents.AgentFailed as error:
            return {"failed": str(error)}

    def _end(self, request: Request) -> dict[str, Any]:
        import contextlib

        from hookproof.guest import agents, census

        patience = request["patience"]
        leaks = []
        if self._agent is not None:
            leaks += list(filter(None, [self._agent.stop(patience)]))
            self._agent = None
        for undo in (_unmount, os.rmdir):
            with contextlib.suppress(OSError):  # in use: the census says that it is left
                undo(WORKSPACE)
        until = time.monotonic() + patience
        while left := census.difference(self._before, census.take()):
            if time.monotonic() > until:
                break
            time.sleep(0.02)
        # An id is gone before its memory is: what complains about the freeing does so after a
        # grace period, from a work item, and belongs to this scenario's slice of the log.
        _libc_call("syscall", *_MEMBARRIER)
        time.sleep(0.02)
        return {
            "leaks": leaks + left,
            "agent_log": agents.log(),
            **self._fresh_log({}),
        }


def _taint() -> int:
    with open("/proc/sys/kernel/tainted", "rb") as flags:  # noqa: PTH123
        return int(flags.read())


def _mount(kind: str, place: str) -> None:
    _libc_call("mount", kind.encode(), place.encode(), kind.encode(), 0, None)


def _unmount(place: str) -> None:
    _libc_call("umount2", place.encode(), 0)


def _libc_call(name: str, *args: Any) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*args):
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def serve(connection: socket.socket) -> None:
    """Answers one connection's requests until its end."""
    executor = Executor()
    with connection.makefile("rwb") as stream:
        for line in stream:
            request = json.loads(line)
            try:
                reply = executor.handle(request)
            except Exception as error:
                reply = {"error": f"{type(error).__name__}: {error}"}
            stream.write(json.dumps({"id": request["id"], **reply}).encode() + b"\n")
            stream.flush()


def main() -> None:
    """Listens on the loopback port named by the first argument, one connection at a time."""
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1) as listener:
        print(READY, flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                serve(connection)


if __name__ == "__main__":
    main()
