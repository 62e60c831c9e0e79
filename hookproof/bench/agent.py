# SPDX-License-Identifier: Apache-2.0
"""The reference agent's costs against its number of policies, on one kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from hookproof.bench import inguest, policies
from hookproof.bench.setup import Setup
from hookproof.bench.spread import Spread
from hookproof.bench.table import Row, seconds

#: What is compared with one policy, and how it is called.
RATIOS: Final = {
    "denied_override": "override program, a denied call",
    "denied_sensor": "sensor, a denied call",
    "passed_override": "override program, a call that matches nothing",
    "passed_sensor": "sensor, a call that matches nothing",
    "one_more": "load of one more policy",
}


@dataclass(frozen=True)
class Sized:
    """An agent with so many policies on one function.

    Attributes:
        policies: how many.
        first: seconds of the first load, which loads the programs.
        one_more: seconds of a load beyond these.
        memory: bytes of its maps with all policies.
        memory_of_first: and with one.
        denied_sensor: nanoseconds of the sensor in a call that a policy denies.
        denied_override: and of the override program.
        passed_sensor: the same in a call that matches none.
        passed_override: likewise.
    """

    policies: int
    first: Spread
    one_more: Spread
    memory: int
    memory_of_first: int
    denied_sensor: Spread
    denied_override: Spread
    passed_sensor: Spread
    passed_override: Spread

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Sized:
        """From what the guest measured."""
        spread: dict[str, Any] = {
            name: Spread.of(value) if isinstance(value, list) else value
            for name, value in raw.items()
        }
        return cls(**spread)

    @property
    def memory_of_one_more(self) -> float:
        """Bytes for each policy beyond the first."""
        return (self.memory - self.memory_of_first) / max(1, self.policies - 1)


@dataclass(frozen=True)
class Costs:
    """All sizes on one kernel, the smallest first."""

    kernel: str
    sizes: tuple[Sized, ...]

    def to_json(self) -> Any:
        """As docs/results.md has it, ratios first."""
        one, *more = self.sizes
        ratios = {
            what: {each.policies: getattr(each, what).to(getattr(one, what)) for each in more}
            for what in RATIOS
        }
        sizes = [{**asdict(e), "memory_of_one_more": e.memory_of_one_more} for e in self.sizes]
        return {"kernel": self.kernel, "ratios": ratios, "sizes": sizes}

    def rows(self) -> list[Row]:
        """Each number beside that of one policy."""
        one, *more = self.sizes
        rows = []
        for what, words in RATIOS.items():
            shown = _milliseconds if what == "one_more" else _nanoseconds
            first = getattr(one, what)
            rows += [
                Row(
                    f"{self.kernel}: {words}, {each.policies} policies",
                    shown(getattr(each, what)),
                    f"1 policy {shown(first)}",
                    getattr(each, what).to(first),
                )
                for each in more
            ]
        rows.append(Row(f"{self.kernel}: load of the first policy", seconds(one.first)))
        rows.append(
            Row(f"{self.kernel}: maps of an agent with 1 policy", f"{one.memory / 2**20:.2f} MiB")
        )
        return rows + [
            Row(
                f"{self.kernel}: maps, each further policy of {each.policies}",
                f"{each.memory_of_one_more:.0f} bytes",
            )
            for each in more
        ]


def measure(setup: Setup) -> Iterator[Costs]:
    """Measures all sizes in one machine; one result.

    Raises:
        Problem: the boot failed, or what runs in the guest did.
    """
    setup.say(f"{setup.one.name}: agents with {', '.join(map(str, policies.SIZES))} policies")
    raw = inguest.measured(setup, "policies")
    yield Costs(setup.one.name, tuple(Sized.of(each) for each in raw))


def _nanoseconds(spread: Spread) -> str:
    return f"{spread.median:.0f} ns ({spread.least:.0f}-{spread.most:.0f})"


def _milliseconds(spread: Spread) -> str:
    found = spread.times(1000)
    return f"{found.median:.2f} ms ({found.least:.2f}-{found.most:.2f})"
