# SPDX-License-Identifier: Apache-2.0
"""Runs scenarios against the agent as it is and against its mutants, some at a time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from hookproof.case import Case, cases
from hookproof.crew import harmless, run_case
from hookproof.decode import read_scenario
from hookproof.mutants import build
from hookproof.mutants.fleet import PlantedFleet
from hookproof.mutants.inside import Closable, Inside
from hookproof.mutants.matrix import CONTROL, Cell, Matrix, Result, beside_control, result_of
from hookproof.mutants.patch import Mutant
from hookproof.scenario import Scenario
from hookproof.settings import Settings
from hookproof.stage import Stage
from hookproof.verdict import Outcome, Verdict
from vm import accel, capacity
from vm.accel import Calibration
from vm.errors import Problem, UsageProblem
from vm.kernel import Kernel
from vm.suggest import closest
from vm.virtme import Size

Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """One agent on one kernel.

    Attributes:
        mutant: or None for the agent as it is.
        files: those of the agent that are others.
        kernel: where.
        scenarios: what it is to face, by folder and name.
        tests: and of tests/inside; in a job of their own.
    """

    mutant: Mutant | None
    files: Mapping[str, bytes]
    kernel: Kernel
    scenarios: Mapping[str, Scenario]
    tests: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The mutant's, or `CONTROL`."""
        return self.mutant.name if self.mutant else CONTROL


class MutantSession:
    """A context manager: leaving it stops what still runs.

    Args:
        settings: kernels, accelerator, how many machines at a time.
        say: takes lines of progress.
        repeat: how often each scenario is run, and has to come to the same.
    """

    def __init__(self, settings: Settings, say: Say, repeat: int = 1) -> None:
        self._settings, self._say, self._repeat = settings, say, repeat
        self._calibration: Calibration = accel.choose(settings.accel)
        self._inside = Inside(settings, self._calibration, self)
        self._live: set[Closable] = set()
        self._lock = Lock()
        self._closed = False

    def __enter__(self) -> MutantSession:
        return self

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._closed = True
            live = list(self._live)
        for stage in live:
            stage.close()

    def run(
        self,
        mutants: Sequence[Mutant],
        scenarios: Mapping[str, Scenario],
        *,
        everything: bool,
        whole: bool,
    ) -> Matrix:
        """Runs the control, and then the mutants.

        Args:
            mutants: to be tried.
            scenarios: all there are, by folder and name.
            everything: whether each mutant faces all of them, or those that its header names.
            whole: whether these are all the mutants there are.

        If it is interrupted, what has been found until then is returned.

        Raises:
            UsageProblem: a header names a scenario or kernels that are not there.
        """
        names = [kernel.name for kernel in self._settings.catalog]
        named = {mutant.name: faced(mutant, scenarios, names) for mutant in mutants}
        lanes = self._settings.parallel or capacity.machines(Size().memory)
        built, unfit = self._build(mutants, lanes)
        control: list[Job] = []
        jobs: list[Job] = []
        for kernel in self._settings.kernels:
            met: dict[str, Scenario] = {}
            tests: dict[str, None] = {}
            for mutant in built:
                if mutant.shows_on(kernel.name):
                    some = scenarios if everything else named[mutant.name]
                    met.update(some)
                    tests.update(dict.fromkeys(mutant.tests))
                    jobs += _jobs(mutant, built[mutant], kernel, some, mutant.tests)
            some = scenarios if whole or everything else met
            for lane in range(lanes):  # all of them: the mutants wait for it
                part = dict(list(some.items())[lane::lanes])
                control += _jobs(None, {}, kernel, part, tuple(tests)[lane::lanes])
        found: list[Cell] = []
        cut = False
        with ThreadPoolExecutor(lanes, "mutants") as pool:
            try:
                for batch in (control, jobs):  # the first makes the saved states
                    for cells in pool.map(self._do, batch):
                        found += cells
            except BaseException as error:
                self.__exit__()
                pool.shutdown(cancel_futures=True)
                if not isinstance(error, KeyboardInterrupt):
                    raise
                cut = True
        kernels = [kernel.name for kernel in self._settings.kernels]
        return Matrix(mutants, scenarios, kernels, beside_control(found), unfit, whole, cut)

    def _build(
        self, mutants: Sequence[Mutant], lanes: int
    ) -> tuple[dict[Mutant, Mapping[str, bytes]], dict[str, str]]:
        """What each mutant changes of the agent, and why some change nothing; some at a time."""
        self._say(f"building {len(mutants)} agents")
        begun = time.monotonic()
        built, unfit = dict[Mutant, Mapping[str, bytes]](), dict[str, str]()

        def make(mutant: Mutant) -> None:
            try:
                built[mutant] = build.build(mutant)
            except build.Unfit as why:
                unfit[mutant.name] = str(why)

        with ThreadPoolExecutor(lanes, "build") as pool:
            try:
                list(pool.map(make, mutants))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        self._say(f"{len(built)} agents built ({time.monotonic() - begun:.1f} s)")
        return {mutant: built[mutant] for mutant in mutants if mutant in built}, unfit

    def _do(self, job: Job) -> list[Cell]:
        """The cells of one agent on one kernel; machines are shared by what passes."""
        fleet = PlantedFleet(self._settings, self._say, job.files, self._calibration)
        begun, cells = time.monotonic(), list[Cell]()
        if job.tests:
            rounds = [
                self._inside.run(job.kernel, job.tests, job.mutant, job.files)
                for _ in range(self._repeat)
            ]
            cells += [worst(each) for each in zip(*rounds, strict=True)]
        groups: dict[tuple[str, ...], list[str]] = {}
        for name, scenario in job.scenarios.items():
            groups.setdefault(scenario.boot, []).append(name)
        for words, names in groups.items():
            with contextlib.closing(_Machine(self, fleet, job.kernel, words)) as machine:
                for name in names:
                    found = [self._face(machine, job, name) for _ in range(self._repeat)]
                    if each := [cell for cell in found if cell is not None]:
                        cells.append(worst(each))
        self._tell(job, cells, time.monotonic() - begun)
        return cells

    def _face(self, machine: _Machine, job: Job, name: str) -> Cell | None:
        """A scenario's cell: of the first case that does not pass; None if it has no case there."""
        found: Cell | None = None
        seconds = 0.0
        for case in cases(job.scenarios[name], [job.kernel]):
            verdict = machine.run(case)
            seconds += verdict.seconds
            result, reason = result_of(verdict, job.mutant)
            cell = Cell(
                *(job.name, name, job.kernel.name, result, case.id, verdict.outcome.value),
                reason=reason,
                seconds=seconds,
            )
            if result in {Result.KILLED, Result.ERROR}:
                return cell
            if found is None or result is Result.PASSED:
                found = cell
        return found

    def _tell(self, job: Job, cells: Sequence[Cell], seconds: float) -> None:
        words = ", ".join(
            f"{sum(cell.result is result for cell in cells)} {result.value}"
            for result in Result
            if any(cell.result is result for cell in cells)
        )
        what = job.name or "without a mutant"
        self._say(f"{job.kernel.name}: {what}: {words or 'nothing to run'} ({seconds:.1f} s)")

    def add(self, machine: Closable) -> None:
        """Notes a machine that is to be stopped if the session ends early."""
        with self._lock:
            if self._closed:
                raise KeyboardInterrupt
            self._live.add(machine)

    def drop(self, machine: Closable) -> None:
        """Forgets a machine that has been stopped."""
        with self._lock:
            self._live.discard(machine)


def worst(cells: Sequence[Cell]) -> Cell:
    """What a scenario comes to that was run several times: what it should not, if that was once."""
    bad = (Result.ERROR, Result.KILLED if cells[0].mutant == CONTROL else Result.PASSED)
    worst = min(cells, key=lambda cell: cell.result not in bad)
    seconds = sum(cell.seconds for cell in cells)
    count = sum(cell.result is worst.result for cell in cells)
    if count == len(cells):
        return replace(worst, seconds=seconds)
    how_often = f"{worst.result.value} {count} of {len(cells)} times"
    return replace(
        worst, seconds=seconds, reason=": ".join(filter(None, (how_often, worst.reason)))
    )


class _Machine:
    """One stage after the other, each used for as long as all passes."""

    def __init__(
        self, session: MutantSession, fleet: PlantedFleet, kernel: Kernel, words: tuple[str, ...]
    ) -> None:
        self._session, self._fleet = session, fleet
        self._kernel, self._words = kernel, words
        self._stage: Stage | None = None

    def run(self, case: Case) -> Verdict:
        """A case's verdict; whatever goes wrong becomes one."""
        try:
            if self._stage is None:
                stage = self._fleet.stage(self._kernel, self._words)
                self._session.add(stage)
                self._stage = stage
                stage.__enter__()
            verdict = run_case(self._fleet, self._stage, case)
        except Problem as problem:
            verdict = Verdict(Outcome.INFRA, str(problem))
        if not harmless(verdict):
            self.close()
        return verdict

    def close(self) -> None:
        """Stops the machine that is there."""
        stage, self._stage = self._stage, None
        if stage is not None:
            stage.close()
            self._session.drop(stage)


def read_scenarios(folder: Path) -> dict[str, Scenario]:
    """All scenarios below a folder, by folder and name.

    Raises:
        UsageProblem: one is wrong.
    """
    return dict(_scenarios(folder))


def _scenarios(folder: Path) -> Iterator[tuple[str, Scenario]]:
    for path in sorted(folder.rglob("*.yaml")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        yield name, read_scenario(path, str(shown))


def _jobs(
    mutant: Mutant | None,
    files: Mapping[str, bytes],
    kernel: Kernel,
    scenarios: Mapping[str, Scenario],
    tests: tuple[str, ...],
) -> Iterator[Job]:
    if scenarios:
        yield Job(mutant, files, kernel, scenarios)
    if tests:
        yield Job(mutant, files, kernel, {}, tests)


def faced(
    mutant: Mutant, scenarios: Mapping[str, Scenario], kernels: Sequence[str]
) -> dict[str, Scenario]:
    """The scenarios that a mutant's header names.

    Args:
        mutant: the mutant.
        scenarios: all there are, by folder and name.
        kernels: the names of all kernels there are.

    Raises:
        UsageProblem: one of them is not there, or none of the kernels is.
    """
    if not any(mutant.shows_on(kernel) for kernel in kernels):
        what = f"Kernels has no kernel: {' '.join(mutant.kernels)}"
        raise UsageProblem(what, where=str(mutant.path), hint=f"known: {', '.join(kernels)}")
    for name in mutant.killed_by:
        if name not in scenarios:
            what = f"Killed-by names '{name}', which is no scenario"
            raise UsageProblem(what, where=str(mutant.path), hint=closest(name, scenarios))
    for name in mutant.tests:
        file, _, test = name.partition("::")
        path = build.checkout() / file
        if not path.is_file() or f"\ndef {test}(" not in path.read_text(encoding="utf-8"):
            what = f"Killed-by names '{name}', which is no test"
            raise UsageProblem(what, where=str(mutant.path), hint="look into tests/inside")
    return {name: scenarios[name] for name in mutant.killed_by}
