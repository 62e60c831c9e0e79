# SPDX-License-Identifier: Apache-2.0
"""Debian's kernel packages laid out as virtme-run wants them.

    boot/vmlinuz-RELEASE  boot/config-RELEASE  lib/modules/RELEASE/…

Both layouts of packages end here: boot/ and lib/modules (to 6.18), and everything below
usr/lib/modules (from 6.19). The names written are made here, from checked parts; nothing
in a package can name a place of its own.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import IO

from vm import manifest
from vm.errors import FetchProblem
from vm.parts import Part
from vm.run import reading, run

_TIMEOUT = 900.0
_CHUNK = 1 << 20
#: A path in a package → where it goes; {0} is the release. The first match counts, what
#: matches nothing (documentation, System.map) is left out.
_PLACES: tuple[tuple[str, str], ...] = (
    (r"boot/(vmlinuz|config)-{0}", r"boot/\1-{0}"),
    (r"usr/lib/modules/{0}/(vmlinuz|config)", r"boot/\1-{0}"),
    (r"(?:usr/)?lib/modules/{0}/(kernel/.+\.ko(?:\.\w+)?)", r"lib/modules/{0}/\1"),
    (r"(?:usr/)?lib/modules/{0}/(modules\.[a-z.]+)", r"lib/modules/{0}/\1"),
)


def unpack(packages: Iterable[Path], release: str, parts: Collection[Part], into: Path) -> None:
    """Unpacks a kernel's packages, makes modules.dep, and writes the manifest.

    Args:
        packages: the .deb files; removed once unpacked, since the disk may be short.
        release: the kernel's release.
        parts: what the packages must hold between them.
        into: an empty folder.

    Raises:
        FetchProblem: a package is damaged, or is not that kernel's.
        HostProblem: dpkg-deb or depmod is missing.
        OSError: from the file system, such as ENOSPC.
    """
    files: dict[str, str] = {}
    for package in packages:
        argv: list[str | Path] = ["dpkg-deb", "--fsys-tarfile", package]
        damage: tarfile.TarError | None = None
        with reading(argv, timeout=_TIMEOUT, problem=FetchProblem) as pipe:
            try:
                files |= _take(pipe, release, into)
            except tarfile.TarError as error:
                damage = error  # dpkg-deb may know better why; it is heard first
        if damage is not None:
            raise FetchProblem(f"the package is damaged: {damage}", where=str(package))
        package.unlink()
    there: dict[Part, bool] = {
        "vmlinuz": f"boot/vmlinuz-{release}" in files,
        "config": f"boot/config-{release}" in files,
        "modules": any(path.startswith("lib/modules/") and ".ko" in path for path in files),
    }
    for part, found in there.items():
        if part in parts and not found:
            raise FetchProblem(f"the packages of {release} hold no {part}")
    # Without a lib/modules of its own, virtme-run takes the next one further up.
    (into / "lib" / "modules").mkdir(parents=True, exist_ok=True)
    if "modules" in parts:
        files |= _index(release, into)
    manifest.write(into, files)


def _index(release: str, into: Path) -> dict[str, str]:
    """Has depmod write modules.dep and the like; their paths and SHA-256."""
    # Builds of kmod differ in where they look below a root: /lib/modules or /usr/lib/modules.
    (into / "usr").mkdir()
    (into / "usr" / "lib").symlink_to("../lib")
    run(["depmod", "-b", into, release], timeout=_TIMEOUT, problem=FetchProblem)
    modules = into / "lib" / "modules" / release
    paths = modules.glob("modules.*")
    return {str(path.relative_to(into)): manifest.digest(path) for path in paths}


def _take(pipe: IO[bytes], release: str, into: Path) -> dict[str, str]:
    """Writes the files of a tar archive that have a place; their paths and SHA-256."""
    files = {}
    with tarfile.open(fileobj=pipe, mode="r|") as tar:
        for member in tar:
            place = _place(member.name, release)
            data = tar.extractfile(member) if place and member.isreg() else None
            if data is not None:
                files[place] = _write(data, into / place)
    return files


def _place(name: str, release: str) -> str:
    path = name.removeprefix("./")
    if ".." in path.split("/"):
        return ""
    for pattern, place in _PLACES:
        match = re.fullmatch(pattern.format(re.escape(release)), path)
        if match:
            return match.expand(place.format(release))
    return ""


def _write(data: IO[bytes], path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    sha256 = hashlib.sha256()
    with path.open("xb") as out:
        while chunk := data.read(_CHUNK):
            out.write(chunk)
            sha256.update(chunk)
    return sha256.hexdigest()
