# SPDX-License-Identifier: Apache-2.0
"""A case: one scenario on one kernel with one choice of its parameters."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from hookproof.names import Value
from hookproof.scenario import Scenario
from vm.kernel import Kernel
from vm.suggest import closest


@dataclass(frozen=True)
class Case:
    """What one pytest item runs.

    Attributes:
        scenario: what to do.
        kernel: where.
        params: one value for each of the scenario's parameters.
        turn: which of several times it is, from 1; 0 if it is the only one.
    """

    scenario: Scenario
    kernel: Kernel
    params: Mapping[str, Value]
    turn: int = 0

    @property
    def id(self) -> str:
        """`6.12`, `6.12-64` or `6.12-limit+1-EPERM`: the kernel, then the parameters as written.

        With its turn, if there are several: `6.12-64-turn3`.
        """
        return self.choice + (f"-turn{self.turn}" if self.turn else "")

    @property
    def choice(self) -> str:
        """The id without the turn."""
        return "-".join([self.kernel.name, *(str(value) for value in self.params.values())])

    @property
    def name(self) -> str:
        """The item's name, such as `limit[6.12-64]`."""
        return f"{self.scenario.name}[{self.id}]"

    @property
    def machine(self) -> tuple[str, tuple[str, ...]]:
        """Cases with the same value can share a machine."""
        return self.kernel.name, self.scenario.boot


def strangers(scenario: Scenario, kernels: Iterable[Kernel]) -> Iterator[str]:
    """What is said of each pattern that is no kernel's, as it leaves cases out in silence.

    Args:
        scenario: whose patterns.
        kernels: all that could be meant.
    """
    names = [kernel.name for kernel in kernels]
    for key in ("only", "splats"):
        for pattern in getattr(scenario, key):
            if not any(fnmatchcase(name, pattern) for name in names):
                hint = closest(pattern, names)
                yield f"'{key}' has '{pattern}', and no kernel is called so; {hint}"


def cases(scenario: Scenario, kernels: Sequence[Kernel], times: int = 1) -> Iterator[Case]:
    """Every case of a scenario: kernels in their order, then the product of its parameters.

    Of a scenario that is only for some kernels, the cases on these.

    Args:
        scenario: whose cases.
        kernels: those that are wanted.
        times: how often each is to run.
    """
    choices = [
        dict(zip(scenario.params, values, strict=True))
        for values in itertools.product(*scenario.params.values())
    ]
    for kernel in kernels:
        if scenario.only and not any(fnmatchcase(kernel.name, each) for each in scenario.only):
            continue
        for params in choices:
            for turn in range(1, times + 1):
                yield Case(scenario, kernel, params, turn if times > 1 else 0)
