# SPDX-License-Identifier: Apache-2.0
"""Scenarios that show a bug of the kernel's own: on kernels that have it, its report is the pass.

They stand in a folder that no run collects by itself (docs/kernelbugs.md).
"""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Final

from hookproof.case import Case
from hookproof.verdict import Outcome, Verdict

#: The watch has found a report.
_REPORTED: Final = {Outcome.SPLAT, Outcome.PANIC}
#: The scenario came to its end, and the watch has found none.
_SILENT: Final = {Outcome.PASS, Outcome.FAIL, Outcome.LEAK}


def expected(case: Case, verdict: Verdict) -> Verdict:
    """The verdict that counts, which is the same where no report is expected.

    Where one is, a report is a pass, with its head line as evidence, and none is a failure. What
    says nothing about the kernel, such as a machine that was lost, stays what it is.

    Args:
        case: what was run.
        verdict: what it came to by itself.
    """
    if not any(fnmatchcase(case.kernel.name, each) for each in case.scenario.splats):
        return verdict
    if verdict.outcome is Outcome.SPLAT and any(step.wrong for step in verdict.steps):
        # The machine lived on: what went wrong is no consequence, and the report may be any.
        what = f"a step went wrong, so that this report proves nothing: {verdict.reason}"
        return replace(verdict, outcome=Outcome.FAIL, reason=what)
    if verdict.outcome in _REPORTED:
        evidence = {**verdict.evidence, "reported": verdict.reason}
        return replace(verdict, outcome=Outcome.PASS, reason="", where="", evidence=evidence)
    if verdict.outcome in _SILENT:
        also = f" (and: {verdict.reason})" if verdict.reason else ""
        what = f"{case.kernel.name} is said to have this bug, and its log has no report{also}"
        where = verdict.where or str(case.scenario.where)
        return replace(verdict, outcome=Outcome.FAIL, reason=what, where=where)
    return verdict
