# SPDX-License-Identifier: Apache-2.0
"""`hookproof kernels …`: what is tested, what of it is here, and what it can do."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hookproof import probing, pruning
from hookproof.progress import say
from vm import catalog, choice, images, kconfig, lockfile
from vm.default import nearest_catalog
from vm.errors import FetchProblem
from vm.kernel import Image, Kernel, LocalSource

#: Configuration options that decide what an agent can do on a kernel; `info` shows them.
CONFIG = (
    "CONFIG_BPF_SYSCALL",
    "CONFIG_BPF_LSM",
    "CONFIG_LSM",
    "CONFIG_DEBUG_INFO_BTF",
    "CONFIG_FUNCTION_ERROR_INJECTION",
    "CONFIG_BPF_KPROBE_OVERRIDE",
    "CONFIG_SECURITY_PATH",
    "CONFIG_IMA",
    "CONFIG_NET_9P_VIRTIO",
)


def add_parser(subparsers: Any) -> None:
    """Adds `kernels` to a command line.

    Each sub-command sets `run`, a function from the parsed arguments to the exit
    status; problems leave it as `vm.errors.Problem`.

    Args:
        subparsers: what `ArgumentParser.add_subparsers` gave.
    """
    about = "the kernels under test: list, fetch, verify"
    parser = subparsers.add_parser("kernels", help=about, description=about)
    inner = parser.add_subparsers(metavar="COMMAND", required=True)
    for handler, several, about in (
        (show_list, "*", "which kernels there are, and which are in the cache"),
        (fetch, "*", "bring kernels into the cache (if none is named, all that need no build)"),
        (verify, "*", "read every cached file and compare its SHA-256"),
        (info, "+", "everything known about a kernel"),
    ):
        name = handler.__name__.removeprefix("show_")
        one = inner.add_parser(name, help=about, description=about)
        one.set_defaults(run=handler)
        one.add_argument(
            "kernels", nargs=several, metavar="KERNEL", help="a name or a pattern such as '6.*'"
        )
        one.add_argument(
            "--catalog",
            type=Path,
            metavar="FILE",
            help="the list (default: kernels.txt here, or hookproof's own)",
        )
        if name == "fetch":
            one.add_argument(
                "--update", action="store_true", help="renew kernels.lock to the archive's newest"
            )
        if name in {"list", "info"}:
            one.add_argument("--json", action="store_true", help="print JSON")
    pruning.add_parser(inner)
    probing.add_parser(inner)


def show_list(args: argparse.Namespace) -> int:
    """Prints a table of kernels."""
    _, chosen, lock = _choose(args)
    rows = [_summary(kernel, lock) for kernel in chosen]
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    heads = ("name", "source", "version", "release", "cached", "default")
    cells = [[_word(row[head]) for head in heads] for row in rows]
    for line in _columns([[head.upper() for head in heads], *cells]):
        print(line)
    return 0


def fetch(args: argparse.Namespace) -> int:
    """Brings kernels into the cache; one that cannot be had does not stop the others."""
    known, chosen, lock = _choose(args)
    if args.update:
        images.update(chosen, lock, say, keep=[kernel.name for kernel in known])
    chosen = choice.choose(known, args.kernels or ["all"], lock, say)
    failed = 0
    for kernel in chosen:
        try:
            image = images.ensure(kernel, lock, say)
        except FetchProblem as problem:
            failed += 1
            say(f"error: {problem}")
        else:
            print(f"{kernel.name}: {image.version} is ready")
    return 1 if failed else 0


def verify(args: argparse.Namespace) -> int:
    """Reads every file of the cached kernels. A kernel that is named must be there."""
    _, chosen, lock = _choose(args)
    wrong = 0
    for kernel in chosen:
        start = time.monotonic()
        image, _ = images.find(kernel, lock)
        if image is None:
            print(f"{kernel.name}: not in the cache")
            wrong += bool(args.kernels)
            continue
        problems = images.check(image)
        wrong += bool(problems)
        for problem in problems:
            print(f"{kernel.name}: {problem}")
        if problems and not isinstance(kernel.source, LocalSource):
            print(f"{kernel.name}: damaged; run: hookproof kernels fetch {kernel.name}")
        elif not problems:
            print(f"{kernel.name}: good ({time.monotonic() - start:.1f} s)")
    return 1 if wrong else 0


def info(args: argparse.Namespace) -> int:
    """Prints everything known about kernels."""
    _, chosen, lock = _choose(args)
    facts = [_summary(kernel, lock) | _details(kernel, lock) for kernel in chosen]
    if args.json:
        print(json.dumps(facts, indent=2))
        return 0
    for number, one in enumerate(facts):
        if number:
            print()
        for line in _columns([[key, _word(value)] for key, value in _flat(one)]):
            print(line)
    return 0


def _choose(args: argparse.Namespace) -> tuple[Sequence[Kernel], Sequence[Kernel], Path]:
    path = args.catalog or nearest_catalog()
    known = catalog.read(path)
    return known, catalog.select(known, args.kernels or ["all"]), path.with_suffix(".lock")


def _summary(kernel: Kernel, lock: Path) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": kernel.name,
        "source": str(kernel.source),
        "version": None,
        "release": None,
        "cached": "no",
        "default": kernel.default,
    }
    entry = lockfile.read(lock).get(kernel.name)
    if kernel.archived and entry is None:
        return row | {"cached": "not locked"}
    if kernel.archived and entry is not None and entry.source != kernel.archived:
        return row | {"cached": "locked to another source"}
    image, problems = images.find(kernel, lock)
    local = isinstance(kernel.source, LocalSource)
    state = "no" if image is None else "damaged" if problems else "local" if local else "yes"
    known = entry if kernel.archived else image
    if known is not None:
        row |= {"version": known.version, "release": known.release}
    return row | {"cached": state}


def _details(kernel: Kernel, lock: Path) -> dict[str, Any]:
    details: dict[str, Any] = {"where": kernel.where, "append": list(kernel.cmdline)}
    if kernel.archived:
        entry = lockfile.read(lock).get(kernel.name)
        if entry is None or entry.source != kernel.archived:
            return details
        details["packages"] = {p.name: {"size": p.size, "sha256": p.sha256} for p in entry.packages}
    image, problems = images.find(kernel, lock)
    return details | (_files(image, problems) if image is not None else {})


def _files(image: Image, problems: list[str]) -> dict[str, Any]:
    modules = list(image.modules.rglob("*.ko*")) if image.modules else []
    return {
        "digest": image.digest,
        "problems": problems,
        "vmlinuz": {"path": str(image.vmlinuz), "size": _size(image.vmlinuz)},
        "modules": {
            "path": str(image.modules) if image.modules else None,
            "files": len(modules),
            "size": sum(path.stat().st_size for path in modules),
        },
        "config": {"path": str(image.config) if image.config else None} | _config(image.config),
    }


def _size(path: Path) -> int | None:
    """Bytes, or None for a file that is missing from a damaged entry."""
    return path.stat().st_size if path.is_file() else None


def _config(path: Path | None) -> dict[str, str | None]:
    """The options of `CONFIG` as a kernel's configuration file says; None is "not set"."""
    values = kconfig.read(path)
    return {} if values is None else {name: values.get(name) for name in CONFIG}


def _flat(facts: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in facts.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", value


def _word(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def _columns(rows: list[list[str]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(padded).rstrip()
