# SPDX-License-Identifier: Apache-2.0
"""`hookproof bench`: a table, ratios first, and results/bench.json."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hookproof.progress import say
from vm import catalog, choice
from vm.default import default_catalog, default_lock
from vm.errors import Problem, UsageProblem

if TYPE_CHECKING:
    from hookproof.bench.record import Record
    from hookproof.bench.setup import Setup

#: Part → what it measures. Each is a module of `hookproof.bench`.
PARTS: Final = {
    "boots": "every kernel's boots, ours beside virtme-run and vng",
    "scenarios": "50 scenarios on one kernel, ours beside vng",
    "matrix": "the whole matrix, and its growth with scenarios and kernels",
    "restores": "a thousand restores of one kernel, two at a time, and what grows",
    "memory": "memory of machines and harness, and the caches on the disk",
    "agent": "the reference agent's calls, loads and memory, with 1 to 1000 policies",
    "chain": "what an LSM hook's chain costs an execution, and a digest per MiB",
}
_SCENARIO: Final = Path("scenarios/override/denial.yaml")
#: The kernel of the parts that need a single one.
_ONE: Final = "6.12"


def add_parser(commands: Any) -> None:
    """Adds the sub-command to argparse's sub-parsers."""
    parser = commands.add_parser(
        "bench",
        help="measure ours beside virtme-ng",
        description="Measures ours and virtme-ng in turns, prints a table, and writes "
        "bench.json after each part. All of it takes about three hours under software emulation.",
        epilog="parts: " + "; ".join(f"{name}: {about}" for name, about in PARTS.items()),
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="default: all of them")
    parser.add_argument(
        "--kernel",
        action="append",
        default=[],
        metavar="PATTERN",
        help=f"default: all, and {_ONE} where a single one is needed (else the first)",
    )
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--scenario", type=Path, default=_SCENARIO, help="default: %(default)s")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measures, prints, writes bench.json; 0 if all of it could be measured."""
    from hookproof.bench.peers import Peers
    from hookproof.bench.record import Record
    from hookproof.bench.setup import Setup
    from vm import accel, rundir

    parts = _parts(args.parts)
    if args.rounds < 1:
        raise UsageProblem(f"{args.rounds} rounds measure nothing", where="--rounds")
    if not args.scenario.is_file():
        raise UsageProblem("there is no such file", where=f"--scenario {args.scenario}")
    known = catalog.read(default_catalog())
    kernels = choice.choose(known, args.kernel or ["all"], default_lock(), say)
    one = next((each for each in kernels if each.name == _ONE), kernels[0])
    calibration = accel.choose("auto")
    with rundir.create() as folder:
        peers = Peers(calibration.accel, folder, say)
        setup = Setup(kernels, one, args.scenario, args.rounds, folder, calibration, peers, say)
        record = Record(args.results, args.rounds, calibration.accel.value, peers.lost)
        try:
            for part in parts:
                say(f"{part}: {PARTS[part]}")
                _measure(part, setup, record)
        finally:
            print(record.table())
    return 0 if record.whole else 1


def _measure(part: str, setup: Setup, record: Record) -> None:
    """Measures a part; what goes wrong leaves the others alone."""
    module = importlib.import_module(f"hookproof.bench.{part}")
    try:
        for so_far in module.measure(setup):
            record.keep(part, so_far)
    except Problem as problem:
        say(f"error: {part}: {problem}")
        record.fail(part, problem)


def _parts(names: Sequence[str]) -> list[str]:
    from vm.suggest import closest

    for name in names:
        if name not in PARTS:
            raise UsageProblem(
                f"there is no part '{name}'", where="bench", hint=closest(name, PARTS)
            )
    return [name for name in PARTS if name in names or not names]
