# SPDX-License-Identifier: Apache-2.0
"""The programs that build a kernel: which are missing, and which decide what comes out."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

from vm import run
from vm.errors import HostProblem

#: In the order in which a build first needs them.
PROGRAMS: Final = (
    *("tar", "xz", "make", "gcc", "ld", "flex", "bison", "bc", "pahole"),
    "python3",  # writes a header of libbpf's
)
#: A header that the kernel's own tools include → the package that brings it.
HEADERS: Final = {Path("/usr/include/gelf.h"): "libelf-dev"}
#: Another version of these makes another kernel.
_DECISIVE: Final = ("gcc", "ld", "pahole")
_TIMEOUT: Final = 20.0


def require(subject: str) -> None:
    """Makes sure that this host can build.

    Args:
        subject: what is to be built, for the words.

    Raises:
        HostProblem: it lacks something; names all of it and the packages.
    """
    lacking = [name for name in PROGRAMS if not _is_there(name)]
    packages = [run.PACKAGES[name] for name in lacking]
    for header, package in HEADERS.items():
        if not header.is_file():
            lacking.append(header.name)
            packages.append(package)
    if lacking:
        hint = f"install what `hookproof doctor` shows (Debian: {' '.join(packages)})"
        raise HostProblem(f"{subject}: to build it takes {', '.join(lacking)}", hint=hint)


@functools.cache
def versions() -> tuple[str, ...]:
    """What the decisive programs say they are; empty for one that is missing."""
    return tuple(_version(program) for program in _DECISIVE)


def _version(program: str) -> str:
    if not _is_there(program):
        return ""
    return run.run([program, "--version"], timeout=_TIMEOUT).stdout.partition("\n")[0]


def _is_there(program: str) -> bool:
    try:
        return bool(run.find(program))
    except HostProblem:
        return False
