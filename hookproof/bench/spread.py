# SPDX-License-Identifier: Apache-2.0
"""Numbers that were measured several times."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """One thing's measures, in the unit that its user names."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, measures: Sequence[float]) -> Spread:
        """From the single measures, of which there is at least one."""
        return cls(statistics.median(measures), min(measures), max(measures))

    def times(self, factor: float) -> Spread:
        """The same, multiplied."""
        return Spread(self.median * factor, self.least * factor, self.most * factor)

    def to(self, other: Spread) -> float:
        """The ratio of the medians."""
        return self.median / other.median


@dataclass(frozen=True)
class Cost:
    """What a command took.

    Attributes:
        wall: seconds that passed.
        cpu: seconds of processors, its own and of all it started and waited for.
    """

    wall: float
    cpu: float


@dataclass(frozen=True)
class Costs:
    """What a command took, several times."""

    wall: Spread
    cpu: Spread

    @classmethod
    def of(cls, costs: Sequence[Cost]) -> Costs:
        """From the single costs, of which there is at least one."""
        return cls(
            Spread.of([each.wall for each in costs]), Spread.of([each.cpu for each in costs])
        )

    def times(self, factor: float) -> Costs:
        """The same, multiplied."""
        return Costs(self.wall.times(factor), self.cpu.times(factor))
