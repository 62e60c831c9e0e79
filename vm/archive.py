# SPDX-License-Identifier: Apache-2.0
"""Debian's archive: find kernel packages in one suite and download them, verified.

apt does it, in a private root: own lists, own cache, own configuration. Of the host's
configuration only two things are taken, which mirror it uses and how it gets there
(proxies), so that nothing there can switch verification off. apt accepts what Debian's
archive keyring signed, and nothing else.
"""

from __future__ import annotations

import functools
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from vm import manifest, store
from vm.errors import FetchProblem, HostProblem, UsageProblem
from vm.lockfile import Locked, Package
from vm.run import find, run

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MIRROR_VARIABLE = "HOOKPROOF_DEBIAN_MIRROR"

#: Seconds after which package lists are old.
FRESH = 24 * 3600.0
_UPDATE_TIMEOUT = 600.0
_DOWNLOAD_TIMEOUT = 3600.0
_QUERY_TIMEOUT = 120.0

#: Up to 6.18 one package, linux-image, holds kernel and modules. From 6.19 on it is empty
#: and stands for these three. {} is the release.
SPLIT = ("linux-base-{}", "linux-binary-{}", "linux-modules-{}")
#: The amd64 flavour alone: a further word before it (cloud, rt) or after it (dbg,
#: unsigned) is another one.
_IMAGE = re.compile(r"linux-image-([0-9][0-9A-Za-z.+~]*(?:-[0-9]+)?-amd64)")

_SETTINGS = """\
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "{root}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "/dev/null";
Dir::State "{root}/state";
Dir::State::status "/dev/null";
Dir::Cache "{root}/cache";
Dir::Log "{root}/log";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; }};
// The private root may lie in a home folder, which apt's sandbox user cannot enter.
APT::Sandbox::User "root";
// Without this apt calls an update a success that got nothing.
APT::Update::Error-Mode "any";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::Check-Valid-Until "true";
Acquire::GzipIndexes "true";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
"""
#: What is taken over from the host: how it reaches its mirror.
_NETWORK = re.compile(r'Acquire::(?:http|https|ForceIPv[46])(?:::[^"]*)? ".*";')

_MIRROR = re.compile(r"(?:https?|file|copy)://?[^\s\[\]]+")
_SET_MIRROR = f"set {MIRROR_VARIABLE} to a mirror of Debian"
#: What apt says → the next step. The first that matches counts.
_HINTS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"No space left|Write error|file ?size|\(28:|\(27:|free space", re.IGNORECASE),
        "free some space, or set HOOKPROOF_CACHE to a folder elsewhere",
    ),
    (
        re.compile(r"not signed|NO_PUBKEY|EXPKEYSIG|BADSIG|GPG error|signature", re.IGNORECASE),
        f"{_SET_MIRROR} that Debian signed, or renew the package 'debian-archive-keyring'",
    ),
    (
        re.compile(r"Release file.*(?:expired|not valid)"),
        f"check this host's clock, or {_SET_MIRROR} that is up to date",
    ),
    (
        re.compile(r"does not have a Release file|404"),
        f"check the suite's name in kernels.txt, or {_SET_MIRROR} that has it",
    ),
    (
        re.compile(r"Hash Sum mismatch|unexpected size", re.IGNORECASE),
        f"try again later, or {_SET_MIRROR}: this one serves damaged files",
    ),
)
_NETWORK_HINT = f"check the network and try again, or {_SET_MIRROR}"


@dataclass(frozen=True)
class Suite:
    """One suite of the archive in its private apt root.

    Everything here must be done under `store.locked(suite.lock, …)`.

    Attributes:
        name: such as `trixie-backports`.
        mirror: the archive's address.
        root: the private apt root, made by `of`.
        say: is told what takes long.
    """

    name: str
    mirror: str
    root: Path
    say: Callable[[str], None]

    @classmethod
    def of(cls, name: str, say: Callable[[str], None]) -> Suite:
        """The suite at the mirror this host uses.

        Raises:
            HostProblem: apt or Debian's keyring is missing.
            UsageProblem: there is no mirror.
        """
        find("apt-get")
        if not KEYRING.is_file():
            raise HostProblem(
                "Debian's archive keyring is missing",
                where=str(KEYRING),
                hint="install the package 'debian-archive-keyring'",
            )
        return cls(name, mirror(), store.folder("apt", name), say)

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
        source = f"deb [arch=amd64 signed-by={KEYRING}] {self.mirror} {self.name} main\n"
        try:
            age = time.time() - stamp.stat().st_mtime
            if 0 <= age < older_than and stamp.read_text() == source:
                return
        except FileNotFoundError:
            pass
        self.say(f"updating the package lists of {self.name}")
        try:
            stamp.unlink(missing_ok=True)
            for part in ("state/lists/partial", "cache/archives/partial", "log"):
                (self.root / part).mkdir(parents=True, exist_ok=True)
            (self.root / "sources.list").write_text(source)
            settings = _host_network() + _SETTINGS.format(root=self.root)
            (self.root / "apt.conf").write_text(settings)
        except OSError as error:
            raise disk_problem(error, self.root) from None
        self._apt(
            "apt-get",
            "update",
            what=f"the package lists of {self.name} cannot be had",
            timeout=_UPDATE_TIMEOUT,
        )
        stamp.write_text(source)

    def packages(self, names: Iterable[str]) -> dict[str, Package]:
        """Those of the named packages that the suite has, by name."""
        there = self._names()
        asked = [name for name in names if name in there]
        text = self._apt("apt-cache", "show", *asked) if asked else ""
        found = (_package(stanza) for stanza in text.split("\n\n"))
        return {package.name: package for package in found if package is not None}

    def newest(self, pattern: str) -> Locked:
        """The newest kernel whose upstream version matches a shell pattern.

        Raises:
            FetchProblem: there is none, or its modules are gone from the archive.
        """
        images = self.packages(name for name in self._names() if _IMAGE.fullmatch(name))
        matching = [p for p in images.values() if fnmatchcase(_upstream(p.version), pattern)]
        for image in sorted(matching, key=_BY_VERSION, reverse=True):
            release = image.name.removeprefix("linux-image-")
            parts = self.packages(name.format(release) for name in SPLIT)
            if f"linux-binary-{release}" not in parts:
                parts = {image.name: image}
            elif len(parts) < len(SPLIT) or {p.version for p in parts.values()} != {image.version}:
                continue
            found = tuple(parts[name] for name in sorted(parts))
            return Locked(f"debian:{self.name}/{pattern}", image.version, release, found)
        if matching:
            raise FetchProblem(
                f"{self.name} has kernel {max(matching, key=_BY_VERSION).version} "
                "and no longer the packages of its modules",
                hint="choose another version or suite in kernels.txt",
            )
        there = sorted(images.values(), key=_BY_VERSION)
        listed = ", ".join(dict.fromkeys(_upstream(p.version) for p in there))
        raise FetchProblem(
            f"{self.name} has no kernel that matches '{pattern}'",
            hint=f"it has {listed or 'none at all'}",
        )

    def download(self, wanted: Iterable[Package], into: Path) -> list[Path]:
        """Downloads packages; apt checks them against the signed lists, we against the lock.

        Args:
            wanted: exactly these versions.
            into: an existing folder.

        Returns:
            The files, in the order asked for.

        Raises:
            FetchProblem: network, disk, or a file that is not what the lock says.
        """
        wanted = list(wanted)
        self._apt(
            "apt-get",
            "download",
            *(f"{package.name}={package.version}" for package in wanted),
            cwd=into,
            timeout=_DOWNLOAD_TIMEOUT,
            what="the download failed",
        )
        files = []
        for package in wanted:
            (file,) = into.glob(f"{package.name}_*.deb")
            found = manifest.digest(file)
            if (found.size, found.sha256) != (package.size, package.sha256):
                raise FetchProblem(
                    f"{package.name} {package.version} is not what kernels.lock says: "
                    f"SHA-256 {found.sha256}, should be {package.sha256}",
                    hint="find out who changed it before you use it",
                )
            files.append(file)
        return files

    def _names(self) -> frozenset[str]:
        return frozenset(self._apt("apt-cache", "pkgnames", "linux-").split())

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
            hints = (hint for pattern, hint in _HINTS if pattern.search(problem.what))
            raise FetchProblem(
                problem.what, where=problem.where, hint=next(hints, _NETWORK_HINT)
            ) from None


def mirror() -> str:
    """The archive's address: the user's setting, or what the host's own apt uses.

    Raises:
        UsageProblem: the setting is no address, or the host has no mirror of Debian.
    """
    own = os.environ.get(MIRROR_VARIABLE, "")
    if own:
        if not _MIRROR.fullmatch(own):
            hint = f"{_SET_MIRROR}, such as http://MIRROR/debian"
            raise UsageProblem(f"'{own}' is no address", where=MIRROR_VARIABLE, hint=hint)
        return own
    # ORIGIN and LABEL come from the signed Release file, which host has fetched before;
    # the label tells the main archive from Debian-Security.
    targets = ("Created-By: Packages", "Component: main", "Origin: Debian", "Label: Debian")
    argv = ["apt-get", "indextargets", "--format", "$(REPO_URI)", *targets]
    addresses = run(argv, timeout=_QUERY_TIMEOUT, what="apt's sources cannot be read").stdout
    for address in addresses.split():
        if _MIRROR.fullmatch(address):
            return address
    raise UsageProblem("this host's apt knows no mirror of Debian", hint=_SET_MIRROR)


def disk_problem(error: OSError, where: Path) -> FetchProblem:
    """What to tell a person when writing to the cache failed."""
    what = f"the cache cannot be written: {error.strerror or error}"
    return FetchProblem(what, where=str(where), hint=_HINTS[0][1])


def _host_network() -> str:
    dump = run(["apt-config", "dump"], timeout=_QUERY_TIMEOUT, what="apt's settings").stdout
    return "".join(f"{line}\n" for line in dump.splitlines() if _NETWORK.fullmatch(line))


def _package(stanza: str) -> Package | None:
    fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", stanza, re.MULTILINE))
    try:
        return Package(fields["Package"], fields["Version"], int(fields["Size"]), fields["SHA256"])
    except (KeyError, ValueError):
        return None


def _upstream(version: str) -> str:
    """`7.3.4` of `7.3.4-1~bpo13+1`: without epoch and Debian revision."""
    return version.rpartition(":")[2].rpartition("-")[0]


def _compare(one: Package, other: Package) -> int:
    def is_(relation: str) -> bool:
        argv = ["dpkg", "--compare-versions", one.version, relation, other.version]
        return run(argv, timeout=_QUERY_TIMEOUT, ok=(0, 1)).returncode == 0

    return -1 if is_("lt") else 1 if is_("gt") else 0


_BY_VERSION = functools.cmp_to_key(_compare)
