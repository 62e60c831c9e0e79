# SPDX-License-Identifier: Apache-2.0
"""All that decides what a kernel that is built here is like, and the digest over it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vm import kconfig, sourcetree, toolchain
from vm.errors import UsageProblem
from vm.kernel import BuildSource, Kernel
from vm.lockfile import Locked

#: What make is told: nothing of the host, the user or the hour is to get into the kernel
#: (Documentation/kbuild/reproducible-builds.rst). A release ends in what LOCALVERSION says
#: and, if that is not set, in what git says of the tree.
WORDS: Final = (
    "ARCH=x86_64",
    "KBUILD_BUILD_HOST=hookproof",
    "KBUILD_BUILD_TIMESTAMP=Thu Jan  1 00:00:00 UTC 1970",
    "KBUILD_BUILD_USER=hookproof",
    "KBUILD_BUILD_VERSION=1",
    "LOCALVERSION=",
)


@dataclass(frozen=True)
class Recipe:
    """What a kernel is built from.

    Attributes:
        release: what `uname -r` will say.
        version: of the package of source; of a tree its release.
        options: what its configuration must have, as `kconfig.asked` gives it.
        digest: SHA-256 (hex) over the source, the options, the compiler and the words to make.
    """

    release: str
    version: str
    options: dict[str, str | None]
    digest: str


def of(kernel: Kernel, source: BuildSource, entry: Locked | None) -> Recipe:
    """The recipe of a kernel.

    Args:
        kernel: the line of kernels.txt.
        source: its source.
        entry: what kernels.lock says of the package; None for a tree of this host.

    Raises:
        UsageProblem: the options or the tree cannot be used.
    """
    options = kconfig.asked(source.config)
    if entry is not None:
        release, version, tree = entry.release, entry.version, entry.digest
    else:
        assert isinstance(source.tree, Path)  # noqa: S101  for the type checker
        release = version = sourcetree.release(source.tree, kernel.where)
        try:
            tree = sourcetree.digest(source.tree)
        except OSError as error:
            what = f"{error.filename}: cannot be read: {error.strerror}"
            raise UsageProblem(what, where=kernel.where) from None
    inputs = {
        "tree": tree,
        "options": sorted(options.items()),
        "tools": toolchain.versions(),
        "words": WORDS,
    }
    digest = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
    return Recipe(release, version, options, digest)
