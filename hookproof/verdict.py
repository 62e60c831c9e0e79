# SPDX-License-Identifier: Apache-2.0
"""What a run of one scenario on one kernel comes to."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Outcome(Enum):
    """The word a verdict carries everywhere: terminal, JSON, JUnit."""

    PASS = "pass"
    FAIL = "fail"  # a step gave another result than the scenario says
    LEAK = "leak"  # something is left that was not there before
    SPLAT = "splat"  # the kernel's log has a warning, an oops, a taint
    PANIC = "panic"  # the kernel died during the scenario
    HANG = "hang"  # a step did not answer within its deadline
    BOOT = "boot failure"
    INFRA = "infrastructure"  # the harness's own fault, or a lost machine
    UNSUPPORTED = "unsupported"  # the probe says this kernel can't


#: How each outcome reads in pytest and in JUnit: passed, failure, error or skipped.
MARKS: dict[Outcome, str] = {
    Outcome.PASS: "passed",
    Outcome.FAIL: "failure",
    Outcome.LEAK: "failure",
    Outcome.SPLAT: "failure",
    Outcome.PANIC: "failure",
    Outcome.HANG: "error",
    Outcome.BOOT: "error",
    Outcome.INFRA: "error",
    Outcome.UNSUPPORTED: "skipped",
}


@dataclass(frozen=True)
class StepRecord:
    """One step as it went.

    Attributes:
        where: `file:line:column` of the step.
        text: the step as one would say it, such as `mkdir /run/t/1 (x38)`.
        seconds: wall time on the host.
        wrong: empty if it gave what it should, else one line saying expected and got.
    """

    where: str
    text: str
    seconds: float
    wrong: str = ""


@dataclass(frozen=True)
class Verdict:
    """The outcome of one scenario on one kernel, with its evidence.

    Attributes:
        outcome: one word.
        reason: one line for people; empty for a pass.
        where: `file:line:column` in the scenario that the reason is about, or empty.
        steps: the steps that ran, in order.
        kernel_log: this scenario's slice of the kernel's log.
        console: the console's tail, where the machine was lost.
        evidence: further JSON values by name (census before and after, agent's log …).
        seconds: wall time of the scenario, without the boot.
    """

    outcome: Outcome
    reason: str = ""
    where: str = ""
    steps: tuple[StepRecord, ...] = ()
    kernel_log: str = ""
    console: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
