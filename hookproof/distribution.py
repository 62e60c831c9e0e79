# SPDX-License-Identifier: Apache-2.0
"""Which family of distributions this host belongs to, and how one installs packages there."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hookproof.needs import Need


@dataclass(frozen=True)
class Family:
    """Distributions that share package names and a package manager.

    Attributes:
        name: the field of `Need` that names its packages.
        label: as people say it.
        ids: what `ID` or `ID_LIKE` of os-release says.
        before: a command that comes first, or nothing.
        install: the command to which the packages' names are added.
    """

    name: str
    label: str
    ids: frozenset[str]
    before: tuple[str, ...]
    install: tuple[str, ...]


FAMILIES: tuple[Family, ...] = (
    Family(
        "debian",
        "Debian/Ubuntu",
        frozenset({"debian", "ubuntu"}),
        ("apt-get", "update"),
        ("apt-get", "install", "--yes", "--no-install-recommends"),
    ),
    Family(
        "fedora",
        "Fedora",
        frozenset({"fedora", "rhel", "centos"}),
        (),
        ("dnf", "install", "--assumeyes"),
    ),
    Family(
        "arch",
        "Arch",
        frozenset({"arch", "archlinux"}),
        (),
        ("pacman", "--sync", "--needed", "--noconfirm"),
    ),
)


#: Debian's own switch, named in ssh.service, ssh.socket and the init script alike: while
#: this file is there they start no server, at installation, at boot and after an upgrade.
#: Purging the package removes it. Other families start no server at installation.
NO_SERVER = Path("/etc/ssh/sshd_not_to_be_run")


def family_of(release: Mapping[str, str]) -> Family | None:
    """The family that an os-release names, or None if it is none that we know."""
    ids = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
    return next((one for one in FAMILIES if one.ids & ids), None)


def family() -> Family | None:
    """This host's family, or None if it is none that we know."""
    try:
        return family_of(platform.freedesktop_os_release())
    except OSError:
        return None


def packages(needs: Iterable[Need], of: Family) -> tuple[str, ...]:
    """The packages that meet these needs in a family, each once, in order."""
    return tuple(dict.fromkeys(getattr(need, of.name) for need in needs))


def command(needs: Iterable[Need], of: Family) -> str:
    """The one line to paste into a shell that installs what these needs lack.

    We need sshd as a program for guests; the host must not get a server by it.
    """
    names = packages(needs, of)
    off = ("install", "-D", "/dev/null", str(NO_SERVER))
    keep_off = off if of.name == "debian" and "openssh-server" in names else ()
    steps = [step for step in (keep_off, of.before, (*of.install, *names)) if step]
    return " && ".join(shlex.join(("sudo", *step)) for step in steps)


def advice(needs: Sequence[Need], here: Family | None) -> tuple[str, ...]:
    """The line to paste; for an unknown distribution one for each family we know."""
    if here:
        return (command(needs, here),)
    return tuple(f"{one.label + ':':15}{command(needs, one)}" for one in FAMILIES)
