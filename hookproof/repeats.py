# SPDX-License-Identifier: Apache-2.0
"""What came of cases that ran several times: how often each passed, and how to see it fail."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from hookproof.case import Case
from hookproof.settings import Settings
from hookproof.verdict import Outcome, Verdict
from vm.default import default_catalog


def lines(done: Iterable[tuple[Case, Verdict]], settings: Settings) -> list[str]:
    """A line for each case, and one more with the command that runs it again, if it failed.

    What a scenario draws comes from the seed that stands in it, so the command has no seed.

    Args:
        done: every turn of every case.
        settings: of the session.
    """
    turns: dict[tuple[str, str], list[tuple[Case, Verdict]]] = {}
    for case, verdict in done:
        turns.setdefault((case.scenario.where.path, case.choice), []).append((case, verdict))
    out = []
    for (path, choice), several in turns.items():
        counted = Counter(verdict.outcome for _, verdict in several)
        words = ", ".join(f"{count} {outcome.value}" for outcome, count in counted.most_common())
        case = several[0][0]
        out.append(f"{path}::{case.scenario.name}[{choice}]: {len(several)} times: {words}")
        if counted.keys() - {Outcome.PASS, Outcome.UNSUPPORTED}:
            out.append(f"  again: {_again(case, len(several), settings)}")
    return out


def _again(case: Case, times: int, settings: Settings) -> str:
    """The command; a comment has what the kernel's command line gets from the scenario."""
    words = ["hookproof", "run", case.scenario.where.path, "--kernel", case.kernel.name]
    words += ["-k", f"{case.scenario.name}[{case.choice}", "--repeat", str(times)]
    words += ["--machine", settings.machine, "--accel", settings.accel]
    words += ["--isolate", settings.isolate] if settings.isolate else []
    listed = case.kernel.where.rpartition(":")[0]
    if listed and Path(listed).resolve() != default_catalog().resolve():
        words += ["--kernels", listed]
    boot = f"  # boots with: {' '.join(case.scenario.boot)}" if case.scenario.boot else ""
    return shlex.join(words) + boot
