# SPDX-License-Identifier: Apache-2.0
"""All scenarios on all kernels, and how that grows with scenarios and with kernels.

The growth is that of copies of one scenario, as often as is asked for. The whole is run once with
each number of machines: it is a thousand cases, which takes a quarter of an hour and more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

from hookproof.bench import ours
from hookproof.bench.ours import Ran, Way
from hookproof.bench.setup import Setup
from hookproof.bench.spread import Costs
from hookproof.bench.table import Row, cost
from hookproof.cli_run import FOLDER
from vm.errors import HostProblem, UsageProblem

_PARALLEL: Final = (1, 2)
#: For the growth; by kernels with the least number of scenarios, up to all kernels.
_SCENARIOS: Final = (10, 50, 200)
_KERNELS: Final = (1, 2, 4, 8)
_WAY: Final = Way(parallel=_PARALLEL[-1])

#: Scenarios, kernels, and how they are run.
_Try: TypeAlias = tuple[Path, Sequence[str], Way]


@dataclass(frozen=True)
class Run:
    """A run of the harness, measured several times.

    Attributes:
        scenarios: files.
        kernels: their number.
        parallel: machines at a time.
        passed: cases that passed.
        skipped: cases that a kernel can't do.
        costs: seconds.
    """

    scenarios: int
    kernels: int
    parallel: int
    passed: int
    skipped: int
    costs: Costs

    def to_json(self) -> dict[str, Any]:
        """Flat."""
        plain = asdict(self)
        return {**plain, **plain.pop("costs")}


@dataclass(frozen=True)
class Matrix:
    """What the whole matrix costs, and parts of it; empty where it was not measured yet.

    Attributes:
        kernels: names, of the whole.
        one: the kernel of `by_scenarios`.
        whole: one machine at a time, and more; each once.
        by_scenarios: growing number of scenarios, on one kernel.
        by_kernels: growing number of kernels, with the least number of scenarios.
    """

    kernels: tuple[str, ...]
    one: str
    whole: tuple[Run, ...] = ()
    by_scenarios: tuple[Run, ...] = ()
    by_kernels: tuple[Run, ...] = ()

    def to_json(self) -> Any:
        """As docs/results.md has it, ratios first."""
        groups = {name: getattr(self, name) for name in ("whole", "by_scenarios", "by_kernels")}
        return {
            "ratios": {"parallel": self._gain} if self._gain else {},
            "kernels": self.kernels,
            "one": self.one,
            **{name: [each.to_json() for each in runs] for name, runs in groups.items()},
        }

    def rows(self) -> list[Row]:
        """The whole, and each point of the growth."""
        rows = []
        for runs, label in (
            (self.whole, "matrix"),
            (self.by_scenarios, f"growth on {self.one}"),
            (self.by_kernels, "growth by kernels"),
        ):
            for run in runs:
                cases = run.passed + run.skipped
                what = f"{label}: {run.scenarios} scenarios x {run.kernels} kernels"
                what += f", {cases} cases, {run.parallel} at a time"
                rows.append(Row(what, cost(run.costs)))
        if self._gain:
            first = self.whole[0]
            rows[1] = replace(rows[1], ratio=self._gain, beside=f"{first.parallel} at a time")
        return rows

    @property
    def _gain(self) -> float | None:
        if len(self.whole) < 2:
            return None
        first, *_, last = self.whole
        return last.costs.wall.to(first.costs.wall)


def measure(setup: Setup) -> Iterator[Matrix]:
    """Measures the growth by scenarios and by kernels, and the whole; a result after each.

    Raises:
        Problem: there are no scenarios, or one failed.
    """
    if not FOLDER.is_dir():
        raise UsageProblem(f"there is no folder {FOLDER} here", where=str(Path.cwd()))
    folder = setup.folder / "matrix"
    folder.mkdir()
    names = tuple(kernel.name for kernel in setup.kernels)
    grown = [ours.copies(setup.scenario, count, folder) for count in _SCENARIOS]
    setup.say(f"matrix: {len(names)} kernels once for nothing, so that all is ready")
    ours.run([grown[0]], names, _WAY, folder)
    result = Matrix(names, setup.one.name)
    tries: list[_Try] = [(each, (setup.one.name,), _WAY) for each in grown]
    yield (result := replace(result, by_scenarios=_alternate(setup, folder, tries, setup.rounds)))
    parts = [names[:count] for count in _KERNELS if count < len(names)]
    tries = [(grown[0], each, _WAY) for each in (*parts, names)]
    yield (result := replace(result, by_kernels=_alternate(setup, folder, tries, setup.rounds)))
    tries = [(FOLDER, names, Way(parallel=count)) for count in _PARALLEL]
    yield replace(result, whole=_alternate(setup, folder, tries, rounds=1))


def _alternate(setup: Setup, folder: Path, tries: Sequence[_Try], rounds: int) -> tuple[Run, ...]:
    """Runs each once a round."""
    found: list[list[Ran]] = [[] for _ in tries]
    for number in range(1, rounds + 1):
        for done, (path, names, way) in zip(found, tries, strict=True):
            done.append(ours.run([path], names, way, folder))
            setup.say(
                f"matrix: round {number} of {rounds}: {_files(path)} scenarios x "
                f"{len(names)} kernels, {way.parallel} at a time: {done[-1].cost.wall:.1f} s"
            )
    return tuple(
        Run(
            _files(path),
            len(names),
            way.parallel,
            *_same(done),
            Costs.of([each.cost for each in done]),
        )
        for done, (path, names, way) in zip(found, tries, strict=True)
    )


def _files(path: Path) -> int:
    return len(list(path.rglob("*.yaml")))


def _same(done: Sequence[Ran]) -> tuple[int, int]:
    """How many passed and were skipped, which is to be the same each time."""
    counts = {(each.passed, each.skipped) for each in done}
    if len(counts) > 1:
        raise HostProblem(f"the same run had different results: {sorted(counts)}")
    return counts.pop()
