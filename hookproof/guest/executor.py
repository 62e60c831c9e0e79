# SPDX-License-Identifier: Apache-2.0
"""The executor: takes requests as JSON lines, acts in the guest, reports.

It judges nothing. `docs/architecture.md` has the table of requests.
"""

from __future__ import annotations

import json
import os
import sys
import time

from hookproof.guest import awake
from hookproof.guest.kmsg import KernelLog

# Nothing else is loaded before the first answer: under software emulation a module that
# is read over 9p costs a tenth of a second, typing as much as any.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Final, TypeAlias

    from hookproof.guest.agents import Agent
    from hookproof.guest.census import Census

    Request: TypeAlias = dict[str, Any]

#: A scenario's own file system: empty when it begins, gone when it has ended.
WORKSPACE: Final = "/run/t"
#: Said on the console once connections are taken; the host waits for it.
READY: Final = "hookproof: the executor listens"
#: Without the regular expressions of json.loads: see `serve`.
_DECODER: Final = json.JSONDecoder()
#: membarrier(2) with MEMBARRIER_CMD_GLOBAL, on x86-64: returns after an RCU grace period.
_MEMBARRIER: Final = (324, 1, 0)


class Executor:
    """One connection's state: the log's position, the agent, the census before its scenario."""

    def __init__(self) -> None:
        self._log = KernelLog()
        self._agent: Agent | None = None
        self._before: Census | None = None
        self._begun = False

    def handle(self, request: Request) -> dict[str, Any]:
        """Does one request; an unknown one is an error like any other."""
        table: dict[str, Callable[[Request], dict[str, Any]]] = {
            "hello": self._hello,
            "plant": self._plant,
            "warm": self._warm,
            "log": self._fresh_log,
            "probe": self._probe,
            "begin": self._begin,
            "step": self._step,
            "end": self._end,
        }
        return table[request["op"]](request)

    def _hello(self, _request: Request) -> dict[str, Any]:
        return {"release": os.uname().release, "taint": _taint()}

    @staticmethod
    def _plant(request: Request) -> dict[str, Any]:
        """Puts files of another agent in the place of this one's, before any is loaded."""
        import base64

        if "refagent" in sys.modules:
            raise RuntimeError("the agent is loaded already")
        root = __file__.rpartition("/hookproof/")[0]
        for name, content in request["files"].items():
            # A module's source is loaded before its byte code, which lies beside it.
            with open(f"{root}/{name}", "wb") as file:  # noqa: PTH123
                file.write(base64.b64decode(content))
        return {}

    def _warm(self, request: Request) -> dict[str, Any]:
        """Loads all that a scenario may need and begins one, for the machine's state to be saved.

        Each machine that is restored from it has its one scenario begun already.
        """
        import contextlib  # noqa: F401

        from hookproof.guest import census, foreign, gates, holds, steps, storms  # noqa: F401

        gates.warm()
        census.take()  # what it opens and loads is not to count as the scenario's
        self._begin(request)
        self._begun = True
        return {}

    def _fresh_log(self, _request: Request) -> dict[str, Any]:
        records, gaps = self._log.fresh()
        return {"records": records, "gaps": gaps, "taint": _taint()}

    def _probe(self, request: Request) -> dict[str, Any]:
        from refagent import probes

        return {"answers": [answer.to_json() for answer in probes.run(request["names"])]}

    def _begin(self, request: Request) -> dict[str, Any]:
        if self._begun:
            self._begun = False
            return {}
        from hookproof.guest import agents, census

        if self._before is None:
            self._before = census.take()
        os.mkdir(WORKSPACE)  # noqa: PTH102
        _mount("tmpfs", WORKSPACE)
        self._agent = agents.Refagent() if request["agent"] else None
        return {}

    def _step(self, request: Request) -> dict[str, Any]:
        return {"results": [self._do(request["verb"], call) for call in request["calls"]]}

    def _do(self, verb: str, call: Mapping[str, Any]) -> Any:
        """One call of any verb; several threads may be at it."""
        from hookproof.guest import steps

        if verb == "kill" and call["what"] == "held":
            verb = "kill-held"
        if verb in steps.STEPS:
            if "by" not in call:
                return steps.act(verb, call)
            from hookproof.guest import threads

            return threads.named(call["by"]).ask(lambda: steps.act(verb, call)).get()
        if verb == "hold":
            from hookproof.guest import holds

            return holds.hold(call, self._do, lambda: self._agent.pid if self._agent else 0)
        if verb == "storm":
            from hookproof.guest import storms

            return storms.storm(call, self._do)
        if self._agent is None:
            raise RuntimeError("this scenario began without an agent")
        return self._ask_agent(self._agent, verb, call)

    @staticmethod
    def _ask_agent(agent: Agent, verb: str, call: Mapping[str, Any]) -> Any:
        from hookproof.guest import agents

        try:
            return agent.request(verb, **call)
        except agents.AgentFailed as error:
            return {"failed": str(error)}

    def _end(self, request: Request) -> dict[str, Any]:
        import contextlib

        from hookproof.guest import agents, census, foreign, threads

        threads.end_all()
        foreign.detach_all()
        patience = request["patience"]
        leaks = []
        if self._agent is not None:
            leaks += list(filter(None, [self._agent.stop(patience)]))
            self._agent = None
        for undo in (_unmount, os.rmdir):
            with contextlib.suppress(OSError):  # in use: the census says that it is left
                undo(WORKSPACE)
        before, after = self._before or {}, census.take()
        until = time.monotonic() + patience
        while left := census.difference(before, after):
            if time.monotonic() > until:
                break
            time.sleep(0.02)
            after = census.take()
        # What is there now is what the next one finds, and what comes in between is not forgiven.
        self._before = None if left or leaks else after
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


def serve(requests: Iterable[bytes], reply: Callable[[bytes], object]) -> None:
    """Answers requests until their end."""
    executor = Executor()
    for line in requests:
        if line.startswith(b"wake "):
            # No JSON: parsing it is a third of what a restored machine has to translate.
            reply(awake.wake(line))
            continue
        request, _ = _DECODER.raw_decode(line.decode())
        try:
            said = executor.handle(request)
        except TimeoutError as late:
            said = {"hang": str(late)}
        except Exception as error:
            said = {"error": f"{type(error).__name__}: {error}"}
        reply(json.dumps({"id": request["id"], **said}).encode() + b"\n")


def _lines(device: int) -> Iterable[bytes]:
    """The lines of a character device, by plain reads: less code than a buffered file's."""
    rest = b""
    while chunk := os.read(device, 1 << 16):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


def _write(device: int, data: bytes) -> None:
    while data:
        data = data[os.write(device, data) :]


def main() -> None:
    """Serves what the first argument names: a port of the loopback device, or a character device.

    On the port one connection after the other, on the device one for good: before 6.1 a
    virtio port with a poller beside a reader loses wake-ups, so it has one reader that blocks.
    """
    where = sys.argv[1]
    if where.startswith("/"):
        device = os.open(where, os.O_RDWR | os.O_CLOEXEC)
        serve(_lines(device), lambda line: _write(device, line))
        return
    import socket

    with socket.create_server(("127.0.0.1", int(where)), backlog=1) as listener:
        print(READY, flush=True)
        while True:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as requests:
                serve(requests, connection.sendall)


if __name__ == "__main__":
    main()
