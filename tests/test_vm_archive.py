# SPDX-License-Identifier: Apache-2.0
"""Finding and downloading packages, with real apt and a small signed archive."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.aptrepo import SUITE, Archive, Server, keys
from vm import archive as debian
from vm import mirror
from vm.archive import Suite
from vm.errors import FetchProblem, HostProblem, UsageProblem
from vm.kernel import DebianSource
from vm.lockfile import Locked, Package


def suite(name: str = SUITE, say: Callable[[str], None] = lambda _: None) -> Suite:
    found = Suite.of(name, say)
    found.refresh()
    return found


def source(pattern: str, flavour: str = "amd64", modules: bool = True) -> DebianSource:
    return DebianSource(SUITE, pattern, flavour, modules)


def names(found: Locked) -> list[str]:
    return [package.name for package in found.packages]


def test_takes_the_newest_by_debian_order(archive: Archive, server: Server, cache: Path) -> None:
    archive.whole("6.12.9-1", "6.12.9+deb13-amd64")
    archive.whole("6.12.107-1", "6.12.107+deb13-amd64")
    archive.whole("6.12.107-1~bpo12+1", "6.12.107+deb12-amd64")
    archive.publish()
    found = suite().newest(source("6.12.*"))
    assert (found.version, found.release) == ("6.12.107-1", "6.12.107+deb13-amd64")
    assert found.source == f"debian:{SUITE}/6.12.*"
    assert names(found) == ["linux-image-6.12.107+deb13-amd64"]


def test_matches_the_upstream_version_not_the_name(
    archive: Archive, server: Server, cache: Path
) -> None:
    archive.whole("5.10.223-1", "5.10.0-32-amd64")
    archive.whole("5.10.218-1", "5.10.0-30-amd64")
    archive.publish()
    assert suite().newest(source("5.10.2[01]*")).release == "5.10.0-30-amd64"
    assert suite().newest(source("5.10.223")).release == "5.10.0-32-amd64"


def test_leaves_other_flavours_out(archive: Archive, server: Server, cache: Path) -> None:
    for name in ("cloud-amd64", "rt-amd64", "amd64-unsigned", "amd64-dbg", "cloud-amd64-unsigned"):
        archive.whole("6.1.99-1", f"6.1.0-99-{name}")
    archive.whole("6.1.9-1", "6.1.0-9-amd64")
    archive.publish()
    there = suite()
    assert there.newest(source("6.1.*")).release == "6.1.0-9-amd64"
    cloud = there.newest(source("6.1.*", "cloud-amd64"))
    assert cloud.release == "6.1.0-99-cloud-amd64"
    assert cloud.source == f"debian:{SUITE}/6.1.*,flavour=cloud-amd64"


def test_takes_three_packages_where_they_are_split(
    archive: Archive, server: Server, cache: Path
) -> None:
    archive.split("7.3.4-1~bpo13+1", "7.3.4+deb13-amd64")
    archive.split("7.3.5-1~bpo13+1", "7.3.5+deb13-amd64", modules=False)
    archive.publish()
    said: list[str] = []
    there = suite(say=said.append)
    found = there.newest(source("7.3.*"))
    assert found.version == "7.3.4-1~bpo13+1", "7.3.5 has lost its modules"
    assert [name.split("-")[1] for name in names(found)] == ["base", "binary", "modules"]
    lost = f"{SUITE} has kernel 7.3.5-1~bpo13+1 and no longer linux-modules-7.3.5+deb13-amd64"
    assert said[-1] == f"{lost}: passed over"
    with pytest.raises(FetchProblem) as caught:
        there.newest(source("7.3.5"))
    assert str(caught.value) == (
        f"{lost}; choose another version or suite in kernels.txt, or have it without modules: "
        f"debian:{SUITE}/7.3.5,modules=none"
    )


@pytest.mark.parametrize(
    ("base", "modules", "parts"),
    [
        (False, False, ["binary"]),
        (True, False, ["base", "binary"]),
        (True, True, ["base", "binary"]),
    ],
)
def test_takes_a_kernel_without_modules_if_told_so(
    archive: Archive, server: Server, cache: Path, base: bool, modules: bool, parts: list[str]
) -> None:
    archive.split("7.0.9-1", "7.0.9-amd64")
    archive.split("7.0.13-1", "7.0.13-amd64", base=base, modules=modules)
    archive.publish()
    found = suite().newest(source("7.0.*", modules=False))
    assert (found.release, found.source) == (
        "7.0.13-amd64",
        f"debian:{SUITE}/7.0.*,modules=none",
    )
    assert [name.split("-")[1] for name in names(found)] == parts


def test_what_cannot_come_without_its_modules(
    archive: Archive, server: Server, cache: Path
) -> None:
    archive.whole("6.12.9-1", "6.12.9-amd64")
    archive.publish()
    with pytest.raises(FetchProblem) as caught:
        suite().newest(source("6.12.*", modules=False))
    assert str(caught.value) == (
        "linux-image-6.12.9-amd64 holds its modules as well; leave modules=none out of kernels.txt"
    )


def test_parts_of_two_versions_are_no_kernel(archive: Archive, server: Server, cache: Path) -> None:
    """As for a while when a mirror has one half of an upload."""
    archive.split("7.3.4-2", "7.3.4-amd64", modules=False)
    archive.add("linux-modules-7.3.4-amd64", "7.3.4-1", {"usr/lib/modules/a": b""})
    archive.publish()
    with pytest.raises(FetchProblem, match=r"has kernel 7\.3\.4-2 and no longer linux-modules-7"):
        suite().newest(source("7.3.*"))


def test_says_what_there_is_if_nothing_matches(
    archive: Archive, server: Server, cache: Path
) -> None:
    archive.whole("6.12.10-1", "6.12.10-amd64")
    archive.whole("6.12.9-1", "6.12.9-amd64")
    archive.publish()
    with pytest.raises(FetchProblem) as caught:
        suite().newest(source("6.13.*"))
    assert str(caught.value) == (
        f"{SUITE} has no kernel that matches '6.13.*'; it has 6.12.9, 6.12.10"
    )


def test_downloads_what_was_asked(archive: Archive, server: Server, cache: Path) -> None:
    deb = archive.whole("6.12.9-1", "6.12.9-amd64")
    archive.publish()
    there = suite()
    (file,) = there.download(there.newest(source("6.12.*")).packages, cache)
    assert file.read_bytes() == deb.read_bytes()


def test_updates_lists_only_if_they_are_old(archive: Archive, server: Server, cache: Path) -> None:
    archive.whole("6.12.9-1", "6.12.9-amd64")
    archive.publish()
    there = suite()
    server.requests.clear()
    there.refresh(debian.FRESH)
    assert server.requests == []
    yesterday = time.time() - debian.FRESH - 1
    os.utime(there.root / "updated", (yesterday, yesterday))
    there.refresh(debian.FRESH)
    assert server.requests != []


def test_another_mirror_makes_the_lists_old(
    archive: Archive, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.publish()
    suite()
    with Server(archive.root) as other:
        monkeypatch.setenv(mirror.VARIABLE, other.address)
        Suite.of(SUITE, lambda _: None).refresh(debian.FRESH)
        assert other.requests != []


def test_refuses_another_key(
    archive: Archive, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.whole("6.12.9-1", "6.12.9-amd64")
    archive.publish()
    with keys() as stranger:
        monkeypatch.setattr(mirror, "KEYRING", stranger.keyring)
        with pytest.raises(FetchProblem, match="debian-archive-keyring") as caught:
            suite()
    assert "is not signed" in caught.value.what
    assert "apt-get update" in caught.value.where


@pytest.mark.parametrize("harm", ["unsigned", "changed", "expired"])
def test_refuses_lists_that_are_not_good(
    archive: Archive, server: Server, cache: Path, harm: str
) -> None:
    archive.whole("6.12.9-1", "6.12.9-amd64")
    archive.publish(sign=harm != "unsigned", valid_days=-1 if harm == "expired" else 7)
    if harm == "changed":
        packages = archive.root / "dists" / SUITE / "main" / "binary-amd64" / "Packages"
        packages.write_bytes(packages.read_bytes().replace(b"miniature", b"disguise!"))
    with pytest.raises(FetchProblem) as caught:
        suite()
    words = {"unsigned": "not signed", "changed": "Hash Sum mismatch", "expired": "expired"}
    assert words[harm] in caught.value.what


def test_the_hosts_settings_cannot_switch_verification_off(
    archive: Archive, server: Server, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    careless = tmp_path / "careless.conf"
    careless.write_text(
        'APT::Get::AllowUnauthenticated "true";\nAcquire::AllowInsecureRepositories "true";\n'
        'Acquire::Check-Valid-Until "false";\nAcquire::http::Pipeline-Depth "1";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(careless))
    archive.publish(sign=False)
    with pytest.raises(FetchProblem):
        suite()
    written = (cache / "apt" / SUITE / "apt.conf").read_text()
    assert 'Acquire::http::Pipeline-Depth "1";' in written, "the way to the mirror is the host's"


def test_refuses_a_package_that_is_not_the_listed_one(
    archive: Archive, server: Server, cache: Path
) -> None:
    deb = archive.whole("6.12.9-1", "6.12.9-amd64")
    archive.publish()
    there = suite()
    data = deb.read_bytes()
    deb.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(FetchProblem, match="damaged files"):
        there.download(there.newest(source("6.12.*")).packages, cache)


def test_refuses_a_package_that_is_not_the_locked_one(
    archive: Archive, server: Server, cache: Path
) -> None:
    archive.whole("6.12.9-1", "6.12.9-amd64")
    archive.publish()
    there = suite()
    (found,) = there.newest(source("6.12.*")).packages
    other = Package(found.name, found.version, found.size, "0" * 64)
    with pytest.raises(FetchProblem, match=r"not what kernels\.lock says"):
        there.download([other], cache)


def test_no_network(archive: Archive, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(archive.root) as gone:
        monkeypatch.setenv(mirror.VARIABLE, gone.address)
    with pytest.raises(FetchProblem, match="check the network") as caught:
        suite()
    assert "onnect" in caught.value.what
    assert str(caught.value).count("\n") == 0


def test_a_suite_the_mirror_does_not_have(archive: Archive, server: Server, cache: Path) -> None:
    archive.publish()
    with pytest.raises(FetchProblem, match="check the suite's name"):
        suite("trixy")


@pytest.mark.parametrize("bad", ["mirror.example/debian", "http://a [trusted=yes]", "http://a\nb"])
def test_a_setting_that_is_no_address(bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(mirror.VARIABLE, bad)
    with pytest.raises(UsageProblem, match="is no address"):
        mirror.address()


def test_the_mirror_is_the_hosts(
    archive: Archive, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host is played by settings that put another sources.list and other lists."""
    archive.whole("6.12.9-1", "6.12.9-amd64")
    archive.publish()
    monkeypatch.delenv(mirror.VARIABLE)
    sources = tmp_path / "sources.list"
    sources.write_text(mirror.source(server.address, SUITE))
    settings = tmp_path / "apt.conf"
    settings.write_text(mirror.settings(tmp_path))
    (tmp_path / "state" / "lists" / "partial").mkdir(parents=True)
    monkeypatch.setenv("APT_CONFIG", str(settings))
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    assert mirror.address() == f"{server.address}/"


def test_no_mirror_on_this_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tmp_path / "apt.conf"
    settings.write_text('Dir::Etc::sourcelist "/dev/null";\nDir::Etc::sourceparts "/dev/null";\n')
    monkeypatch.setenv("APT_CONFIG", str(settings))
    monkeypatch.delenv(mirror.VARIABLE, raising=False)
    with pytest.raises(UsageProblem, match="set HOOKPROOF_DEBIAN_MIRROR"):
        mirror.address()


def test_no_keyring(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mirror, "KEYRING", tmp_path / "none.gpg")
    with pytest.raises(HostProblem, match="install the package 'debian-archive-keyring'"):
        mirror.source("http://a", SUITE)


def test_no_apt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(mirror.VARIABLE, raising=False)
    with pytest.raises(HostProblem, match="install the package 'apt'"):
        mirror.address()
