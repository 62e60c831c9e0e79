# SPDX-License-Identifier: Apache-2.0
"""`hookproof run`: pytest on scenarios, for people who have not read pytest's manual."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from hookproof.settings import ACCELS, ISOLATES, MACHINES
from vm.errors import UsageProblem

#: Where scenarios are looked for if no path is given.
FOLDER = Path("scenarios")
EXAMPLES = """\
examples:
  hookproof run                              every scenario, on the default kernels
  hookproof run --kernel all                 … on all kernels of kernels.txt
  hookproof run --kernel '6.*' -k denial     those whose name has "denial", on some kernels
  hookproof run my/rule.yaml --list          what one file comes to; boots nothing

It is pytest below: `pytest scenarios --help` shows what else there is.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `run`."""
    parser = commands.add_parser(
        "run",
        help="run scenarios on kernels",
        description="Runs scenarios on kernels, in virtual machines, and shows a table.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help=f"files and folders (default: {FOLDER}/)"
    )
    parser.add_argument(
        "--kernel",
        action="append",
        default=[],
        metavar="PATTERN",
        help="names, patterns or 'all'; may be repeated (default: the default kernels)",
    )
    parser.add_argument("--kernels", metavar="FILE", help="another list than kernels.txt")
    parser.add_argument("--accel", choices=ACCELS, help="how machines run (default: auto)")
    parser.add_argument("--machine", choices=MACHINES, help="default: snapshot")
    parser.add_argument("--isolate", choices=ISOLATES, help="a machine for each scenario, or not")
    parser.add_argument("--parallel", metavar="N", help="machines at a time (default: what fits)")
    parser.add_argument(
        "--repeat", metavar="N", help="run each N times, and count how often it passes"
    )
    parser.add_argument("--results", metavar="DIR", help="where reports go (default: results/)")
    parser.add_argument("-k", metavar="WORDS", help="only scenarios whose name has these words")
    parser.add_argument("-x", action="store_true", help="stop at the first one that fails")
    parser.add_argument("--lf", action="store_true", help="only those that failed last time")
    parser.add_argument("-v", action="store_true", help="show each result on a line of its own")
    parser.add_argument("--list", action="store_true", help="list what would run; boots nothing")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> NoReturn:
    """Becomes pytest.

    Raises:
        UsageProblem: no path was given and there is no folder with scenarios.
    """
    command = pytest_command(arguments)
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606  a list, without a shell


def pytest_command(arguments: argparse.Namespace) -> list[str]:
    """The command line of pytest that does what was asked for.

    Raises:
        UsageProblem: no path was given and there is no folder with scenarios.
    """
    paths = arguments.paths or [str(FOLDER)]
    if not arguments.paths and not FOLDER.is_dir():
        hint = "name a file or a folder: hookproof run PATH"
        raise UsageProblem(f"there is no folder {FOLDER} here", where=str(Path.cwd()), hint=hint)
    options = [f"--kernel={pattern}" for pattern in arguments.kernel]
    options += [
        f"--{name}={value}"
        for name in ("kernels", "accel", "machine", "isolate", "parallel", "repeat", "results")
        if (value := getattr(arguments, name)) is not None
    ]
    options += ["-k", arguments.k] if arguments.k is not None else []
    options += [flag for flag in ("-x", "--lf", "-v") if getattr(arguments, flag.strip("-"))]
    options += ["--collect-only", "-q"] if arguments.list else []
    # -P: a folder called vm or tests where the user is must not hide a package of ours.
    return [sys.executable, "-P", "-m", "pytest", "--no-header", *options, *paths]
