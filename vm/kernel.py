# SPDX-License-Identifier: Apache-2.0
"""A kernel as a line of kernels.txt names it, and as files on this host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Debian's kernels for amd64, as their names end; the first is meant if none is named.
FLAVOURS: Final = ("amd64", "cloud-amd64", "rt-amd64")


@dataclass(frozen=True)
class DebianSource:
    """A kernel package of Debian's archive.

    Attributes:
        suite: the archive's suite, such as `trixie-backports`.
        pattern: a shell pattern on the upstream version, such as `6.18.*`.
        flavour: one of `FLAVOURS`.
        modules: whether it has to come with its modules.
    """

    suite: str
    pattern: str
    flavour: str = FLAVOURS[0]
    modules: bool = True

    def __str__(self) -> str:
        flavour = "" if self.flavour == FLAVOURS[0] else f",flavour={self.flavour}"
        modules = "" if self.modules else ",modules=none"
        return f"debian:{self.suite}/{self.pattern}{flavour}{modules}"


@dataclass(frozen=True)
class LocalSource:
    """A kernel that lies on this host already.

    Attributes:
        vmlinuz: the bootable image.
        modules: the directory that holds `modules.dep` and `kernel/`, if any.
    """

    vmlinuz: Path
    modules: Path | None = None

    def __str__(self) -> str:
        return f"local:{self.vmlinuz}"


@dataclass(frozen=True)
class BuildSource:
    """A kernel that is built on this host.

    Attributes:
        tree: the source: of a package of Debian's archive, or in a folder of this host.
        config: files of options, of which a later one has the last word.
    """

    tree: DebianSource | Path
    config: tuple[Path, ...]

    def __str__(self) -> str:
        return f"build:{self.tree},config={'+'.join(path.stem for path in self.config)}"


Source = DebianSource | LocalSource | BuildSource


@dataclass(frozen=True)
class Kernel:
    """One line of kernels.txt.

    Attributes:
        name: what people call it, such as `6.12`.
        source: where it comes from.
        cmdline: further words for the kernel's command line, in order.
        default: whether a run without `--kernel` includes it.
        where: `kernels.txt:LINE`, for messages.
    """

    name: str
    source: Source
    cmdline: tuple[str, ...] = ()
    default: bool = True
    where: str = ""

    @property
    def archived(self) -> str:
        """What kernels.lock says the packages of; empty for what lies on this host.

        The options of a build are not in it: to change them asks for no newer packages.
        """
        if isinstance(self.source, BuildSource):
            tree = self.source.tree
            return f"build:{tree}" if isinstance(tree, DebianSource) else ""
        return str(self.source) if isinstance(self.source, DebianSource) else ""


@dataclass(frozen=True)
class Image:
    """A kernel's files, verified and ready to boot.

    Attributes:
        kernel: the line it comes from.
        release: what `uname -r` says, such as `6.12.107+deb13-amd64`.
        version: the package's version, or the release of a kernel or a tree of this host.
        vmlinuz: the bootable image, as `…/boot/vmlinuz-RELEASE` where we laid it out.
        modules: `…/lib/modules/RELEASE` with modules.dep, or None if there are none here.
        config: the kernel's configuration file, if it came along.
        digest: SHA-256 (hex) over everything the image was made from.
    """

    kernel: Kernel
    release: str
    version: str
    vmlinuz: Path
    modules: Path | None
    config: Path | None
    digest: str
