# SPDX-License-Identifier: Apache-2.0
"""A verdict that is not a pass, as pytest shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from hookproof.case import Case
from hookproof.verdict import Outcome, Verdict

#: So much of a log is shown; all of it is in the evidence.
TAIL = 40

_RIGHT, _WRONG = "  ok   ", "  WRONG"


class Terminal(Protocol):
    """The part of pytest's terminal writer that is used here."""

    def line(self, s: str = "", **markup: bool) -> None:
        """Writes a line."""


@dataclass(frozen=True)
class Crash:
    """What pytest's short summary and its JUnit report read."""

    path: str
    lineno: int
    message: str

    def __str__(self) -> str:
        return self.message


class Failure:
    """The scenario's purpose, the step that went wrong, the steps so far, the logs.

    Args:
        case: what ran.
        verdict: what came of it.
        evidence: gives the folder of its evidence; called when the failure is shown, which
            is when all folders have their names.
    """

    def __init__(self, case: Case, verdict: Verdict, evidence: Callable[[], str]) -> None:
        self._case, self._verdict, self._evidence = case, verdict, evidence
        where = case.scenario.where
        self.reprcrash = Crash(where.path, where.line, self.headline)

    @property
    def headline(self) -> str:
        """One line: where, the outcome unless it is a plain failure, the reason."""
        verdict = self._verdict
        kind = "" if verdict.outcome is Outcome.FAIL else f"{verdict.outcome.value}: "
        where = f"{verdict.where}: " if verdict.where else ""
        return f"{where}{kind}{verdict.reason}"

    def toterminal(self, tw: Terminal) -> None:
        """Writes it."""
        for line in self._lines():
            wrong = line == self.headline or line.startswith(_WRONG)
            tw.line(line, red=wrong, bold=line == self.headline)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        scenario = self._case.scenario
        yield f"about:    {scenario.about}"
        if scenario.origin:
            yield f"origin:   {scenario.origin}"
        yield f"evidence: {self._evidence()}"
        yield ""
        yield self.headline
        for step in self._verdict.steps:
            yield f"{_WRONG if step.wrong else _RIGHT} {step.text}  ({step.seconds:.3f} s)"
        for title, text in self._logs():
            lines = text.rstrip().splitlines()
            shown = f", last {TAIL} of {len(lines)} lines" if len(lines) > TAIL else ""
            yield from ["", f"{title}{shown}:", *(f"  {line}" for line in lines[-TAIL:])]

    def _logs(self) -> list[tuple[str, str]]:
        logs = []
        if self._verdict.outcome in {Outcome.SPLAT, Outcome.PANIC} and self._verdict.kernel_log:
            logs.append(("kernel log", self._verdict.kernel_log))
        if self._verdict.console:
            logs.append(("console", self._verdict.console))
        return logs
