# SPDX-License-Identifier: Apache-2.0
"""Many scenarios on one kernel: `hookproof run` beside vng with a script."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from hookproof import bind
from hookproof.bench import ours, repeat
from hookproof.bench.ours import Way
from hookproof.bench.peers import VNG
from hookproof.bench.setup import Setup
from hookproof.bench.spread import Cost, Costs, Spread
from hookproof.bench.table import Row, cost, seconds
from hookproof.decode import read_scenario
from vm.errors import HostProblem
from vm.kernel import Image

MANY: Final = 50
#: A machine each first: what one more costs is its difference to a single scenario.
_WAYS: Final = (
    Way(),
    Way(parallel=2),
    Way(isolate="none"),
    Way(machine="virtme", isolate="none"),
)


@dataclass(frozen=True)
class Scenarios:
    """What `MANY` scenarios cost, each way.

    Attributes:
        kernel: its name.
        scenario: the file that was repeated.
        ways: ours.
        one_more: seconds of one more scenario with a machine of its own.
        vng_true: one `vng … --exec true`.
        vng_one: one vng for one repetition.
        vng_all: one vng for all repetitions.
    """

    kernel: str
    scenario: str
    ways: tuple[tuple[Way, Costs], ...]
    one_more: Spread
    vng_true: Costs
    vng_one: Costs
    vng_all: Costs

    @property
    def vng_each(self) -> Costs:
        """A vng for each repetition, reckoned from `vng_one`."""
        return self.vng_one.times(MANY)

    def to_json(self) -> Any:
        """As docs/results.md has it, ratios first."""
        isolated = self.ways[0][1]
        return {
            "kernel": self.kernel,
            "scenario": self.scenario,
            "count": MANY,
            "ratios": {
                "one_more_to_vng_true": self.one_more.to(self.vng_true.wall),
                "isolated_to_vng_each": isolated.wall.to(self.vng_each.wall),
                "isolated_to_vng_all": isolated.wall.to(self.vng_all.wall),
            },
            "one_more": asdict(self.one_more),
            "ours": [{**asdict(way), **asdict(costs)} for way, costs in self.ways],
            "vng_true": asdict(self.vng_true),
            "vng_each": {"measured": 1, "multiplied_by": MANY, **asdict(self.vng_each)},
            "vng_all": asdict(self.vng_all),
        }

    def rows(self) -> list[Row]:
        """One more scenario beside one vng, and each of our ways beside both of theirs."""
        single, each, once = self.vng_true, self.vng_each, self.vng_all
        rows = [
            Row(
                f"{self.kernel}: one more scenario, in a machine of its own",
                seconds(self.one_more),
                f"vng, true: {seconds(single.wall)}",
                self.one_more.to(single.wall),
            )
        ]
        for way, costs in self.ways:
            peer, name = (each, "vng each, reckoned") if way.isolate == "vm" else (once, "one vng")
            what = f"{self.kernel}: {MANY} scenarios, {way.words}"
            ratio = costs.wall.to(peer.wall)
            rows.append(Row(what, cost(costs), f"{name}: {cost(peer)}", ratio))
        isolated = self.ways[0][1]
        what = f"{self.kernel}: {MANY} scenarios, {self.ways[0][0].words}"
        ratio = isolated.wall.to(once.wall)
        return [*rows, Row(what, cost(isolated), f"one vng: {cost(once)}", ratio)]


def measure(setup: Setup) -> Iterator[Scenarios]:
    """Measures; one result.

    Raises:
        Problem: something did not pass.
    """
    image = setup.image(setup.one)
    many = ours.copies(setup.scenario, MANY, setup.folder / "scenarios")
    single = ours.copies(setup.scenario, 1, setup.folder / "scenarios")
    tries: dict[str, Callable[[], Cost]] = {
        **{way.words: partial(_ours, setup, many, MANY, way) for way in _WAYS},
        "a single one": partial(_ours, setup, single, 1, _WAYS[0]),
        "vng, true": lambda: setup.peers.run(VNG, image).cost,
        "vng, once": partial(theirs, setup, image, 1),
        "vng, all": partial(theirs, setup, image, MANY),
    }
    name = setup.one.name
    setup.say(f"{name}: a scenario on each kind of machine for nothing, so that all is ready")
    for way in (_WAYS[0], _WAYS[-1]):
        _ours(setup, single, 1, way)
    costs: dict[str, list[Cost]] = {what: [] for what in tries}
    for number in range(1, setup.rounds + 1):
        for what, attempt in tries.items():
            costs[what].append(attempt())
            setup.say(
                f"{name}: round {number} of {setup.rounds}: {MANY} scenarios: "
                f"{what}: {costs[what][-1].wall:.1f} s"
            )
    pairs = zip(costs[_WAYS[0].words], costs["a single one"], strict=True)
    yield Scenarios(
        kernel=name,
        scenario=str(setup.scenario),
        ways=tuple((way, Costs.of(costs[way.words])) for way in _WAYS),
        one_more=Spread.of([(fifty.wall - one.wall) / (MANY - 1) for fifty, one in pairs]),
        vng_true=Costs.of(costs["vng, true"]),
        vng_one=Costs.of(costs["vng, once"]),
        vng_all=Costs.of(costs["vng, all"]),
    )


def theirs(
    setup: Setup, image: Image, times: int, look: Callable[[int], None] | None = None
) -> Cost:
    """A vng in which the scenario is done so many times.

    Raises:
        HostProblem: it gave something else than the scenario says.
    """
    calls = bind.bind(read_scenario(setup.scenario), {}, {})
    said = setup.peers.run(VNG, image, repeat.command(calls, times), look)
    if wrong := repeat.wrong(calls, times, said.lines):
        raise HostProblem(f"vng with {image.kernel.name}: {wrong}")
    return said.cost


def _ours(setup: Setup, folder: Path, count: int, way: Way) -> Cost:
    ran = ours.run([folder], [setup.one.name], way, folder.parent)
    if ran.passed != count:
        raise HostProblem(f"{ran.passed} of {count} scenarios passed", where=str(setup.scenario))
    return ran.cost
