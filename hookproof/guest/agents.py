# SPDX-License-Identifier: Apache-2.0
"""The agent under test as the executor sees it: a process of its own.

`load`, `unload`, `enable`, `disable`, `loaded`, `counts` and `events` are what a scenario asks of
it, and `kill` and `start` what it does to it. An agent is a page: start it, translate these
requests, stop it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import queue
import signal
import socket
import traceback
from collections.abc import Callable
from io import BufferedRWPair
from pathlib import Path
from typing import Any, Final, Protocol

from hookproof.guest import threads

#: What a scenario can ask of events; docs/agent.md says what they are.
EVENT_KEYS: Final = ("hook", "path", "comm", "decided", "override", "hash", "no_hash")

#: Where a pinned agent of a scenario pins.
PINS: Final = Path("/sys/fs/bpf/hookproof")

#: So many requests can be under way at a time.
_LINES: Final = 6

#: What links in /proc/self/fd lead to. Not the kernel's types, which what is prepared has open.
_OF_BPF: Final = ("anon_inode:bpf", "anon_inode:[perf_event]")

_LOG: Final = Path("/run/hookproof/agent.log")


class AgentFailed(Exception):  # noqa: N818  the agent's failure, not ours
    """The agent died or broke; that is a finding about it, and no refusal."""


class Agent(Protocol):
    """What every agent under test offers."""

    @property
    def pid(self) -> int:
        """Its process; 0 if it does not run."""

    def request(self, op: str, **fields: Any) -> Any:
        """Does one of the verbs above; a RESULT as the wire has it. Several threads may ask.

        Raises:
            AgentFailed: it could not even refuse.
        """

    def stop(self, patience: float) -> str:
        """Ends it within so many seconds; '' or why it had to be killed."""


class Refagent:
    """The reference agent, forked off so that it holds its own file descriptors."""

    #: The verb of a scenario → the agent's own word (docs/agent.md).
    _OPS: Final = {
        **{verb: verb for verb in ("load", "unload", "enable", "disable", "counts", "events")},
        "loaded": "list",
        "pin": "pin",
    }

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []  # that no step has asked for yet
        self._start()

    @property
    def pid(self) -> int:
        """Its process; 0 if it does not run."""
        return self._pid

    def _start(self) -> None:
        serve = warm()
        _LOG.parent.mkdir(parents=True, exist_ok=True)
        pairs = [socket.socketpair() for _ in range(_LINES)]
        self._pid = os.fork()
        if self._pid == 0:
            for ours, _ in pairs:
                ours.close()
            _live(serve, [theirs for _, theirs in pairs])
        self._streams = []
        self._free: queue.SimpleQueue[BufferedRWPair] = queue.SimpleQueue()
        for ours, theirs in pairs:
            theirs.close()
            self._streams.append(ours.makefile("rwb"))
            self._free.put(self._streams[-1])
            ours.close()

    def request(self, op: str, **fields: Any) -> Any:
        """Does one of the verbs above; a RESULT as the wire has it.

        Raises:
            AgentFailed: it is gone, or failed in a way that is no refusal.
        """
        if op == "start":
            return self._started(fields["how"])
        if op == "kill":
            return self._killed()
        if op == "events":
            self._events += self._request(op)
            return self._events_of(fields["name"])
        return self._request(op, **fields)

    def _started(self, how: str) -> Any:
        """The agent runs, anew if it did not; `pinned`, it takes over what is pinned."""
        if not self._pid:
            self._start()
        return self._request("pin", base=str(PINS)) if how == "pinned" else "ok"

    def _killed(self) -> str:
        """It has no time to say goodbye, and is gone when this returns."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0
            self._hang_up()
        return "ok"

    def _hang_up(self) -> None:
        for stream in self._streams:
            with contextlib.suppress(OSError):  # what a dead agent did not take
                stream.close()

    def _events_of(self, policy: str) -> dict[str, Any]:
        """How many have come for a policy, and what all of these have in common."""
        mine = [each for each in self._events if policy in each["policies"]]
        for each in mine:
            each["no_hash"] = each.get("no_hash", "").partition(":")[0]  # of the words, the errno
            each["policies"].remove(policy)  # and others may ask for it as well
        self._events = [each for each in self._events if each["policies"]]
        same = {
            key: mine[0].get(key)
            for key in EVENT_KEYS
            if mine and all(each.get(key) == mine[0].get(key) for each in mine)
        }
        begun = sorted(mine, key=lambda each: int(each["time"]))
        hashes = ", ".join(each.get("hash") or each["no_hash"] or "none" for each in begun)
        told = {key: same.get(key) or "" for key in EVENT_KEYS}
        return {"count": len(mine), "hashes": hashes, **told}

    def _request(self, op: str, **fields: Any) -> Any:
        if not self._pid:
            raise AgentFailed(f"the agent does not run: '{op}' reaches nobody")
        line = json.dumps({"op": self._OPS[op], **fields}).encode() + b"\n"
        free = self._free  # of this agent, not of one that is started meanwhile
        stream = free.get()
        try:
            stream.write(line)
            stream.flush()
            raw = stream.readline()
        except (OSError, ValueError) as error:  # ValueError: closed, as the agent was killed
            raise AgentFailed(f"the agent is gone: {error}") from None
        finally:
            free.put(stream)
        if not raw:
            raise AgentFailed(f"the agent ended during '{op}'")
        try:
            return self._result(op, json.loads(raw))
        except (ValueError, KeyError, TypeError):
            raise AgentFailed(f"the agent's answer to '{op}' is not understood") from None

    @staticmethod
    def _result(op: str, reply: dict[str, Any]) -> Any:
        if "error" in reply:
            raise AgentFailed(f"the agent failed at '{op}': {reply['error']}")
        if "refused" in reply:
            return {"refused": reply["refused"]}
        return "ok" if reply["ok"] is True else reply["ok"]

    def stop(self, patience: float) -> str:
        """Ends it by closing its connection; '' or why it had to be killed."""
        if not self._pid:
            return ""
        self._hang_up()
        alarm = signal.signal(signal.SIGALRM, _too_late)
        signal.setitimer(signal.ITIMER_REAL, patience)
        try:
            status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        except TimeoutError:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            return f"the agent did not end within {patience:.0f} s of being asked"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, alarm)
        return f"the agent ended with status {status}" if status else ""


@functools.cache
def warm() -> Callable[..., None]:
    """Loads and prepares what an agent needs; its life, as a function.

    What is done on this side of the fork, once for all scenarios of a machine, the agent has
    for nothing; its descriptors are still its own.
    """
    from refagent import ready, serve
    from refagent.libbpf import btf

    ready.prepare()
    btf.vmlinux().functions("security_")
    return serve.serve


def log() -> str:
    """What the agent wrote to its output."""
    return _LOG.read_text(encoding="utf-8", errors="replace") if _LOG.exists() else ""


def _too_late(_signal: int, _frame: object) -> None:
    raise TimeoutError


def _let_go() -> None:
    """Closes the descriptors of programs, maps and links that came along.

    They would keep there what the executor detaches. Its objects are left as they are: to close one
    would be to wait for what the executor still has.
    """
    for each in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with contextlib.suppress(OSError):  # of the list itself
            if os.readlink(f"/proc/self/fd/{each}").startswith(_OF_BPF):  # noqa: PTH115
                os.close(int(each))


def _live(serve: Callable[..., None], connections: list[socket.socket]) -> None:
    """The forked child's life."""
    status = 1
    try:
        _let_go()
        threads.forget_all()
        sink = os.open(_LOG, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        serve(*connections)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
