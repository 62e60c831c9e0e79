# SPDX-License-Identifier: Apache-2.0
"""An entry of the cache: how a kernel's files get there, out of packages or by a build."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from vm import fetch, manifest, mirror, recipe, sourcetree, store, vmlinuz
from vm.errors import FetchProblem
from vm.kbuild import Build
from vm.kernel import BuildSource, Image, Kernel
from vm.lockfile import Locked
from vm.parts import Part, brought
from vm.unpack import unpack

Say = Callable[[str], None]
_LETTERS: Final = 16
#: What a build brings; modules it makes none.
_BUILT: Final[frozenset[Part]] = frozenset({"vmlinuz", "config"})


def image(kernel: Kernel, locked: Locked | None) -> Image:
    """A kernel's image as it is or will be in the cache.

    Args:
        kernel: one that is fetched or built.
        locked: what kernels.lock says of it; None if it is built from a tree of this host.

    Raises:
        UsageProblem: what it is to be built from cannot be used.
    """
    if isinstance(kernel.source, BuildSource):
        made_of = recipe.of(kernel, kernel.source, locked)
        parts: Collection[Part] = _BUILT
        release, version, digest = made_of.release, made_of.version, made_of.digest
    else:
        assert locked is not None  # noqa: S101  for the type checker
        parts = brought(locked.packages, locked.release)
        release, version, digest = locked.release, locked.version, locked.digest
    where = place(release, digest)
    return Image(
        kernel,
        release,
        version,
        vmlinuz=where / "boot" / f"vmlinuz-{release}",
        modules=where / "lib" / "modules" / release if "modules" in parts else None,
        config=where / "boot" / f"config-{release}" if "config" in parts else None,
        digest=digest,
    )


def place(release: str, digest: str) -> Path:
    """The folder for what has this release and was made from what has this digest."""
    return store.folder("images") / f"{release}-{digest[:_LETTERS]}"


def folder(image: Image) -> Path:
    """The folder of an image's entry."""
    return image.vmlinuz.parent.parent


def needed(image: Image) -> list[str]:
    """The files a boot stands on, as the entry's manifest calls them."""
    index = image.modules / "modules.dep" if image.modules else None
    paths = (image.vmlinuz, image.config, index)
    return [str(path.relative_to(folder(image))) for path in paths if path]


def make(image: Image, locked: Locked | None, say: Say) -> None:
    """Brings an entry into the cache, whole or not at all. Its lock is held by the caller.

    Args:
        image: as `image` gives it.
        locked: what that was made from.
        say: is told each line of progress.

    Raises:
        FetchProblem: it cannot be had: network, archive, signature, disk, compiler.
        HostProblem: a program is missing, or room.
    """
    kernel, start, where = image.kernel, time.monotonic(), folder(image)
    try:
        with store.replacing(where) as new:
            if isinstance(kernel.source, BuildSource):
                _build(image, kernel.source, locked, new, say)
            else:
                assert locked is not None  # noqa: S101  for the type checker
                _unpack(kernel, locked, new, say)
            made = new / image.vmlinuz.relative_to(where)
            release = vmlinuz.release(made)
            problems = manifest.full(new, needed(image))
            if release != image.release:
                problems.append(f"{made.name}: calls itself {release}")
            if problems:
                raise FetchProblem(f"unpacked wrongly: {problems[0]}", hint="is the disk sound?")
    except OSError as error:
        raise mirror.disk_problem(error, where.parent) from None
    say(f"{kernel.name}: ready after {time.monotonic() - start:.0f} s")


def _unpack(kernel: Kernel, locked: Locked, new: Path, say: Say) -> None:
    start = time.monotonic()
    debs = new / "debs"
    debs.mkdir()
    files = fetch.download(kernel, locked, debs, say)
    say(f"{kernel.name}: fetched in {time.monotonic() - start:.0f} s, unpacking")
    unpack(files, locked.release, brought(locked.packages, locked.release), new)
    debs.rmdir()


def _build(image: Image, source: BuildSource, locked: Locked | None, new: Path, say: Say) -> None:
    kernel = image.kernel
    made_of = recipe.of(kernel, source, locked)
    build = Build(kernel.name, made_of, store.folder("logs") / f"{folder(image).name}.log", say)
    build.require(new)
    tree, work = new / "tree", new / "work"
    work.mkdir()
    if locked is None:
        assert isinstance(source.tree, Path)  # noqa: S101  for the type checker
        build.run(source.tree.resolve(), work, new)
        if recipe.of(kernel, source, None).digest != image.digest:
            hint = "leave it alone while it is built, and try again"
            raise FetchProblem(f"{source.tree} changed meanwhile", hint=hint)
    else:
        tree.mkdir()
        (deb,) = fetch.download(kernel, locked, work, say)
        say(f"{kernel.name}: unpacking the source")
        sourcetree.unpack(deb, tree)
        build.run(tree, work, new)
        shutil.rmtree(tree)
    shutil.rmtree(work)
