# SPDX-License-Identifier: Apache-2.0
"""The same as a scenario does, in the guest of somebody who has no harness.

It runs there, alone: the agent starts, the calls are made, the agent stops. No census, no
reading of the kernel's log; what the calls gave is printed, and judged on the host.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any, Final

from hookproof.guest import agents, executor, steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hookproof.scenario import Call

#: Before the results of a repetition.
_RESULTS: Final = "hookproof-bench-results "
#: Where the agent writes its log; with us the guest's init makes it.
_LOGS: Final = "/run/hookproof"
#: Seconds that an agent may take to stop.
_PATIENCE: Final = 60.0


def command(calls: Sequence[Call], times: int) -> str:
    """The line of shell that does it in a guest which has the host's root."""
    from hookproof.service import executor as service

    path = [str(folder) for folder in service().folders]
    start = (
        f"import sys; sys.path[:0] = {path!r}; from hookproof.bench import repeat; repeat.main()"
    )
    plain = json.dumps([[call.verb, call.calls] for call in calls], separators=(",", ":"))
    return shlex.join([sys.executable, "-I", "-S", "-c", start, str(times), plain])


def wrong(calls: Sequence[Call], times: int, lines: Sequence[str]) -> str:
    """What went wrong, in one line, by what the guest printed; or ''."""
    from hookproof.judge import judge

    found = [json.loads(line[len(_RESULTS) :]) for line in lines if line.startswith(_RESULTS)]
    if len(found) != times:
        return f"{len(found)} of {times} repetitions gave results"
    for results in found:
        for call, result in zip(calls, results, strict=True):
            if said := judge(call, result):
                return f"{call.where}: {said}"
    return ""


def main() -> None:
    """In the guest: repeats the calls as often as the first argument says."""
    times, calls = int(sys.argv[1]), json.loads(sys.argv[2])
    for folder in (_LOGS, executor.WORKSPACE):
        os.mkdir(folder)  # noqa: PTH102  pathlib is not loaded in the guest for this
    for _ in range(times):
        print(_RESULTS + json.dumps(_once(calls)), flush=True)


def _once(calls: Sequence[tuple[str, Sequence[dict[str, Any]]]]) -> list[list[Any]]:
    agent = agents.Refagent()
    try:
        return [[_do(agent, verb, each) for each in repeated] for verb, repeated in calls]
    finally:
        agent.stop(_PATIENCE)


def _do(agent: agents.Agent, verb: str, call: dict[str, Any]) -> Any:
    return steps.act(verb, call) if verb in steps.STEPS else agent.request(verb, **call)
