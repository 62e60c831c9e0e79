# SPDX-License-Identifier: Apache-2.0
"""What came of cases that ran several times: how often each passed, and how to see it fail."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from hookproof.case import Case
from hookproof.settings import Settings
from hookproof.verdict import Outcome, Verdict
from vm.default import default_catalog

#: What pytest's -k takes for a single word.
_WORD: Final = re.compile(r"[\w:+\-.\[\]\\/]+")


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
        cases = [case for case, _ in several]
        out.append(f"{path}::{cases[0].scenario.name}[{choice}]: {len(several)} times: {words}")
        if counted.keys() - {Outcome.PASS, Outcome.UNSUPPORTED}:
            out.append(f"  again: {_again(cases, settings)}")
    return out


def _again(cases: Sequence[Case], settings: Settings) -> str:
    """The command; a comment has what the kernel's command line gets from the scenario."""
    case = cases[0]
    words = ["hookproof", "run", *_these(cases), "--kernel", case.kernel.name]
    words += ["--repeat", str(len(cases)), "--machine", settings.machine, "--accel", settings.accel]
    words += ["--isolate", settings.isolate] if settings.isolate else []
    listed = case.kernel.where.rpartition(":")[0]
    if listed and Path(listed).resolve() != default_catalog().resolve():
        words += ["--kernels", listed]
    boot = f"  # boots with: {' '.join(case.scenario.boot)}" if case.scenario.boot else ""
    return shlex.join(words) + boot


def _these(cases: Sequence[Case]) -> list[str]:
    """All turns of one choice and no others, as pytest takes them: by a word, or one by one."""
    path, name = cases[0].scenario.where.path, cases[0].scenario.name
    word = f"{name}[{cases[0].choice}-turn"
    if all(case.turn for case in cases) and _WORD.fullmatch(word):
        return [path, "-k", word]
    return [f"{path}::{case.name}" for case in cases]
