# SPDX-License-Identifier: Apache-2.0
"""What a package can and cannot do when it is unpacked."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from tests.aptrepo import vmlinuz
from vm.errors import FetchProblem
from vm.parts import Part
from vm.unpack import unpack

RELEASE = "6.12.9-amd64"
ALL: tuple[Part, ...] = ("vmlinuz", "config", "modules")
HOME = f"./usr/lib/modules/{RELEASE}"
GOOD = {
    f"./boot/vmlinuz-{RELEASE}": vmlinuz(RELEASE),
    f"./boot/config-{RELEASE}": b"CONFIG_A=y\n",
    f"{HOME}/kernel/a.ko": b"a",
}


def tar(members: dict[str, bytes], links: dict[str, tuple[bytes, str]] | None = None) -> bytes:
    """A tar archive of files, and of links as name → (type, target)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name, (kind, target) in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            made.addfile(info)
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return out.getvalue()


def deb(folder: Path, data: bytes) -> Path:
    """A package written by hand, since dpkg-deb would refuse to build a hostile one."""
    control = b"Package: a\nVersion: 1\nArchitecture: amd64\nMaintainer: a <a@a>\nDescription: a\n"
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar": tar({"./control": control}),
        "data.tar": data,
    }
    path = folder / "a.deb"
    with path.open("wb") as out:
        out.write(b"!<arch>\n")
        for name, part in parts.items():
            out.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(part):<10}`\n".encode())
            out.write(part + b"\n" * (len(part) % 2))
    return path


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


@pytest.fixture
def into(tmp_path: Path) -> Path:
    path = tmp_path / "deep" / "er" / "into"
    path.mkdir(parents=True)
    return path


def test_writes_only_below_its_folder(tmp_path: Path, into: Path) -> None:
    hostile = {
        "../../evil": b"1",
        f"{HOME}/kernel/../../../../../../../evil.ko": b"2",
        f"/boot/../../../vmlinuz-{RELEASE}": b"3",
        "/etc/evil": b"4",
        f"{HOME}/kernel/run.sh": b"5",
    }
    links = {
        f"{HOME}/build": (tarfile.SYMTYPE, "/etc"),
        f"{HOME}/kernel/link.ko": (tarfile.SYMTYPE, "/etc/passwd"),
        f"{HOME}/kernel/hard.ko": (tarfile.LNKTYPE, "/etc/passwd"),
        f"{HOME}/kernel/fifo.ko": (tarfile.FIFOTYPE, ""),
    }
    unpack([deb(tmp_path, tar(GOOD | hostile, links))], RELEASE, ALL, into)
    there = files(tmp_path)
    assert not [path for path in there if "evil" in path]
    modules = {path for path in files(into) if ".ko" in path}
    assert modules == {f"lib/modules/{RELEASE}/kernel/a.ko"}
    assert files(into / "boot") == {f"vmlinuz-{RELEASE}", f"config-{RELEASE}"}


def test_a_link_cannot_stand_where_a_file_will_be_written(tmp_path: Path, into: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("mine")
    links = {f"./boot/config-{RELEASE}": (tarfile.SYMTYPE, str(target))}
    unpack([deb(tmp_path, tar(GOOD, links))], RELEASE, ALL, into)
    assert target.read_text() == "mine"
    assert not (into / "boot" / f"config-{RELEASE}").is_symlink()


def test_removes_packages_once_unpacked(tmp_path: Path, into: Path) -> None:
    package = deb(tmp_path, tar(GOOD))
    unpack([package], RELEASE, ALL, into)
    assert not package.exists()


def test_what_was_not_to_come_is_not_missed(tmp_path: Path, into: Path) -> None:
    only = dict(list(GOOD.items())[:1])
    unpack([deb(tmp_path, tar(only))], RELEASE, ["vmlinuz"], into)
    assert files(into) == {f"boot/vmlinuz-{RELEASE}", "SHA256SUMS"}
    # Else virtme-run would look further up and take the host's.
    assert list((into / "lib" / "modules").iterdir()) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no tar at all" * 100, "dpkg-deb|damaged"),
        (tar({"./usr/share/doc/a": b""}), "hold no vmlinuz"),
        (tar(dict(list(GOOD.items())[:1])), "hold no config"),
        (tar(dict(list(GOOD.items())[:2])), "hold no modules"),
    ],
)
def test_a_package_that_is_no_kernel(tmp_path: Path, into: Path, data: bytes, message: str) -> None:
    with pytest.raises(FetchProblem, match=message):
        unpack([deb(tmp_path, data)], RELEASE, ALL, into)


def test_a_file_that_is_no_package(tmp_path: Path, into: Path) -> None:
    path = tmp_path / "a.deb"
    path.write_bytes(b"x" * 1000)
    with pytest.raises(FetchProblem) as caught:
        unpack([path], RELEASE, ALL, into)
    assert "not a Debian format archive" in str(caught.value)
