# SPDX-License-Identifier: Apache-2.0
"""`hookproof bench`: a table, ratios first, and results/bench.json."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from hookproof.progress import say
from vm import catalog
from vm.default import default_catalog
from vm.errors import HostProblem, UsageProblem

#: Part → what it measures. Each is a module of `hookproof.bench`.
PARTS: Final = {
    "boots": "every kernel's boots, ours beside virtme-run and vng",
    "scenarios": "50 scenarios on one kernel, ours beside vng",
    "matrix": "the whole matrix, and its growth with scenarios and kernels",
    "memory": "memory of machines and harness, and the caches on the disk",
}
FORMAT: Final = 2
_SCENARIO: Final = Path("scenarios/override/denial.yaml")
#: The kernel of the parts that need a single one.
_ONE: Final = "6.12"


def add_parser(commands: Any) -> None:
    """Adds the sub-command to argparse's sub-parsers."""
    parser = commands.add_parser(
        "bench",
        help="measure ours beside virtme-ng",
        description="Measures ours and virtme-ng in turns, prints a table, and writes "
        "bench.json after each part. All of it takes hours under software emulation.",
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
    from hookproof.bench import table
    from hookproof.bench.peers import Peers
    from hookproof.bench.setup import Setup
    from vm import accel, rundir

    parts = _parts(args.parts)
    if args.rounds < 1:
        raise UsageProblem(f"{args.rounds} rounds measure nothing", where="--rounds")
    if not args.scenario.is_file():
        raise UsageProblem("there is no such file", where=f"--scenario {args.scenario}")
    known = catalog.read(default_catalog())
    kernels = catalog.select(known, args.kernel or ["all"])
    one = next((each for each in kernels if each.name == _ONE), kernels[0])
    calibration = accel.choose("auto")
    with rundir.create() as folder:
        peers = Peers(calibration.accel, folder, say)
        setup = Setup(kernels, one, args.scenario, args.rounds, folder, calibration, peers, say)
        facts = _facts(args.rounds, calibration.accel.value)
        rows: dict[str, list[table.Row]] = {}
        try:
            for part in parts:
                say(f"{part}: {PARTS[part]}")
                for so_far in importlib.import_module(f"hookproof.bench.{part}").measure(setup):
                    facts[part], rows[part] = so_far.to_json(), so_far.rows()
                    facts["lost"] = [vars(each) for each in peers.lost]
                    _write(args.results, facts)
        finally:
            if rows:
                print(table.render([row for each in rows.values() for row in each], peers.lost))
    return 0


def _parts(names: Sequence[str]) -> list[str]:
    from vm.suggest import closest

    for name in names:
        if name not in PARTS:
            raise UsageProblem(
                f"there is no part '{name}'", where="bench", hint=closest(name, PARTS)
            )
    return [name for name in PARTS if name in names or not names]


def _facts(rounds: int, accel: str) -> dict[str, Any]:
    """What holds for all parts."""
    from vm import capacity, run

    qemu = run.run(["qemu-system-x86_64", "--version"], timeout=60).stdout.splitlines()[0]
    return {
        "format": FORMAT,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": {
            "cores": capacity.processors(),
            "memory": capacity.available(),
            "load": os.getloadavg()[0],
            "kernel": platform.release(),
            "accel": accel,
        },
        "versions": {"virtme-ng": metadata.version("virtme-ng"), "qemu": qemu.split()[3]},
        "rounds": rounds,
        "lost": [],
    }


def _write(results: Path, facts: Mapping[str, Any]) -> None:
    """Puts bench.json in the place of the last one.

    Raises:
        HostProblem: the file system says no.
    """
    place = results / "bench.json"
    new = place.with_name(".bench.json.new")
    try:
        results.mkdir(parents=True, exist_ok=True)
        new.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        new.replace(place)
    except OSError as error:
        raise HostProblem(f"cannot be written: {error.strerror}", where=str(place)) from None
