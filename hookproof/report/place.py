# SPDX-License-Identifier: Apache-2.0
"""Puts a new results folder in the place of the old one, whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hookproof.report.results_json import TOOL
from vm.errors import HostProblem, UsageProblem

OWN = ("evidence", "junit.xml", "results.json")
#: What other commands keep in the folder, which alone makes it no stranger's.
OTHERS = {"bench.json", "mutants.html", "mutants.json"}


@contextmanager
def replacing(results: Path) -> Iterator[Path]:
    """An empty folder to write into; it takes the place of `results` when the block ends well.

    Readers see the old results or the new ones, never a mixture. What others put into the
    old folder (`OTHERS`) moves over. If the block raises, or the process is killed, the
    old results stay as they are; what a killed run left behind goes with the next.

    Raises:
        UsageProblem: `results` is a file, or a folder with other things than results.
        HostProblem: the file system says no.
    """
    target = results.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.parent):
            _check(target)
            _sweep(target)
            fresh = Path(tempfile.mkdtemp(prefix=_prefix(target, "new"), dir=target.parent))
            try:
                fresh.chmod(0o755)  # mkdtemp's 0700 is for secrets
                yield fresh
                _swap(fresh, target)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise HostProblem(
            f"the results cannot be written: {error.strerror or error}",
            where=str(error.filename or target),
            hint="name another folder with --results",
        ) from error


def _check(target: Path) -> None:
    """Lets only what may be replaced pass: nothing, an empty folder, or results."""
    if not target.exists():
        return
    hint = "move it away or name another folder with --results"
    if not target.is_dir():
        raise UsageProblem(
            "is a file where the results folder belongs", where=str(target), hint=hint
        )
    names = {entry.name for entry in target.iterdir()}
    if names <= OTHERS or _is_ours(target / "results.json"):
        return
    raise UsageProblem(
        f"holds {min(names)!r} and no results of {TOOL}, so it is not replaced",
        where=str(target),
        hint=hint,
    )


def _is_ours(file: Path) -> bool:
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
        return False
    return isinstance(raw, dict) and raw.get("tool") == TOOL


def _swap(fresh: Path, target: Path) -> None:
    """Two renames; between them there are no results, and never half of them."""
    if not target.exists():
        fresh.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=_prefix(target, "old"), dir=target.parent))
    target.rename(old)
    try:
        fresh.rename(target)
    except OSError:
        old.rename(target)
        raise
    _clear(old, target)


def _sweep(target: Path) -> None:
    """Removes what killed runs left; we hold the lock, so nobody is at work on it."""
    for left in target.parent.glob(_prefix(target, "new") + "*"):
        shutil.rmtree(left)
    for left in target.parent.glob(_prefix(target, "old") + "*"):
        if target.exists():
            _clear(left, target)
        elif any(left.iterdir()):
            left.rename(target)
        else:
            left.rmdir()


def _clear(old: Path, target: Path) -> None:
    """Deletes the old results; what is not ours moves to `target`, and stays if it cannot."""
    for entry in old.iterdir():
        if entry.name == "evidence":
            shutil.rmtree(entry)
        elif entry.name in OWN:
            entry.unlink()
        elif not (target / entry.name).exists():
            entry.rename(target / entry.name)
    with suppress(OSError):
        old.rmdir()


def _prefix(target: Path, kind: str) -> str:
    return f".{target.name}.{kind}-"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One writer at a time; the lock is the folder's own, so there is no file to leave."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
