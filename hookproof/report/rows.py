# SPDX-License-Identifier: Apache-2.0
"""What the reports are made from: rows, and the facts of the run they came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hookproof.case import Case
from hookproof.verdict import MARKS, Verdict

#: How totals are worded, by mark and in this order.
TOTALS = {"passed": "passed", "failure": "failed", "error": "errors", "skipped": "skipped"}


@dataclass(frozen=True)
class Row:
    """One result: a scenario on a kernel with its parameters, and what came of it.

    Attributes:
        kernel: the kernel's name in kernels.txt.
        scenario: the scenario's name, its file's stem.
        path: the scenario's file, relative to where the run was started if it is below.
        params: parameter name → the value as written.
        id: the case's id, such as `6.12-64`.
        verdict: the outcome and its evidence.
    """

    kernel: str
    scenario: str
    path: Path
    params: Mapping[str, str | int]
    id: str
    verdict: Verdict

    @classmethod
    def of(cls, case: Case, verdict: Verdict, root: Path | None = None) -> Row:
        """The row of a case.

        Args:
            case: what ran.
            verdict: what came of it.
            root: what paths are shown relative to, by default the working directory. A
                file that is not below it keeps its folder's name and its own.
        """
        path = case.scenario.path.absolute()
        base = (root or Path.cwd()).absolute()
        shown = path.relative_to(base) if path.is_relative_to(base) else Path(*path.parts[-2:])
        params = {
            name: value if isinstance(value, int) else str(value)
            for name, value in case.params.items()
        }
        return cls(case.kernel.name, case.scenario.name, shown, params, case.id, verdict)

    @property
    def mark(self) -> str:
        """As pytest and JUnit call it: passed, failure, error or skipped."""
        return MARKS[self.verdict.outcome]

    @property
    def name(self) -> str:
        """The item's name, such as `limit[6.12-64]`."""
        return f"{self.scenario}[{self.id}]"


@dataclass(frozen=True)
class KernelFacts:
    """One kernel as it was under test; what is not known is empty.

    Attributes:
        name: in kernels.txt.
        release: what `uname -r` says.
        version: the package's version.
        digest: SHA-256 of the image, hex.
    """

    name: str
    release: str = ""
    version: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Session:
    """The run as a whole.

    Attributes:
        started: when, with a time zone.
        seconds: wall time of everything.
        cores: the host's processors.
        accel: `kvm` or `tcg`.
        kernels: in the order of the run.
    """

    started: datetime
    seconds: float
    cores: int
    accel: str
    kernels: tuple[KernelFacts, ...] = ()


def totals(rows: Iterable[Row]) -> dict[str, int]:
    """How many rows carry each mark, in the words and the order of `TOTALS`."""
    count = Counter(row.mark for row in rows)
    return {word: count[mark] for mark, word in TOTALS.items()}
