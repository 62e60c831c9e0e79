# SPDX-License-Identifier: Apache-2.0
"""A kernel's files, from the cache or fetched or built into it, verified before each use."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from vm import entry, fetch, kbuild, leftover, local, lockfile, manifest, store
from vm.errors import UsageProblem
from vm.kernel import BuildSource, Image, Kernel, LocalSource
from vm.lockfile import Locked

Say = Callable[[str], None]


def ensure(kernel: Kernel, lock: Path, say: Say) -> Image:
    """A kernel's verified files; fetches or builds them if they are not there or damaged.

    A kernel that is there and good costs no network and no lock.

    Args:
        kernel: a line of kernels.txt.
        lock: kernels.lock.
        say: is told each line of progress.

    Raises:
        UsageProblem: kernels.lock does not fit kernels.txt, or what lies on this host is no
            kernel or no kernel's source.
        FetchProblem: network, archive, signature, disk; the version has left the archive; or
            a build failed.
        HostProblem: a program is missing, or the cache cannot be used.
    """
    if isinstance(kernel.source, LocalSource):
        return local.image(kernel, kernel.source)
    of = _locked(kernel, lock)
    image = entry.image(kernel, of)
    place, needed = entry.folder(image), entry.needed(image)
    store.sweep()
    leftover.mark(place)
    problems = manifest.quick(place, needed)
    if problems:
        patience = kbuild.TIMEOUT if isinstance(kernel.source, BuildSource) else None
        with store.locked(store.lock_of(place), kernel.name, say, patience):
            # Another process may have brought it while we waited.
            problems = manifest.quick(place, needed)
            if problems and place.exists():
                say(f"{kernel.name}: damaged in the cache ({problems[0]}), bringing it again")
            if problems:
                with fetch.about(kernel):
                    entry.make(image, of, say)
    return image


def find(kernel: Kernel, lock: Path) -> tuple[Image | None, list[str]]:
    """A kernel's files if they are in the cache, and what the quick check says of them.

    Raises:
        UsageProblem: as `ensure`.
    """
    if isinstance(kernel.source, LocalSource):
        return local.image(kernel, kernel.source), []
    image = entry.image(kernel, _locked(kernel, lock))
    if not entry.folder(image).exists():
        return None, []
    return image, manifest.quick(entry.folder(image), entry.needed(image))


def check(image: Image) -> list[str]:
    """Reads every file of an image; what is wrong with it, one line each; none is `[]`.

    A damaged one is brought again by the next `ensure`. The files of a local kernel are the
    user's own, and only looked at as a boot would.
    """
    if isinstance(image.kernel.source, LocalSource):
        try:
            local.image(image.kernel, image.kernel.source)
        except UsageProblem as problem:
            return [str(problem)]
        return []
    return manifest.full(entry.folder(image), entry.needed(image))


def named(kernels: Iterable[Kernel], lock: Path) -> set[Path]:
    """The folders of the cache that hold what kernels.lock says, and what was made here."""
    places = {entry.place(one.release, one.digest) for one in lockfile.read(lock).values()}
    for kernel in kernels:
        # What lies on this host and is gone or damaged has no place.
        with contextlib.suppress(UsageProblem):
            if isinstance(kernel.source, LocalSource):
                places.add(entry.folder(local.image(kernel, kernel.source)))
            elif isinstance(kernel.source, BuildSource):
                places.add(entry.folder(entry.image(kernel, _locked(kernel, lock))))
    return places


def update(kernels: Iterable[Kernel], lock: Path, say: Say, keep: Collection[str] = ()) -> None:
    """Resolves kernels anew to the archive's newest and writes kernels.lock.

    Args:
        kernels: those to resolve; those of this host need no lock.
        lock: kernels.lock; written once, after all of them were found.
        say: is told each line of progress.
        keep: names whose present entries stay; others that are not resolved are dropped.

    Raises:
        FetchProblem: nothing matches, or the archive cannot be had.
    """
    found: dict[str, Locked] = {}
    fresh: set[str] = set()
    for kernel in kernels:
        if kernel.archived:
            found[kernel.name] = fetch.newest(kernel, say, fresh)
    with store.locked(store.folder("images") / ".lock-update", "kernels.lock", say):
        before = lockfile.read(lock)
        after = {name: old for name, old in before.items() if name in keep} | found
        for name, new in found.items():
            old = before.get(name)
            change = "new" if old is None else "as before" if old == new else f"was {old.version}"
            say(f"{name}: {new.version}, {change}")
        if after != before:
            lockfile.write(lock, after)


def locked(kernel: Kernel, lock: Path) -> Locked:
    """What kernels.lock says of a kernel of the archive.

    Raises:
        UsageProblem: nothing, or something about another source.
    """
    found = lockfile.read(lock).get(kernel.name)
    if found is None:
        what = f"kernel '{kernel.name}' is not in {lock.name}"
        raise UsageProblem(what, where=kernel.where, hint=fetch.renew(kernel))
    if found.source != kernel.archived:
        here, there = kernel.archived, f"{found.source} in {lock.name}"
        what = f"kernel '{kernel.name}' is {here} here and {there}"
        raise UsageProblem(what, where=kernel.where, hint=fetch.renew(kernel))
    return found


def _locked(kernel: Kernel, lock: Path) -> Locked | None:
    return locked(kernel, lock) if kernel.archived else None
