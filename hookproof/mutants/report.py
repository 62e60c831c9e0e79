# SPDX-License-Identifier: Apache-2.0
"""A run of mutants for people in a terminal, and for programs; docs/results.md has the fields."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from hookproof.mutants.matrix import CONTROL, Cell, Matrix, Result
from hookproof.mutants.page import page
from hookproof.mutants.patch import Mutant
from hookproof.report.results_json import TOOL
from hookproof.report.text import to_bytes, to_json
from vm.errors import HostProblem

FORMAT: Final = 1  # goes up when a field changes its meaning or goes away
#: The files of a run, in the folder of results; hookproof.report.place leaves them alone.
JSON: Final = "mutants.json"
PAGE: Final = "mutants.html"


@dataclass(frozen=True)
class About:
    """The run as a whole.

    Attributes:
        started: when, with a time zone.
        seconds: wall time.
        cores: the host's processors.
    """

    started: datetime
    seconds: float
    cores: int


def listing(mutants: Sequence[Mutant]) -> str:
    """A line for each mutant: its name, and the bug."""
    width = max(len(mutant.name) for mutant in mutants)
    return "\n".join(f"{mutant.name:{width}}  {mutant.bug}" for mutant in mutants)


def table(matrix: Matrix) -> str:
    """A line for each mutant and kernel: what it came to, and which scenarios failed or passed."""
    lines = [("mutant", "kernel", "", "")]
    for mutant in matrix.mutants:
        cells = matrix.of(mutant.name)
        for kernel in matrix.kernels:
            here = [cell for cell in cells if cell.kernel == kernel]
            if here or mutant.name in matrix.unfit:
                words = matrix.unfit.get(mutant.name) or _said(here)
                lines.append((mutant.name, kernel, matrix.verdict(mutant, kernel), words))
        if not cells and mutant.name not in matrix.unfit:
            verdict = matrix.verdict(mutant)
            why = "not tried" if matrix.cut else f"is for {' '.join(mutant.kernels)}"
            lines.append((mutant.name, "-", verdict, why))
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    return "\n".join(
        "  ".join(
            [*(each.ljust(width) for each, width in zip(line, widths, strict=False)), line[3]]
        ).rstrip()
        for line in lines
    )


def _said(cells: Sequence[Cell]) -> str:
    """Which scenarios killed it; of a mutant that faced all, those that passed are not named."""
    words = []
    for result in (Result.KILLED, Result.PASSED, Result.SKIPPED, Result.ERROR):
        names = [cell.scenario for cell in cells if cell.result is result]
        if names and (result is not Result.PASSED or len(names) < len(cells) or len(names) <= 6):
            some = names if len(names) <= 6 else [*names[:5], f"and {len(names) - 5} more"]
            words.append(f"{_WORDS[result]} {', '.join(some)}")
        elif names:
            words.append(f"{_WORDS[result]} all of {len(names)} scenarios")
    return "; ".join(words)


_WORDS: Final = {
    Result.KILLED: "by",
    Result.PASSED: "not by",
    Result.SKIPPED: "skipped",
    Result.ERROR: "no verdict of",
}


def summary(matrix: Matrix, seconds: float) -> str:
    """One line of numbers."""
    verdicts = [matrix.verdict(mutant) for mutant in matrix.mutants]
    words = ", ".join(
        f"{verdicts.count(word)} {word}"
        for word in ("killed", "survived", "suite error", "not shown")
        if word in verdicts
    )
    kernels = ", ".join(matrix.kernels)
    return f"{len(verdicts)} mutants on {kernels}: {words} in {seconds:.0f} s"


def document(matrix: Matrix, about: About) -> str:
    """The text of mutants.json."""
    return to_json(
        {
            "format": FORMAT,
            "tool": TOOL,
            "started": about.started.isoformat(timespec="seconds"),
            "seconds": round(about.seconds, 3),
            "host": {"cores": about.cores},
            "kernels": list(matrix.kernels),
            "mutants": [
                {
                    "name": mutant.name,
                    "path": str(mutant.path),
                    "bug": mutant.bug,
                    "seen": mutant.seen,
                    "killed_by": list(mutant.killers),
                    "kernels": list(mutant.kernels),
                    "race": mutant.race,
                    "verdict": matrix.verdict(mutant),
                }
                for mutant in matrix.mutants
            ],
            "cells": [
                {
                    "mutant": cell.mutant if cell.mutant != CONTROL else None,
                    "scenario": cell.scenario,
                    "kernel": cell.kernel,
                    "result": cell.result.value,
                    "case": cell.case,
                    "outcome": cell.outcome,
                    "reason": cell.reason,
                    "seconds": round(cell.seconds, 3),
                }
                for cell in matrix.cells
            ],
            "findings": matrix.findings(),
        }
    )


def ready(results: Path) -> None:
    """Sees that a run's files can be written, before the run.

    Raises:
        HostProblem: the file system says no.
    """
    with _told(results):
        results.mkdir(parents=True, exist_ok=True)
        (results / f".{JSON}.new").touch()
        (results / f".{JSON}.new").unlink()


def write(results: Path, matrix: Matrix, about: About) -> None:
    """Writes both files beside what else is there; a reader sees the old ones or the new.

    Raises:
        HostProblem: the file system says no.
    """
    texts = {
        JSON: document(matrix, about),
        PAGE: page(matrix, summary(matrix, about.seconds), about.started),
    }
    with _told(results):
        results.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            fresh = results / f".{name}.new"
            fresh.write_bytes(to_bytes(text))
            fresh.replace(results / name)


@contextlib.contextmanager
def _told(results: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"the results cannot be written: {error.strerror}"
        hint = "name another folder with --results"
        raise HostProblem(what, where=str(error.filename or results), hint=hint) from None
