# SPDX-License-Identifier: Apache-2.0
"""The verb `storm`: lists of steps again and again, all at the same time, for a while."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from hookproof.guest.threads import Thread

#: A branch changes its processor before one step of so many.
_MOVES: Final = 3

#: A result, how often it came, and in which round it came first.
Seen = list[Any]


def storm(args: Mapping[str, Any], do: Callable[[str, Mapping[str, Any]], Any]) -> Any:
    """Does all branches in threads of their own until the time is up; each at least once.

    Args:
        args: `branches` (lists of steps), `seconds` and `seed` as they come over the wire.
        do: does a call of any verb.

    Returns:
        For each step of each branch, the different results of each of its calls: a list of
        [RESULT, how often, the first round].
    """
    until = time.monotonic() + args["seconds"]
    branches: list[Sequence[Mapping[str, Any]]] = args["branches"]
    hands = [Thread() for _ in branches]
    asked = [
        hand.ask(_branch(branch, until, random.Random(f"{args['seed']}-{number}"), do))  # noqa: S311  of no secret
        for number, (hand, branch) in enumerate(zip(hands, branches, strict=True))
    ]
    with contextlib.ExitStack() as stack:
        for hand in hands:
            stack.callback(hand.end)
        return {"branches": [each.get(args["seconds"] + 60.0) for each in asked]}


def _branch(
    branch: Sequence[Mapping[str, Any]],
    until: float,
    drawn: random.Random,
    do: Callable[[str, Mapping[str, Any]], Any],
) -> Callable[[], list[list[list[Seen]]]]:
    def act() -> list[list[list[Seen]]]:
        cpus = sorted(os.sched_getaffinity(0))
        seen: list[list[list[Seen]]] = [[[] for _ in step["calls"]] for step in branch]
        number = 0
        while not number or time.monotonic() < until:
            number += 1
            for step, calls in zip(branch, seen, strict=True):
                for call, results in zip(step["calls"], calls, strict=True):
                    if not drawn.randrange(_MOVES):
                        os.sched_setaffinity(0, {drawn.choice(cpus)})
                    _note(results, do(step["verb"], call), number)
        return seen

    return act


def _note(results: list[Seen], result: Any, number: int) -> None:
    for each in results:
        if each[0] == result:
            each[1] += 1
            return
    results.append([result, 1, number])
