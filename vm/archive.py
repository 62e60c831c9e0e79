# SPDX-License-Identifier: Apache-2.0
"""Debian's archive: find kernel packages in one suite and download them, verified.

apt does it, in a private root per suite: own lists, own cache, own configuration. It
accepts what Debian's archive keyring signed, and nothing else.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from vm import manifest, mirror, store
from vm.errors import FetchProblem
from vm.kernel import DebianSource
from vm.lockfile import Locked, Package
from vm.parts import BASE, BINARY, MODULES, WHOLE
from vm.run import run

#: Seconds after which package lists are old.
FRESH = 24 * 3600.0
_UPDATE_TIMEOUT = 600.0
_DOWNLOAD_TIMEOUT = 3600.0
_QUERY_TIMEOUT = 120.0

_GONE = re.compile(r"\b404\b|File not found")
#: A release without its flavour: a further word before that (cloud, rt) or after it (dbg,
#: unsigned) makes another flavour, or none.
_VERSION = r"[0-9][0-9A-Za-z.+~]*(?:-[0-9][0-9a-z.]*)?"


class Gone(FetchProblem):
    """The lists name a file that the mirror no longer has: they are older than the mirror."""


@dataclass(frozen=True)
class Suite:
    """One suite of the archive in its private apt root.

    Everything here must be done under `store.locked(suite.lock, …)`.

    Attributes:
        name: such as `trixie-backports`.
        source: its line of sources.list.
        root: the private apt root, made by `of`.
        say: is told what takes long.
    """

    name: str
    source: str
    root: Path
    say: Callable[[str], None]

    @classmethod
    def of(cls, name: str, say: Callable[[str], None]) -> Suite:
        """The suite at the mirror this host uses.

        Raises:
            HostProblem: apt or Debian's keyring is missing.
            UsageProblem: there is no mirror.
        """
        return cls(name, mirror.source(mirror.address(), name), store.folder("apt", name), say)

    @property
    def lock(self) -> Path:
        """The lock that guards this root."""
        return self.root.with_name(f".lock-{self.name}")

    def refresh(self, older_than: float = 0.0) -> None:
        """Brings the package lists here if they are missing, or older than so many seconds.

        Raises:
            FetchProblem: network, signature, or disk.
        """
        stamp = self.root / "updated"
        try:
            age = time.time() - stamp.stat().st_mtime
            if 0 <= age < older_than and stamp.read_text() == self.source:
                return
        except FileNotFoundError:
            pass
        self.say(f"updating the package lists of {self.name}")
        try:
            stamp.unlink(missing_ok=True)
            for part in ("state/lists/partial", "cache/archives/partial", "log"):
                (self.root / part).mkdir(parents=True, exist_ok=True)
            (self.root / "sources.list").write_text(self.source)
            (self.root / "apt.conf").write_text(mirror.settings(self.root))
        except OSError as error:
            raise mirror.disk_problem(error, self.root) from None
        self._apt(
            "apt-get",
            "update",
            what=f"the package lists of {self.name} cannot be had",
            timeout=_UPDATE_TIMEOUT,
        )
        stamp.write_text(self.source)

    def packages(self, names: Iterable[str]) -> list[Package]:
        """Those of the named packages that the suite has, in each version that it has."""
        there = self.names()
        asked = [name for name in names if name in there]
        text = self._apt("apt-cache", "show", *asked) if asked else ""
        found = (_package(stanza) for stanza in text.split("\n\n"))
        return [package for package in found if package is not None]

    def names(self) -> frozenset[str]:
        """Every package of the suite whose name begins with `linux-`."""
        return frozenset(self._apt("apt-cache", "pkgnames", "linux-").split())

    def newest(self, source: DebianSource) -> Locked:
        """The newest kernel of this suite that is what a source asks for.

        Raises:
            FetchProblem: there is none, or its modules are gone from the archive.
        """
        release = re.compile(WHOLE.format(_VERSION + re.escape(f"-{source.flavour}")))
        images = self.packages(name for name in self.names() if release.fullmatch(name))
        matching, listed = matches(images, source.pattern)
        gone = ""
        for image in matching:
            name = image.name.removeprefix(WHOLE.format(""))
            found, missing = self._parts(name, image, source.modules)
            if not missing:
                if gone:
                    self.say(f"{gone}: passed over")
                return Locked(str(source), image.version, name, tuple(found))
            left = " and ".join(sorted(missing))
            gone = gone or f"{self.name} has kernel {image.version} and no longer {left}"
        if gone:
            hint = "choose another version or suite in kernels.txt"
            if source.modules:
                hint += f", or have it without modules: {replace(source, modules=False)}"
            raise FetchProblem(gone, hint=hint)
        raise FetchProblem(
            f"{self.name} has no kernel that matches '{source.pattern}'", hint=f"it has {listed}"
        )

    def download(self, wanted: Iterable[Package], into: Path) -> list[Path]:
        """Downloads packages; apt checks them against the signed lists, we against the lock.

        Args:
            wanted: exactly these versions.
            into: an existing folder.

        Returns:
            The files, in the order asked for.

        Raises:
            Gone: the mirror does not have what its lists, as we know them, name.
            FetchProblem: network, disk, or a file that is not what the lock says.
        """
        wanted = list(wanted)
        exactly = [f"{package.name}={package.version}" for package in wanted]
        what = "the download failed"
        try:
            self._apt(
                "apt-get", "download", *exactly, cwd=into, timeout=_DOWNLOAD_TIMEOUT, what=what
            )
        except FetchProblem as problem:
            if not _GONE.search(problem.what):
                raise
            hint = "the mirror is being renewed: try again later"
            raise Gone(problem.what, where=problem.where, hint=hint) from None
        files = []
        for package in wanted:
            (file,) = into.glob(f"{package.name}_*.deb")
            found = manifest.digest(file)
            if found != package.sha256:
                raise FetchProblem(
                    f"{package.name} {package.version} is not what kernels.lock says: "
                    f"SHA-256 {found}, should be {package.sha256}",
                    hint="find out who changed it before you use it",
                )
            files.append(file)
        return files

    def _parts(self, release: str, image: Package, modules: bool) -> tuple[list[Package], set[str]]:
        """The packages that make up a kernel, and the names of those that are gone."""
        base, binary, more = (name.format(release) for name in (BASE, BINARY, MODULES))
        split = self.packages((base, binary, more))
        there = {package.name for package in split}
        if binary not in there:
            if not modules:
                hint = "leave modules=none out of kernels.txt"
                raise FetchProblem(f"{image.name} holds its modules as well", hint=hint)
            return [image], set()
        # Where the modules are gone, the configuration is as well; nothing needs it to boot.
        wanted = {base, binary, more} if modules else {binary, base} & there
        found = [p for p in split if p.name in wanted and p.version == image.version]
        found.sort(key=lambda package: package.name)
        return found, wanted - {package.name for package in found}

    def _apt(
        self,
        program: str,
        *words: str,
        cwd: Path | None = None,
        timeout: float = _QUERY_TIMEOUT,
        what: str = "",
    ) -> str:
        argv = ["env", f"APT_CONFIG={self.root / 'apt.conf'}", program, *words]
        try:
            return run(argv, cwd=cwd, timeout=timeout, problem=FetchProblem, what=what).stdout
        except FetchProblem as problem:
            next_step = mirror.hint(problem.what)
            raise FetchProblem(problem.what, where=problem.where, hint=next_step) from None


def _package(stanza: str) -> Package | None:
    fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", stanza, re.MULTILINE))
    try:
        return Package(fields["Package"], fields["Version"], int(fields["Size"]), fields["SHA256"])
    except (KeyError, ValueError):
        return None


def matches(packages: Collection[Package], pattern: str) -> tuple[list[Package], str]:
    """Those whose upstream version matches a shell pattern, newest first; and which there are."""
    there = sorted(packages, key=_BY_VERSION)
    found = [package for package in there if fnmatchcase(upstream(package.version), pattern)]
    listed = ", ".join(dict.fromkeys(upstream(package.version) for package in there))
    return found[::-1], listed or "none at all"


def upstream(version: str) -> str:
    """`7.3.4` of `7.3.4-1~bpo13+1`: without epoch and Debian revision."""
    return version.rpartition(":")[2].rpartition("-")[0]


def _compare(one: Package, other: Package) -> int:
    def is_(relation: str) -> bool:
        argv = ["dpkg", "--compare-versions", one.version, relation, other.version]
        return run(argv, timeout=_QUERY_TIMEOUT, ok=(0, 1)).returncode == 0

    return -1 if is_("lt") else 1 if is_("gt") else 0


_BY_VERSION = functools.cmp_to_key(_compare)
