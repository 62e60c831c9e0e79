# SPDX-License-Identifier: Apache-2.0
"""Which mirror of Debian this host uses, how apt is told to use it, and what to do if it fails.

Of the host's apt configuration only two things are taken: the mirror's address and the way
there (proxies, certificates). Everything else is set here, so that nothing on the host can
switch verification off or prefer another package.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from vm.errors import FetchProblem, HostProblem, UsageProblem
from vm.run import run

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
VARIABLE = "HOOKPROOF_DEBIAN_MIRROR"
_TIMEOUT = 120.0

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
// Of apt's two caches of the lists, one is enough.
Dir::Cache::srcpkgcache "";
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
// A mirror on this very host is not behind the host's proxy.
Acquire::http::Proxy::127.0.0.1 "DIRECT";
"""
#: What is taken over from the host: how it reaches its mirror.
_NETWORK = re.compile(r'Acquire::(?:http|https|ForceIPv[46])(?:::[^"]*)? ".*";')

_ADDRESS = re.compile(r"(?:https?|file|copy)://?[^\s\[\]]+")
_SET = f"set {VARIABLE} to a mirror of Debian"
_FREE = "free some space, or set HOOKPROOF_CACHE to a folder elsewhere"
#: What apt says → the next step. The first that matches counts.
_HINTS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"No space left|Write error|file ?size|\(28:|\(27:|free space", re.IGNORECASE),
        _FREE,
    ),
    (
        re.compile(r"not signed|NO_PUBKEY|EXPKEYSIG|BADSIG|GPG error|signature", re.IGNORECASE),
        f"{_SET} that Debian signed, or renew the package 'debian-archive-keyring'",
    ),
    (
        re.compile(r"Release file.*(?:expired|not valid)"),
        f"check this host's clock, or {_SET} that is up to date",
    ),
    (
        re.compile(r"does not have a Release file|404"),
        f"check the suite's name in kernels.txt, or {_SET} that has it",
    ),
    (
        re.compile(r"Hash Sum mismatch|unexpected size", re.IGNORECASE),
        f"try again later, or {_SET}: this one serves damaged files",
    ),
)
_NETWORK_HINT = f"check the network and try again, or {_SET}"


def address() -> str:
    """The archive's address: the user's setting, or what the host's own apt uses.

    Raises:
        UsageProblem: the setting is no address, or the host has no mirror of Debian.
        HostProblem: apt is not installed.
    """
    own = os.environ.get(VARIABLE, "")
    if own:
        if not _ADDRESS.fullmatch(own):
            hint = f"{_SET}, such as http://MIRROR/debian"
            raise UsageProblem(f"'{own}' is no address", where=VARIABLE, hint=hint)
        return own
    # Origin and Label come from the signed Release file that the host fetched; the label
    # tells the main archive from the one of security updates.
    targets = ("Created-By: Packages", "Component: main", "Origin: Debian", "Label: Debian")
    argv = ["apt-get", "indextargets", "--format", "$(REPO_URI)", *targets]
    for found in run(argv, timeout=_TIMEOUT, what="apt's sources cannot be read").stdout.split():
        if _ADDRESS.fullmatch(found):
            return found
    raise UsageProblem(
        "this host's apt knows no mirror of Debian",
        where=shlex.join(argv),
        hint=f"{_SET}, or on Debian run 'apt-get update' as root",
    )


def source(address: str, suite: str) -> str:
    """The line of sources.list that names one suite and the only keyring it may be signed by.

    Raises:
        HostProblem: Debian's keyring is missing.
    """
    if not KEYRING.is_file():
        raise HostProblem(
            "Debian's archive keyring is missing",
            where=str(KEYRING),
            hint="install the package 'debian-archive-keyring'",
        )
    return f"deb [arch=amd64 signed-by={KEYRING}] {address} {suite} main\n"


def settings(root: Path) -> str:
    """The whole apt.conf of a private root.

    Raises:
        HostProblem: apt is not installed.
    """
    host = run(["apt-config", "dump"], timeout=_TIMEOUT, what="apt's settings cannot be read")
    network = [line for line in host.stdout.splitlines() if _NETWORK.fullmatch(line)]
    return "\n".join([*network, _SETTINGS.format(root=root)])


def hint(words: str) -> str:
    """The next step after apt said these words."""
    return next((step for pattern, step in _HINTS if pattern.search(words)), _NETWORK_HINT)


def disk_problem(error: OSError, where: Path) -> FetchProblem:
    """What to tell a person when writing to the cache failed."""
    what = f"the cache cannot be written: {error.strerror or error}"
    return FetchProblem(what, where=str(where), hint=_FREE)
