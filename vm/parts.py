# SPDX-License-Identifier: Apache-2.0
"""Which packages of Debian's archive a kernel is made of, and what each of them brings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from vm.lockfile import Package

Part = Literal["vmlinuz", "config", "modules"]

#: Up to 6.18 one package holds all. From 6.19 on it is empty and stands for the other three.
#: {} is the release.
WHOLE: Final = "linux-image-{}"
BASE: Final = "linux-base-{}"
BINARY: Final = "linux-binary-{}"
MODULES: Final = "linux-modules-{}"

_BRINGS: Final[dict[str, tuple[Part, ...]]] = {
    WHOLE: ("vmlinuz", "config", "modules"),
    BASE: ("config",),
    BINARY: ("vmlinuz",),
    MODULES: ("modules",),
}


def brought(packages: Iterable[Package], release: str) -> frozenset[Part]:
    """What these packages of a release must hold when they are unpacked.

    A kernel's image is among it in any case: without one there is no kernel.
    """
    names = {package.name for package in packages}
    found = {
        part for name, parts in _BRINGS.items() if name.format(release) in names for part in parts
    }
    return frozenset({*found, "vmlinuz"})
