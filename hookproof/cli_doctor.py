# SPDX-License-Identifier: Apache-2.0
"""`hookproof doctor`: what this host has and lacks, and how to mend it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence

from hookproof import distribution
from hookproof.doctor import CHECKS, Finding, State, examine


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `doctor`."""
    parser = commands.add_parser(
        "doctor",
        help="say what this host has and lacks, and how to mend it",
        description="Says what this host has and lacks for running scenarios, and how to mend"
        " it. Exit status 0: a run would work; 1: something that is needed is missing.",
    )
    parser.add_argument("--json", action="store_true", help="the same for programs")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Looks at everything and prints it."""
    found = {title: list(examine(checks)) for title, checks in CHECKS.items()}
    everything = [finding for findings in found.values() for finding in findings]
    works = all(finding.state is not State.MISSING for finding in everything)
    print(as_json(everything, works=works) if arguments.json else as_text(found, works=works))
    return 0 if works else 1


def fix(finding: Finding) -> str:
    """The next step for one finding, or an empty string."""
    if finding.state is not State.OK and finding.need:
        return "; ".join(distribution.advice([finding.need], distribution.family()))
    return finding.fix


def as_json(findings: Sequence[Finding], *, works: bool) -> str:
    """`{"works": bool, "findings": [{"name", "state", "found", "path", "why", "fix"}, …]}`."""
    rows = [
        {
            "name": finding.name,
            "state": finding.state.name.lower(),
            "found": finding.found,
            "path": finding.path,
            "why": finding.why,
            "fix": fix(finding),
        }
        for finding in findings
    ]
    return json.dumps({"works": works, "findings": rows}, indent=2)


def as_text(found: Mapping[str, Sequence[Finding]], *, works: bool) -> str:
    """A table for each title, and below it what to do."""
    lines: list[str] = []
    for title, findings in found.items():
        lines += ["", title]
        for finding in findings:
            state, words = finding.state.value, finding.found or "-"
            lines.append(f"  {state:9}{finding.name:23}{words:11}{finding.why}")
            if finding.fix:
                lines.append(f"{'':11}{finding.fix}")
    everything = [finding for findings in found.values() for finding in findings]
    packages = [one.need for one in everything if one.state is not State.OK and one.need]
    if packages:
        lines += ["", "To install what is missing:"]
        lines += [f"  {line}" for line in distribution.advice(packages, distribution.family())]
    lines += ["", "A run would work." if works else "A run would not work yet."]
    return "\n".join(lines[1:])
