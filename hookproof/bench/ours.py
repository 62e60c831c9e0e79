# SPDX-License-Identifier: Apache-2.0
"""`hookproof run` as its users call it, in a process of its own."""

from __future__ import annotations

import json
import shutil
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hookproof.bench import process
from hookproof.bench.spread import Cost
from hookproof.decode import read_scenario
from vm.errors import HostProblem, UsageProblem

#: Seconds after which a run is taken for dead.
_DEAD: Final = 7200.0


@dataclass(frozen=True)
class Way:
    """How scenarios are run.

    Attributes:
        machine: `snapshot` or `virtme`.
        isolate: `vm` or `none`.
        parallel: machines at a time.
    """

    machine: str = "snapshot"
    isolate: str = "vm"
    parallel: int = 1

    @property
    def options(self) -> list[str]:
        """For the command line."""
        return [f"--{name}={value}" for name, value in vars(self).items()]

    @property
    def words(self) -> str:
        """For people."""
        sharing = {"vm": "a machine each", "none": "one machine"}[self.isolate]
        many = f", {self.parallel} at a time" if self.parallel > 1 else ""
        return f"{sharing} ({self.machine}{many})"


@dataclass(frozen=True)
class Ran:
    """What came of a run.

    Attributes:
        cost: what it took.
        passed: how many cases passed.
        skipped: how many the kernel can't do.
    """

    cost: Cost
    passed: int
    skipped: int


def run(
    paths: Sequence[Path],
    kernels: Sequence[str],
    way: Way,
    folder: Path,
    look: Callable[[int], None] | None = None,
) -> Ran:
    """Runs scenarios on kernels.

    Args:
        paths: files and folders.
        kernels: names.
        way: how.
        folder: the working folder, for reports and pytest's cache.
        look: as in `process.run`.

    Raises:
        HostProblem: it failed, or a case did not pass.
    """
    command = Path(sysconfig.get_path("scripts")) / "hookproof"
    argv = [
        str(command), "run", *(f"--kernel={name}" for name in kernels), *way.options,
        "--results=results", *(str(path.absolute()) for path in paths),
    ]  # fmt: skip
    # With a pytest.ini beside it the folder is pytest's root, whatever lies above.
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="ascii")
    try:
        done = process.run(argv, cwd=folder, deadline=_DEAD, look=look)
    except OSError as error:
        raise HostProblem(f"cannot be started: {error.strerror}", where=str(command)) from None
    if done.status != 0:
        raise HostProblem(f"hookproof run ended with {done.status}: {_why(done.out, done.words)}")
    totals = json.loads((folder / "results/results.json").read_text("utf-8"))["totals"]
    return Ran(done.cost, totals["passed"], totals["skipped"])


def copies(scenario: Path, count: int, folder: Path) -> Path:
    """A folder with so many copies of a scenario, made anew.

    Raises:
        UsageProblem: it has parameters, or can't be read.
    """
    if read_scenario(scenario).params:
        raise UsageProblem("a scenario with parameters is many", where=str(scenario))
    place = folder / f"{count}" / "scenarios"
    place.mkdir(parents=True)
    for number in range(1, count + 1):
        shutil.copyfile(scenario, place / f"{scenario.stem}-{number}.yaml")
    return place


def _why(out: str, words: str) -> str:
    """The first line with which pytest says what went wrong, or its last."""
    lines: list[Any] = [line.strip() for line in out.splitlines()]
    return next((line for line in lines if line.startswith(("FAILED", "ERROR"))), words)
