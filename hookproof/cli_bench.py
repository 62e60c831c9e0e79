# SPDX-License-Identifier: Apache-2.0
"""`hookproof bench`: a table of ratios, and results/bench.json."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any, Final

from hookproof import bench
from hookproof.progress import say
from vm import accel, catalog
from vm.default import default_catalog, default_lock
from vm.errors import UsageProblem

_SCENARIO: Final = Path("scenarios/override/denial.yaml")


def add_parser(commands: Any) -> None:
    """Adds the sub-command to argparse's sub-parsers."""
    parser = commands.add_parser(
        "bench",
        help="measure boots and scenarios beside plain virtme-run",
        description="Alternates `virtme-run` with a script that does nothing and our boot to "
        "the guest's first answer, and measures one more scenario in a machine that runs.",
    )
    parser.add_argument("--kernel", action="append", default=[], help="default: as for a run")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--scenario", type=Path, default=_SCENARIO, help="default: %(default)s")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measures, prints, writes bench.json; 0 if all of it could be measured."""
    if args.rounds < 1:
        raise UsageProblem(f"{args.rounds} rounds measure nothing", where="--rounds")
    try:
        args.results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageProblem(f"no folder: {error.strerror}", where=str(args.results)) from None
    kernels = catalog.select(catalog.read(default_catalog()), args.kernel)
    rows = [
        bench.measure(kernel, default_lock(), args.scenario, args.rounds, say) for kernel in kernels
    ]
    print(bench.table(rows))
    facts = {
        "format": 1,
        "cores": os.cpu_count(),
        "accel": accel.choose("auto").accel.value,
        "kernels": [row.to_json() for row in rows],
    }
    text = json.dumps(facts, indent=2) + "\n"
    (args.results / "bench.json").write_text(text, encoding="utf-8")
    return 0
