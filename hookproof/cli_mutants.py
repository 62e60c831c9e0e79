# SPDX-License-Identifier: Apache-2.0
"""`hookproof mutants`: agents with a known bug, and which scenarios notice it."""

from __future__ import annotations

import argparse
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hookproof.cli import INTERRUPTED
from hookproof.progress import say
from hookproof.settings import ACCELS, Settings

FOLDER = "mutants"


def add_parser(commands: Any) -> None:
    """Adds the sub-command to argparse's sub-parsers."""
    parser = commands.add_parser(
        "mutants",
        help="put known bugs into the agent, and see the scenarios fail",
        description="Puts each bug of mutants/*.patch into a copy of the agent and runs the "
        "scenarios against it that its header names. Fails if one of them passes, if the agent "
        "without a bug fails one, or, when all mutants run, if no mutant fails a scenario.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutants (default: all)")
    parser.add_argument(
        "--kernel",
        action="append",
        default=[],
        metavar="PATTERN",
        help="names, patterns or 'all'; may be repeated (default: the default kernels)",
    )
    parser.add_argument("--all", action="store_true", help="every scenario against each mutant")
    parser.add_argument("--accel", choices=ACCELS, default=ACCELS[0], help="how machines run")
    parser.add_argument(
        "--parallel", type=int, default=0, metavar="N", help="machines at a time (default: fits)"
    )
    parser.add_argument(
        "--repeat",
        type=int,
        default=1,
        metavar="N",
        help="run each scenario so often; all must fail",
    )
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    parser.add_argument("--list", action="store_true", help="list them; boots nothing")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs them, prints the matrix and what is amiss; 0 if nothing is.

    Raises:
        UsageProblem: an unknown name, or a wrong file.
    """
    from hookproof.mutants import build, patch, report
    from hookproof.mutants.session import MutantSession, read_scenarios
    from refagent import objects
    from vm import catalog, choice
    from vm.default import default_catalog, default_lock
    from vm.errors import UsageProblem

    root = build.checkout()
    mutants = patch.read_all(_shown(root / FOLDER), args.names)
    if args.list:
        print(report.listing(mutants))
        return 0
    if args.repeat < 1:
        raise UsageProblem(f"{args.repeat} times show nothing", where="--repeat")
    if args.parallel < 0:
        raise UsageProblem(f"'{args.parallel}' is no number of machines", where="--parallel")
    report.ready(args.results)
    objects.refresh()
    known, lock = catalog.read(default_catalog()), default_lock()
    kernels = choice.choose(known, args.kernel, lock, say)
    settings = Settings(args.accel, args.results, known, kernels, lock, parallel=args.parallel)
    scenarios = read_scenarios(root / "scenarios")
    started, begun = datetime.now(UTC), time.monotonic()
    with MutantSession(settings, say, args.repeat) as session:
        matrix = session.run(mutants, scenarios, everything=args.all, whole=not args.names)
    seconds = time.monotonic() - begun
    print(report.table(matrix))
    about = report.About(started, seconds, os.cpu_count() or 1)
    report.write(args.results, matrix, about)
    findings = matrix.findings()
    for line in findings:
        print(f"hookproof: {line}")
    print(report.summary(matrix, seconds))
    if matrix.cut:
        return INTERRUPTED
    return 1 if findings else 0


def _shown(path: Path) -> Path:
    """A path as messages show it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
