# SPDX-License-Identifier: Apache-2.0
"""A kernel's source: found in Debian's archive and unpacked, or a folder of this host."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
from pathlib import Path
from typing import Final

from vm import manifest
from vm.archive import Suite, matches, upstream
from vm.errors import FetchProblem, UsageProblem
from vm.kernel import DebianSource
from vm.lockfile import Locked
from vm.run import reading, run

_PACKAGE: Final = re.compile(r"linux-source-\d+\.\d+")
_TARBALL: Final = re.compile(r"(?:\./)?usr/src/linux-source-[\d.]+\.tar\.xz")
_TIMEOUT: Final = 900.0
#: What a tree's Makefile says of its version, in the order in which a release has it.
_VERSION: Final = ("VERSION", "PATCHLEVEL", "SUBLEVEL", "EXTRAVERSION")


def newest(suite: Suite, source: DebianSource, archived: str) -> Locked:
    """The newest package of source in a suite whose upstream version matches.

    Args:
        suite: the suite, locked and fresh.
        source: the pattern.
        archived: what the lock is to say that it resolved.

    Raises:
        FetchProblem: there is none.
    """
    there = suite.packages(name for name in suite.names() if _PACKAGE.fullmatch(name))
    found, listed = matches(there, source.pattern)
    if not found:
        what = f"{suite.name} has no kernel's source that matches '{source.pattern}'"
        raise FetchProblem(what, hint=f"it has {listed}")
    return Locked(archived, found[0].version, upstream(found[0].version), (found[0],))


def unpack(deb: Path, into: Path) -> None:
    """Lays a package's source out in an empty folder; the package goes, as the disk may be short.

    Raises:
        FetchProblem: the package is damaged, or is none of a kernel's source.
        HostProblem: a program is missing.
        OSError: from the file system.
    """
    tarball = deb.with_suffix(".tar.xz")
    found = False
    damage: tarfile.TarError | None = None
    argv: list[str | Path] = ["dpkg-deb", "--fsys-tarfile", deb]
    with reading(argv, timeout=_TIMEOUT, problem=FetchProblem) as pipe:
        try:
            with tarfile.open(fileobj=pipe, mode="r|") as tar:
                for member in tar:
                    data = tar.extractfile(member) if _TARBALL.fullmatch(member.name) else None
                    if data is not None:
                        with tarball.open("wb") as out:
                            shutil.copyfileobj(data, out, 1 << 20)
                        found = True
        except tarfile.TarError as error:
            damage = error  # dpkg-deb may know better why; it is heard first
    if damage is not None or not found:
        what = f"the package is damaged: {damage}" if damage else "the package holds no source"
        raise FetchProblem(what, where=str(deb))
    deb.unlink()
    # tar by itself writes nothing outside of the folder.
    options = ("--no-same-owner", "--strip-components=1")
    run(["tar", "-xJf", tarball, "-C", into, *options], timeout=_TIMEOUT, problem=FetchProblem)
    tarball.unlink()


def release(tree: Path, where: str) -> str:
    """What a kernel built from a tree of this host calls itself.

    Args:
        tree: the folder.
        where: what to blame.

    Raises:
        UsageProblem: the folder holds no kernel's source.
    """
    try:
        text = (tree / "Makefile").read_text(encoding="utf-8", errors="replace")
        local = [path.read_text().strip() for path in sorted(tree.glob("localversion*[!~]"))]
    except OSError as error:
        what = f"{error.filename}: cannot be read: {error.strerror}"
        raise UsageProblem(what, where=where) from None
    values = [re.search(rf"^{name} *=[ \t]*(\S*)", text, re.MULTILINE) for name in _VERSION]
    version, level, sublevel, extra = (match[1] if match else "" for match in values)
    if not version.isdecimal() or not level.isdecimal():
        raise UsageProblem(f"{tree} is no source of a kernel", where=where)
    return ".".join(filter(None, (version, level, sublevel))) + extra + "".join(local)


def digest(tree: Path) -> str:
    """A digest over names, sizes and times of a tree's files; git's own are none of them.

    Raises:
        OSError: it cannot be read.
    """
    total = hashlib.sha256(os.fsencode(tree.resolve()))
    for entry in sorted(tree.iterdir()):
        if entry.name == ".git":
            continue
        if entry.is_dir() and not entry.is_symlink():
            seen = manifest.fingerprint(entry)
        else:
            stat = entry.lstat()
            seen = f"{stat.st_size} {stat.st_mtime_ns}"
        total.update(f"{entry.name} {seen}\n".encode())
    return total.hexdigest()
