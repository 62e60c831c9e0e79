# SPDX-License-Identifier: Apache-2.0
"""`hookproof kernels probe`: a table of kernels and features, each cell tried on the kernel."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hookproof.answers import Answer
from hookproof.fleet import Fleet
from hookproof.progress import say
from hookproof.settings import ACCELS, Settings
from refagent import probes
from vm import catalog, choice
from vm.default import default_catalog
from vm.errors import Problem

Answers = Mapping[str, Mapping[str, Answer]]


def add_parser(inner: Any) -> None:
    """Adds `probe` to the sub-commands of `kernels`."""
    about = "boot kernels and try what they can do"
    parser = inner.add_parser("probe", help=about, description=about)
    parser.add_argument(
        "kernels", nargs="*", metavar="KERNEL", help="a name or a pattern; all if left out"
    )
    parser.add_argument("--accel", choices=ACCELS, default="auto")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Probes; 1 if a kernel did not boot or a probe is broken."""
    path = default_catalog()
    known = catalog.read(path)
    lock = path.with_suffix(".lock")
    chosen = choice.choose(known, args.kernels or ["all"], lock, say)
    fleet = Fleet(Settings(args.accel, Path("results"), known, chosen, lock), say)
    found: dict[str, Mapping[str, Answer]] = {}
    failed = False
    for kernel in chosen:
        try:
            with fleet.stage(kernel, ()) as stage:
                found[kernel.name] = stage.probe(probes.NAMES)
        except Problem as problem:
            failed = True
            say(f"error: {kernel.name}: {problem}")
    print(_json(found) if args.json else table(found))
    broken = any(a.answer == "broken" for answers in found.values() for a in answers.values())
    return 1 if failed or broken else 0


def table(found: Answers) -> str:
    """Kernels as columns, probes as rows, and below it why not where the answer is no."""
    kernels = list(found)
    rows: list[Sequence[str]] = [["probe", *kernels]]
    rows += [[name, *(_cell(found[kernel][name]) for kernel in kernels)] for name in probes.NAMES]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    reasons: dict[str, list[str]] = {}
    for kernel in kernels:
        for answer in found[kernel].values():
            if answer.answer != "yes":
                why = f"{answer.name}: {answer.answer}: {answer.words}"
                reasons.setdefault(why, []).append(kernel)
    notes = [f"  {', '.join(where)}: {why}" for why, where in reasons.items()]
    return "\n".join([*lines, "", *notes])


def _cell(answer: Answer) -> str:
    return answer.answer if answer.value is None else f"{answer.answer} ({answer.value})"


def _json(found: Answers) -> str:
    plain = {
        kernel: {name: vars(answer) for name, answer in answers.items()}
        for kernel, answers in found.items()
    }
    return json.dumps(plain, indent=2)
