# SPDX-License-Identifier: Apache-2.0
"""A kernel's files, from the cache or fetched into it, verified before each use."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from vm import archive, leftover, local, lockfile, manifest, mirror, store, vmlinuz
from vm.archive import Suite
from vm.errors import FetchProblem, UsageProblem
from vm.kernel import DebianSource, Image, Kernel, LocalSource
from vm.lockfile import Locked
from vm.parts import brought
from vm.unpack import unpack

Say = Callable[[str], None]
_DIGEST_LETTERS = 16


def ensure(kernel: Kernel, lock: Path, say: Say) -> Image:
    """A kernel's verified files; fetches them if they are not there or damaged.

    A kernel that is there and good costs no network and no lock.

    Args:
        kernel: a line of kernels.txt.
        lock: kernels.lock.
        say: is told each line of progress.

    Raises:
        UsageProblem: kernels.lock does not fit kernels.txt, or a local kernel is none.
        FetchProblem: network, archive, signature, disk; or the version has left the archive.
        HostProblem: a program is missing, or the cache cannot be used.
    """
    if isinstance(kernel.source, LocalSource):
        return local.image(kernel, kernel.source)
    entry = locked(kernel, lock)
    place = _place(entry)
    image = _image(kernel, entry, place)
    needed = _needed(image)
    store.sweep()
    leftover.mark(place)
    problems = manifest.quick(place, needed)
    if problems:
        with store.locked(store.lock_of(place), kernel.name, say):
            # Another process may have brought it while we waited.
            problems = manifest.quick(place, needed)
            if problems and place.exists():
                say(f"{kernel.name}: damaged in the cache ({problems[0]}), fetching it again")
            if problems:
                with _about(kernel):
                    _fetch(kernel, entry, place, say)
    return image


def find(kernel: Kernel, lock: Path) -> tuple[Image | None, list[str]]:
    """A kernel's files if they are in the cache, and what the quick check says of them.

    Raises:
        UsageProblem: as `ensure`.
    """
    if isinstance(kernel.source, LocalSource):
        return local.image(kernel, kernel.source), []
    entry = locked(kernel, lock)
    place = _place(entry)
    if not place.exists():
        return None, []
    image = _image(kernel, entry, place)
    return image, manifest.quick(place, _needed(image))


def check(image: Image) -> list[str]:
    """Reads every file of an image; what is wrong with it, one line each; none is `[]`.

    A damaged kernel of the archive is fetched again by the next `ensure`. The files of
    a local kernel are the user's own, and only looked at as a boot would.
    """
    if isinstance(image.kernel.source, LocalSource):
        try:
            local.image(image.kernel, image.kernel.source)
        except UsageProblem as problem:
            return [str(problem)]
        return []
    return manifest.full(_folder(image), _needed(image))


def named(kernels: Iterable[Kernel], lock: Path) -> set[Path]:
    """The folders of the cache that hold what kernels.lock and the local kernels are."""
    places = {_place(entry) for entry in lockfile.read(lock).values()}
    for kernel in kernels:
        if isinstance(kernel.source, LocalSource):
            # One that is gone or damaged has no place.
            with contextlib.suppress(UsageProblem):
                places.add(_folder(local.image(kernel, kernel.source)))
    return places


def update(kernels: Iterable[Kernel], lock: Path, say: Say, keep: Collection[str] = ()) -> None:
    """Resolves kernels anew to the archive's newest and writes kernels.lock.

    Args:
        kernels: those to resolve; local ones need no lock.
        lock: kernels.lock; written once, after all of them were found.
        say: is told each line of progress.
        keep: names whose present entries stay; others that are not resolved are dropped.

    Raises:
        FetchProblem: nothing matches, or the archive cannot be had.
    """
    found: dict[str, Locked] = {}
    fresh: set[str] = set()
    for kernel in kernels:
        if isinstance(kernel.source, DebianSource):
            with _about(kernel), _suite(kernel.source.suite, say) as suite:
                if suite.name not in fresh:
                    suite.refresh()
                    fresh.add(suite.name)
                found[kernel.name] = suite.newest(kernel.source)
    with store.locked(store.folder("images") / ".lock-update", "kernels.lock", say):
        before = lockfile.read(lock)
        after = {name: entry for name, entry in before.items() if name in keep} | found
        for name, entry in found.items():
            old = before.get(name)
            change = "new" if old is None else "as before" if old == entry else f"was {old.version}"
            say(f"{name}: {entry.version}, {change}")
        if after != before:
            lockfile.write(lock, after)


def locked(kernel: Kernel, lock: Path) -> Locked:
    """What kernels.lock says of a kernel of the archive.

    Raises:
        UsageProblem: nothing, or something about another source.
    """
    entry = lockfile.read(lock).get(kernel.name)
    if entry is None:
        what = f"kernel '{kernel.name}' is not in {lock.name}"
        raise UsageProblem(what, where=kernel.where, hint=_renew(kernel))
    if entry.source != str(kernel.source):
        what = f"kernel '{kernel.name}' is {kernel.source} here and {entry.source} in {lock.name}"
        raise UsageProblem(what, where=kernel.where, hint=_renew(kernel))
    return entry


def _fetch(kernel: Kernel, entry: Locked, place: Path, say: Say) -> None:
    start = time.monotonic()
    try:
        with store.replacing(place) as new:
            debs = new / "debs"
            debs.mkdir()
            files = _download(kernel, entry, debs, say)
            say(f"{kernel.name}: fetched in {time.monotonic() - start:.0f} s, unpacking")
            unpack(files, entry.release, brought(entry.packages, entry.release), new)
            debs.rmdir()
            image = _image(kernel, entry, new)
            release = vmlinuz.release(image.vmlinuz)
            problems = manifest.full(new, _needed(image))
            if release != entry.release:
                problems.append(f"{image.vmlinuz.name}: calls itself {release}")
            if problems:
                raise FetchProblem(f"unpacked wrongly: {problems[0]}", hint="is the disk sound?")
    except OSError as error:
        raise mirror.disk_problem(error, place.parent) from None
    say(f"{kernel.name}: ready after {time.monotonic() - start:.0f} s")


def _download(kernel: Kernel, entry: Locked, into: Path, say: Say) -> list[Path]:
    assert isinstance(kernel.source, DebianSource)  # noqa: S101  for the type checker
    with _suite(kernel.source.suite, say) as suite:
        # Lists may be a day old; before a version is called gone they are renewed.
        for age in (archive.FRESH, 0.0):
            suite.refresh(age)
            there = suite.packages(package.name for package in entry.packages)
            gone = [
                package
                for package in entry.packages
                if package.name not in there or there[package.name].version != package.version
            ]
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
            newest = suite.newest(kernel.source).version
        except FetchProblem as none:
            raise FetchProblem(f"{left}; {none.what}", hint=none.hint) from None
        raise FetchProblem(f"{left}; the newest that matches is {newest}", hint=_renew(kernel))


@contextlib.contextmanager
def _suite(name: str, say: Say) -> Iterator[Suite]:
    suite = Suite.of(name, say)
    with store.locked(suite.lock, f"package lists of {name}", say):
        yield suite


@contextlib.contextmanager
def _about(kernel: Kernel) -> Iterator[None]:
    """Says of which kernel a problem is."""
    try:
        yield
    except FetchProblem as problem:
        what = f"kernel '{kernel.name}': {problem.what}"
        raise FetchProblem(what, where=problem.where or kernel.where, hint=problem.hint) from None


def _renew(kernel: Kernel) -> str:
    return f"run: hookproof kernels fetch --update {kernel.name}"


def _place(entry: Locked) -> Path:
    return store.folder("images") / f"{entry.release}-{entry.digest[:_DIGEST_LETTERS]}"


def _image(kernel: Kernel, entry: Locked, place: Path) -> Image:
    parts = brought(entry.packages, entry.release)
    boot = place / "boot"
    return Image(
        kernel,
        entry.release,
        entry.version,
        vmlinuz=boot / f"vmlinuz-{entry.release}",
        modules=place / "lib" / "modules" / entry.release if "modules" in parts else None,
        config=boot / f"config-{entry.release}" if "config" in parts else None,
        digest=entry.digest,
    )


def _needed(image: Image) -> list[str]:
    """The files a boot stands on, as the entry's manifest calls them."""
    index = image.modules / "modules.dep" if image.modules else None
    paths = (image.vmlinuz, image.config, index)
    return [str(path.relative_to(_folder(image))) for path in paths if path]


def _folder(image: Image) -> Path:
    return image.vmlinuz.parent.parent
