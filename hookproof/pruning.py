# SPDX-License-Identifier: Apache-2.0
"""`hookproof kernels prune`: removes kernels from the cache that nobody uses any more."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vm import catalog, images, leftover, store
from vm.default import nearest_catalog
from vm.errors import UsageProblem


def add_parser(inner: Any) -> None:
    """Adds `prune` to the sub-commands of `kernels`."""
    about = "remove kernels from the cache that nobody uses any more"
    parser = inner.add_parser(
        "prune",
        help=about,
        description="Removes kernels from the cache that this project's kernels.lock does not "
        "name and that no project has used for some days. A version that has left the archive "
        "cannot be had again.",
    )
    parser.add_argument(
        "--catalog", type=Path, metavar="FILE", help="another list than kernels.txt"
    )
    parser.add_argument(
        "--days",
        type=int,
        default=leftover.DAYS,
        metavar="N",
        help=f"what was not used for so many days (default: {leftover.DAYS})",
    )
    parser.add_argument(
        "--all",
        action="store_const",
        dest="days",
        const=0,
        help="whenever it was used, and though it may be another project's",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prunes, and says what went and what could go.

    Raises:
        UsageProblem: the list or the number of days is wrong.
        HostProblem: an entry cannot be removed.
    """
    if args.days < 0:
        raise UsageProblem(f"{args.days} days are yet to come", where="--days")
    path = args.catalog or nearest_catalog()
    named = images.named(catalog.read(path), path.with_suffix(".lock"))
    removed = "would remove" if args.dry_run else "removed"
    freed = kept = 0
    for entry in leftover.unnamed(named):
        done = removed
        if entry.idle < args.days:
            done = "kept"
            kept += 1
        elif not args.dry_run and not store.remove(entry.place):
            done = "kept, as another process is at it"
        else:
            freed += entry.size
        print(
            f"{entry.place.name}: {_megabytes(entry.size)}, unused for {_days(entry.idle)}: {done}"
        )
    print(f"{removed} {_megabytes(freed)}")
    if kept:
        print(f"{kept} of them may be another project's; to remove these too: --all")
    return 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


def _days(number: float) -> str:
    return "1 day" if int(number) == 1 else f"{int(number)} days"
