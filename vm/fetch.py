# SPDX-License-Identifier: Apache-2.0
"""Packages that kernels.lock names, downloaded for a kernel, and resolved anew."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from vm import archive, sourcetree, store
from vm.archive import Suite
from vm.errors import FetchProblem
from vm.kernel import BuildSource, DebianSource, Kernel
from vm.lockfile import Locked

Say = Callable[[str], None]


def download(kernel: Kernel, entry: Locked, into: Path, say: Say) -> list[Path]:
    """The files of a kernel's packages, verified.

    Raises:
        FetchProblem: network, archive, signature, disk; or the version has left the archive.
        HostProblem: a program is missing.
    """
    with _suite(_archived(kernel).suite, say) as suite:
        # Lists may be a day old; before a version is called gone they are renewed.
        for age in (archive.FRESH, 0.0):
            suite.refresh(age)
            there = suite.packages(package.name for package in entry.packages)
            here = {(package.name, package.version) for package in there}
            gone = [one for one in entry.packages if (one.name, one.version) not in here]
            if gone:
                continue
            say(f"{kernel.name}: fetching {entry.version} ({entry.size / 1e6:.0f} MB)")
            try:
                return suite.download(entry.packages, into)
            except archive.Gone:
                if not age:
                    raise
        left = f"{gone[0].name} {gone[0].version} has left {suite.name}"
        try:
            newest = _newest(kernel, suite).version
        except FetchProblem as none:
            raise FetchProblem(f"{left}; {none.what}", hint=none.hint) from None
        raise FetchProblem(f"{left}; the newest that matches is {newest}", hint=renew(kernel))


def newest(kernel: Kernel, say: Say, fresh: set[str]) -> Locked:
    """What the newest packages in the archive are that a kernel can be had from.

    Args:
        kernel: one of the archive.
        say: is told each line of progress.
        fresh: suites whose lists were renewed already; this one's is added.

    Raises:
        FetchProblem: nothing matches, or the archive cannot be had.
    """
    with about(kernel), _suite(_archived(kernel).suite, say) as suite:
        if suite.name not in fresh:
            suite.refresh()
            fresh.add(suite.name)
        return _newest(kernel, suite)


@contextlib.contextmanager
def about(kernel: Kernel) -> Iterator[None]:
    """Says of which kernel a problem is."""
    try:
        yield
    except FetchProblem as problem:
        what = f"kernel '{kernel.name}': {problem.what}"
        raise FetchProblem(what, where=problem.where or kernel.where, hint=problem.hint) from None


def renew(kernel: Kernel) -> str:
    """The next step for a kernel whose lock is old or missing."""
    return f"run: hookproof kernels fetch --update {kernel.name}"


def _newest(kernel: Kernel, suite: Suite) -> Locked:
    if isinstance(kernel.source, BuildSource):
        return sourcetree.newest(suite, _archived(kernel), kernel.archived)
    return suite.newest(_archived(kernel))


def _archived(kernel: Kernel) -> DebianSource:
    source = kernel.source.tree if isinstance(kernel.source, BuildSource) else kernel.source
    assert isinstance(source, DebianSource)  # noqa: S101  for the type checker
    return source


@contextlib.contextmanager
def _suite(name: str, say: Say) -> Iterator[Suite]:
    suite = Suite.of(name, say)
    with store.locked(suite.lock, f"package lists of {name}", say):
        yield suite
