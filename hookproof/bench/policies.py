# SPDX-License-Identifier: Apache-2.0
"""The reference agent with few and with many policies, measured in the guest.

It runs there, alone, and prints what it measured. All sizes are there at once, an agent each on
one function: so each call runs all sensors, and what disturbs one measure disturbs all alike.
How long a program runs, the kernel itself measures (kernel.bpf_stats_enabled).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from refagent.agent import Agent
from refagent.libbpf import census
from refagent.libbpf.maps import Map
from refagent.policy import Policy

#: Before the one line that counts.
RESULTS: Final = "hookproof-bench-policies "
#: Numbers of policies.
SIZES: Final = (1, 10, 100, 1000)
#: Calls in a batch, and batches a round.
CALLS: Final = 100
_BATCHES: Final = 5
#: Policies that are loaded beyond a size, and unloaded again, to see what one more costs.
_MORE: Final = 20

#: Of a folder that is not empty: allowed, the call changes nothing either.
_FUNCTION: Final = "security_path_rmdir"
#: All paths are of one length and depth.
_ROOT: Final = "/run/bench"
_ELSEWHERE: Final = f"{_ROOT}/none/0000"

_STATISTICS: Final = Path("/proc/sys/kernel/bpf_stats_enabled")


class Sized:
    """An agent with so many policies, each denying calls on a path of its own.

    Args:
        size: how many.
        folder: a name of 4 characters, of which all paths are below.

    Attributes:
        found: what was measured, by name; docs/results.md has them.
    """

    def __init__(self, size: int, folder: str) -> None:
        self.size, self._folder, self._agent = size, folder, Agent()
        self.found: dict[str, Any] = {"policies": size}
        programs = {each.id for each in census.programs()}
        maps = {each.id for each in census.maps()}
        self.found["first"] = [self._load(0)]
        self._maps = [each for each in census.maps() if each.id not in maps]
        self._programs = {
            each.name: each.id for each in census.programs() if each.id not in programs
        }
        self.found["memory_of_first"] = self._memory()
        for number in range(1, size):
            self._load(number)
        self.found["memory"] = self._memory()
        more = range(size, size + _MORE)
        self.found["one_more"] = [self._load(number) for number in more]
        for number in more:
            self._agent.unload(f"{number}")
        for name in ("denied_sensor", "denied_override", "passed_sensor", "passed_override"):
            self.found[name] = []

    @property
    def denied(self) -> str:
        """The folder of the last policy."""
        return self._path(self.size - 1)

    def close(self) -> None:
        """Unloads all."""
        self._agent.close()

    def spent(self) -> dict[str, tuple[int, int]]:
        """Program → nanoseconds and runs so far."""
        there = {each.id: each for each in census.programs()}
        found = {name: there[number] for name, number in self._programs.items()}
        return {name: (each.run_time, each.run_count) for name, each in found.items()}

    def _path(self, number: int) -> str:
        return f"{_ROOT}/{self._folder}/{number:04}"

    def _load(self, number: int) -> float:
        policy = Policy(f"{number}", _FUNCTION, path=self._path(number), override=errno.EPERM)
        begun = time.monotonic()
        self._agent.load(policy)
        return time.monotonic() - begun

    def _memory(self) -> int:
        """Bytes of the kernel's that its maps take, by the kernel's own account."""
        total = 0
        for each in self._maps:
            with Map.opened(each.id, each.name, each.key_size, each.value_size) as opened:
                lines = Path(f"/proc/self/fdinfo/{opened.fd}").read_text("ascii").splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("memlock:"))
        return total


def measured(rounds: int) -> list[dict[str, Any]]:
    """Each size's measures; those of all rounds in lists.

    Raises:
        AgentError: the agent failed.
        RuntimeError: a call gave something else than it had to.
    """
    _STATISTICS.write_text("1", encoding="ascii")
    found: dict[int, dict[str, Any]] = {size: {} for size in SIZES}
    for number in range(rounds):
        # Who runs earlier in a call pays more, so the places change.
        place = number % len(SIZES)
        for size, measures in _round([*SIZES[place:], *SIZES[:place]]).items():
            for name, value in measures.items():
                had = found[size].get(name, [])
                found[size][name] = had + value if isinstance(value, list) else value
    return list(found.values())


def _round(order: list[int]) -> dict[int, dict[str, Any]]:
    """Size → its measures, of agents that are made in this order."""
    with contextlib.ExitStack() as stack:
        sizes = [stack.enter_context(contextlib.closing(Sized(n, f"{n:04}"))) for n in order]
        # What was attached last runs first, and pays for all that no cache holds: that is nobody's.
        stack.enter_context(contextlib.closing(Sized(1, "last")))
        for folder in (_ELSEWHERE, *(each.denied for each in sizes)):
            Path(folder, "full", "x").mkdir(parents=True, exist_ok=True)
        for number in range(1 + _BATCHES):
            for each in sizes:
                times = _batch([each], partial(_call, each.denied, errno.EPERM))
                _note("denied", [each], times if number else [])
            times = _batch(sizes, partial(_call, _ELSEWHERE, errno.ENOTEMPTY))
            _note("passed", sizes, times if number else [])  # the first warms up
        return {each.size: each.found for each in sizes}


def _batch(sizes: list[Sized], call: Callable[[], None]) -> list[dict[str, float]]:
    """Program → nanoseconds of a run, for each size."""
    before = [each.spent() for each in sizes]
    for _ in range(CALLS):
        call()
    found = []
    for each, was in zip(sizes, before, strict=True):
        now = each.spent()
        found.append(
            {name: (now[name][0] - was[name][0]) / (now[name][1] - was[name][1]) for name in now}
        )
    return found


def _note(kind: str, sizes: list[Sized], times: list[dict[str, float]]) -> None:
    for each, time_of in zip(sizes, times, strict=False):
        for program, nanoseconds in time_of.items():
            each.found[f"{kind}_{program}"].append(nanoseconds)


def _call(folder: str, must: int) -> None:
    try:
        os.rmdir(f"{folder}/full")  # noqa: PTH106  the system call, nothing around it
    except OSError as error:
        if error.errno == must:
            return
        raise RuntimeError(f"rmdir below {folder} gave {error.strerror}") from None
    raise RuntimeError(f"rmdir below {folder} was allowed")


def main() -> None:
    """In the guest: as many rounds as the first argument says."""
    print(RESULTS + json.dumps(measured(int(sys.argv[1]))), flush=True)
