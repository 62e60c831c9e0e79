# SPDX-License-Identifier: Apache-2.0
"""What a run of mutants comes to: a cell for each scenario, agent and kernel, and what is amiss."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from hookproof.mutants.patch import Mutant
from hookproof.scenario import Scenario
from hookproof.verdict import MARKS, Outcome, Verdict

#: The agent without a mutant, as a name.
CONTROL: Final = ""
#: The outcome of a test that needs a machine of a kind that a kernel can't have.
NO_MACHINE: Final = "no machine"


class Result(Enum):
    """The word of a cell."""

    KILLED = "killed"  # the scenario failed
    PASSED = "passed"
    SKIPPED = "skipped"  # a probe says that this kernel can't
    ERROR = "suite error"  # it says nothing about the scenario


@dataclass(frozen=True)
class Cell:
    """One scenario with one agent on one kernel: all of its cases, up to the first that failed.

    Attributes:
        mutant: its name, or `CONTROL`.
        scenario: folder and name; or a test of tests/inside.
        kernel: its name.
        result: what it comes to.
        case: the case's id that decided, or empty.
        outcome: that case's, or `NO_MACHINE`.
        reason: one line; empty if all passed.
        seconds: of all cases that ran, without the machines' starts.
    """

    mutant: str
    scenario: str
    kernel: str
    result: Result
    case: str = ""
    outcome: str = ""
    reason: str = ""
    seconds: float = 0.0


#: How the agent says that the kernel took no program, or what a step says of an agent that is
#: none: such a patch is a bad one, and shows nothing about a scenario.
_REFUSED: Final = (
    r"cannot be probed: |this kernel does not take the \w+ program: "
    r"|this kernel lets no program override |failed at '\w+': load program "
)
_VERIFIER: Final = re.compile(f"got .*?(?:{_REFUSED})")
_MISTAKE: Final = re.compile(r"failed at '\w+': (not understood: |\S+ is missing or unknown; ops)")
_NO_START: Final = re.compile(r"failed at 'warm'")
#: What Python raises for a mistake in a program, where the agent's own errors have a cause.
_RAISED: Final = (
    r"(?:NameError|UnboundLocalError|AttributeError|ImportError|ModuleNotFoundError|SyntaxError"
    r"|IndentationError|TypeError|KeyError|IndexError|struct\.error)\b"
)
_TRACEBACK: Final = re.compile(rf"^(?:{_RAISED}|AssertionError\b).*", re.MULTILINE)
#: The same of what ended a test. An assertion is the test's own, and so is what it says about.
_TEST_RAISED: Final = re.compile(_RAISED)
_TEST_REFUSED: Final = re.compile(rf"refagent\.errors\.\w+: .*?(?:{_REFUSED})")


def result_of(verdict: Verdict, mutant: Mutant | None) -> tuple[Result, str]:
    """What a case's verdict says about the scenario, and why."""
    mark, breaks = MARKS[verdict.outcome], mutant.breaks if mutant else ()
    if mark == "passed":
        return Result.PASSED, ""
    if mark == "skipped":
        return Result.SKIPPED, verdict.reason
    kind, why = _mistake(verdict)
    if kind and kind not in breaks:
        return Result.ERROR, why
    return Result.KILLED, verdict.reason


def result_of_test(raised: str, file: str, mutant: Mutant | None) -> tuple[Result, str]:
    """What the error that ended a test says about it, and why.

    Args:
        raised: its first line, with the exception's class before it.
        file: where, from the root of the checkout.
        mutant: what it was run against; None: the agent as it is.
    """
    kind, why = "", raised
    if file.startswith("refagent/") and _TEST_RAISED.match(raised):
        kind, why = "agent", f"the agent broke: {raised}"
    elif _TEST_REFUSED.match(raised):
        kind, why = "verifier", f"the kernel takes no such program: {raised}"
    if kind and kind not in (mutant.breaks if mutant else ()):
        return Result.ERROR, why
    return Result.KILLED, raised


def beside_control(cells: Sequence[Cell]) -> list[Cell]:
    """The cells, in which nothing is killed by what the agent without a mutant does not pass."""
    fine = {
        (cell.scenario, cell.kernel)
        for cell in cells
        if cell.mutant == CONTROL and cell.result is Result.PASSED
    }
    why = "it does not pass without the mutant either"
    return [
        replace(cell, result=Result.ERROR, reason=f"{why}: {cell.reason}")
        if _kills(cell) and (cell.scenario, cell.kernel) not in fine
        else cell
        for cell in cells
    ]


def _mistake(verdict: Verdict) -> tuple[str, str]:
    """What about a verdict says that the patch is bad, or the suite: `Breaks`, and a line."""
    if verdict.outcome is Outcome.HANG:
        return "hang", f"hang: {verdict.reason}"
    if MARKS[verdict.outcome] == "error":
        if _NO_START.search(verdict.reason):
            return "agent", f"the agent does not start: {verdict.reason}"
        return verdict.outcome.value, f"{verdict.outcome.value}: {verdict.reason}"
    if _VERIFIER.search(verdict.reason):
        return "verifier", f"the kernel takes no such program: {verdict.reason}"
    raised = _TRACEBACK.search(str(verdict.evidence.get("agent_log", "")))
    if raised or _MISTAKE.search(verdict.reason):
        return "agent", f"the agent broke: {raised[0] if raised else verdict.reason}"
    return "", ""


@dataclass(frozen=True)
class Matrix:
    """All that a run came to.

    Attributes:
        mutants: that were tried.
        scenarios: that ran, by folder and name.
        kernels: names, in order.
        cells: of the control and of the mutants.
        unfit: mutant → why its patch is no good.
        whole: whether all mutants were tried, so that each scenario should have one.
        cut: whether it was interrupted, so that cells are missing.
    """

    mutants: Sequence[Mutant]
    scenarios: Mapping[str, Scenario]
    kernels: Sequence[str]
    cells: Sequence[Cell]
    unfit: Mapping[str, str]
    whole: bool
    cut: bool = False

    def of(self, mutant: str) -> list[Cell]:
        """A mutant's cells, or the control's."""
        return [cell for cell in self.cells if cell.mutant == mutant]

    def verdict(self, mutant: Mutant, kernel: str = "") -> str:
        """A word for people: killed, survived, not shown, or suite error; there, or of all."""
        cells = [cell for cell in self.of(mutant.name) if kernel in {"", cell.kernel}]
        if mutant.name in self.unfit or any(cell.result is Result.ERROR for cell in cells):
            return "suite error"
        if any(cell.result is Result.PASSED and _names(mutant, cell) for cell in cells):
            return "survived"
        return "killed" if any(cell.result is Result.KILLED for cell in cells) else "not shown"

    def findings(self) -> list[str]:
        """A line for each thing that makes the command fail: where, what, and the next step."""
        lines = [
            f"{self._file(cell.scenario)}: {cell.result.value} on {cell.kernel} "
            f"without any mutant: {cell.reason}; mend this first"
            for cell in self.of(CONTROL)
            if cell.result in {Result.KILLED, Result.ERROR}
        ]
        for mutant in self.mutants:
            lines += self._about(mutant)
        if self.cut:
            return [*lines, "interrupted before all was tried; run the rest again"]
        if not any(cell.mutant != CONTROL for cell in self.cells) and not self.unfit:
            names = ", ".join(self.kernels)
            lines.append(f"nothing was tried: no mutant is for {names}; choose others by --kernel")
        return [*lines, *(self._unproved() if self.whole else ())]

    def _file(self, name: str) -> str:
        """Where a scenario or a test stands."""
        found = self.scenarios.get(name)
        return found.where.path if found else name

    def _about(self, mutant: Mutant) -> Iterator[str]:
        if mutant.name in self.unfit:
            why = self.unfit[mutant.name]
            yield f"{mutant.path}: {why}; make the patch anew, or remove it with its bug"
            return
        cells = self.of(mutant.name)
        for kernel in self.kernels if not self.cut else ():
            named = [cell for cell in cells if cell.kernel == kernel and _names(mutant, cell)]
            if mutant.shows_on(kernel) and all(map(_unsupported, named)):
                reasons = [f"{cell.scenario}: {cell.reason}" for cell in named]
                yield (
                    f"{mutant.path}: nothing that Killed-by names runs on {kernel} "
                    f"({'; '.join(reasons) or 'no case there'}); leave the kernel out of Kernels"
                )
        for cell in cells:
            if cell.result is Result.ERROR:
                yield (
                    f"{mutant.path}: no verdict of {cell.scenario} on {cell.kernel}: "
                    f"{cell.reason}; mend the patch, or the suite"
                )
            if cell.result is Result.PASSED and _names(mutant, cell):
                often = f" ({cell.reason})" if cell.reason else ""
                yield (
                    f"{mutant.path}: survives {cell.scenario} on {cell.kernel}{often}; "
                    "mend the scenario, or say in Killed-by and Kernels what catches it where"
                )

    def _unproved(self) -> Iterator[str]:
        killed = {cell.scenario: cell.mutant for cell in self.cells if _kills(cell)}
        ran = {cell.scenario for cell in self.of(CONTROL) if cell.result is Result.PASSED}
        for name, scenario in self.scenarios.items():
            if name in killed and scenario.no_mutant:
                yield (
                    f"{scenario.where.path}: says that no mutant can fail it, and "
                    f"{killed[name]} does; remove no_mutant"
                )
            if name in ran and name not in killed and not scenario.no_mutant:
                yield (
                    f"{scenario.where.path}: no mutant fails it, so it may show nothing; "
                    "write one, or say in no_mutant why there can be none"
                )


def _names(mutant: Mutant, cell: Cell) -> bool:
    """Whether the header says that this fails there."""
    return cell.scenario in mutant.killers and mutant.shows_on(cell.kernel)


def _unsupported(cell: Cell) -> bool:
    """Whether the kernel can't, as opposed to the kind of machine."""
    return cell.result is Result.SKIPPED and cell.outcome != NO_MACHINE


def _kills(cell: Cell) -> bool:
    return cell.mutant != CONTROL and cell.result is Result.KILLED
