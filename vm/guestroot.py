# SPDX-License-Identifier: Apache-2.0
"""A root file system for guests, made from this host and holding nothing of its users.

It is an initramfs: this Python with its standard library, some packages and programs, the
libraries they are linked with, busybox for everything else, and an init of our own. It is
made once: a run compares names, sizes and times of all that goes in.

    CACHE/roots/KEY/root.cpio     the archive
    CACHE/roots/KEY/record.json   its digest, and which libraries were found for it

An agent's packages change often and Python seldom, so Python with the programs is an
entry of its own, with which the roots begin.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from vm import manifest, newc, rootfiles, store
from vm.errors import HostProblem
from vm.rootfiles import PYTHON, SITE, Input, Kind

__all__ = ["PYTHON", "SITE", "Contents", "GuestRoot", "ensure"]

Say = Callable[[str], None]

#: A program that a guest has if the host has it → why.
_OPTIONAL: Final = {"bpftool": "shows programs and maps of an agent from outside"}
#: Files of this folder that decide what a root is like.
_RECIPE: Final = (
    "elf.py",
    "guestcode.py",
    "guestconfig.py",
    "guestinit.c",
    "guestroot.py",
    "newc.py",
    "rootbuild.py",
    "rootfiles.py",
)
_ARCHIVE: Final = "root.cpio"
_RECORD: Final = "record.json"
_LETTERS: Final = 16
#: Seconds after which a root that nobody asked for goes when another is made, 28 MB for each
#: edit of an agent. A run asks once and reads it whenever it boots another kernel.
_KEPT: Final = 3600.0


@dataclass(frozen=True)
class Contents:
    """What a guest has to have.

    Attributes:
        packages: packages or modules that this Python can import; one with dots comes
            without what else is in the package above it.
        programs: programs of the host, which take the place of busybox's.
    """

    packages: tuple[str, ...]
    programs: tuple[str, ...] = ()


@dataclass(frozen=True)
class GuestRoot:
    """A root in the cache.

    Attributes:
        path: an uncompressed newc cpio archive.
        digest: the SHA-256 (hex) of its content.
    """

    path: Path
    digest: str


@dataclass(frozen=True)
class _Made:
    """An entry of the cache, and the libraries that were found for it."""

    root: GuestRoot
    libraries: list[Input]


def ensure(contents: Contents, say: Say) -> GuestRoot:
    """The root with these contents, made unless it is in the cache as it would be made now.

    Args:
        contents: what goes in.
        say: is told each line of progress.

    Raises:
        HostProblem: a program, package or library is missing, or the cache cannot be used.
        UsageProblem: a package's source cannot be compiled.
    """
    names = ("busybox", *contents.programs)
    system = [*rootfiles.interpreter(), *rootfiles.programs(names, optional=[*_OPTIONAL])]
    packages = [each for name in contents.packages for each in rootfiles.package(name)]

    # What makes a root is imported when one is made.
    def write_system(out: IO[bytes]) -> list[Input]:
        from vm import rootbuild

        libraries = rootbuild.libraries(system)
        newc.write([*rootbuild.skeleton(), *rootbuild.entries([*system, *libraries])], out)
        return libraries

    def write_root(out: IO[bytes]) -> list[Input]:
        from vm import rootbuild

        below = _cached(system, write_system, "Python for guests", say)
        with below.root.path.open("rb") as archive:
            shutil.copyfileobj(archive, out, 1 << 20)
        taken = {each.place for each in below.libraries}
        libraries = rootbuild.libraries(packages, without=taken)
        newc.write(rootbuild.entries([*packages, *libraries]), out)
        return [*below.libraries, *libraries]

    return _cached([*system, *packages], write_root, "guest root", say).root


def _cached(
    inputs: Sequence[Input], write: Callable[[IO[bytes]], list[Input]], what: str, say: Say
) -> _Made:
    """An entry of the cache; `write` fills its archive and returns the libraries in it."""
    place = store.folder("roots") / _key(what, inputs)
    found = _find(place)
    if found is not None:
        return found
    with store.locked(store.lock_of(place), what, say):
        found = _find(place)  # another process may have made it while we waited
        if found is not None:
            return found
        start = time.monotonic()
        try:
            with store.replacing(place) as new:
                with (new / _ARCHIVE).open("wb") as out:
                    libraries = write(out)
                digest = manifest.digest(new / _ARCHIVE)
                record = {
                    "digest": digest,
                    "archive": _state(new),
                    "libraries": libraries,
                }
                (new / _RECORD).write_text(json.dumps(record), encoding="utf-8")
        except OSError as error:
            reason = f"the {what} cannot be made: {error.strerror}"
            where = str(error.filename or place)
            raise HostProblem(
                reason, where=where, hint="look there, or set HOOKPROOF_CACHE"
            ) from None
        size = (place / _ARCHIVE).stat().st_size / 1e6
        say(f"{what}: made in {time.monotonic() - start:.1f} s, {size:.0f} MB")
    store.expire("roots", _KEPT)
    return _Made(GuestRoot(place / _ARCHIVE, digest), libraries)


def _find(place: Path) -> _Made | None:
    """An entry, if it is whole and the host's libraries are still those in it."""
    try:
        record: dict[str, Any] = json.loads((place / _RECORD).read_text(encoding="utf-8"))
        libraries = [Input(*each) for each in record["libraries"]]
        now = [Input.of(each.place, each.source, each.kind) for each in libraries]
        if record["archive"] != _state(place) or libraries != now:
            return None
        found = _Made(GuestRoot(place / _ARCHIVE, record["digest"]), libraries)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    with contextlib.suppress(OSError):  # a cache that one may only read expires for others
        os.utime(place)
    return found


def _state(place: Path) -> list[int]:
    stat = (place / _ARCHIVE).stat()
    return [stat.st_size, stat.st_mtime_ns]


def _key(name: str, inputs: Iterable[Input]) -> str:
    """Names what a root would be made from: cheap, so that each run can ask."""
    here = Path(__file__).parent
    recipe = [Input.of(name, str(here / name), Kind.DATA) for name in _RECIPE]
    what = [name, sys.version, os.environ.get("LD_LIBRARY_PATH"), *recipe, *sorted(inputs)]
    return hashlib.sha256(repr(what).encode()).hexdigest()[:_LETTERS]
