# SPDX-License-Identifier: Apache-2.0
"""kernels.lock: what is written is read again, and anything else is refused."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from vm import catalog, lockfile
from vm.errors import UsageProblem
from vm.lockfile import Locked, Package

ROOT = Path(__file__).parent.parent
LOCKED = Locked(
    "debian:trixie/6.12.*",
    "6.12.9-1",
    "6.12.9+deb13-amd64",
    (Package("linux-image-6.12.9+deb13-amd64", "6.12.9-1", 1000, "ab" * 32),),
)


def test_the_projects_own_lock_fits_its_list() -> None:
    locked = lockfile.read(ROOT / "kernels.lock")
    listed = {
        kernel.name: kernel.archived
        for kernel in catalog.read(ROOT / "kernels.txt")
        if kernel.archived
    }
    assert {name: entry.source for name, entry in locked.items()} == listed
    assert not re.search(r"https?:|\.(?:org|net|com)\b", (ROOT / "kernels.lock").read_text())


def test_reads_what_it_wrote_in_a_stable_order(tmp_path: Path) -> None:
    path = tmp_path / "kernels.lock"
    lockfile.write(path, {"7.3": LOCKED, "6.12": LOCKED})
    first = path.read_bytes()
    assert list(lockfile.read(path).items()) == [("6.12", LOCKED), ("7.3", LOCKED)]
    lockfile.write(path, {"6.12": LOCKED, "7.3": LOCKED})
    assert path.read_bytes() == first
    assert os.listdir(tmp_path) == ["kernels.lock"]  # noqa: PTH208  names are enough


def test_a_missing_file_locks_nothing(tmp_path: Path) -> None:
    assert lockfile.read(tmp_path / "kernels.lock") == {}


def test_the_digest_is_of_the_packages_content() -> None:
    (package,) = LOCKED.packages
    other = Package(package.name, package.version, package.size, "cd" * 32)
    changed = Locked(LOCKED.source, LOCKED.version, LOCKED.release, (other,))
    renamed = Locked("debian:x/y", LOCKED.version, LOCKED.release, LOCKED.packages)
    assert changed.digest != LOCKED.digest == renamed.digest


def good() -> dict[str, Any]:
    package = {"name": "linux-image-1", "version": "1-1", "size": 1, "sha256": "ab" * 32}
    entry = {"source": "debian:a/1", "version": "1-1", "release": "1-amd64", "packages": [package]}
    return {"format": 1, "kernels": {"6.12": entry}}


def test_the_good_example_is_good(tmp_path: Path) -> None:
    path = tmp_path / "kernels.lock"
    path.write_text(json.dumps(good()))
    assert lockfile.read(path)["6.12"].release == "1-amd64"


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("format", 2, "is no lock file of format 1"),
        ("more", 2, "must hold 'format' and 'kernels' and nothing else"),
        ("kernels", [], "must hold 'format' and 'kernels' and nothing else"),
        ("kernels 6.12", 3, "kernel '6.12' must have packages, release, source, version"),
        ("kernels 6.12 more", 3, "kernel '6.12' must have packages, release, source, version"),
        ("kernels 6.12 release", "../../etc", "release '../../etc' of kernel '6.12' cannot be"),
        ("kernels 6.12 release", 6.12, "release 6.12 of kernel '6.12' cannot be"),
        ("kernels 6.12 packages", [], "kernel '6.12' has no packages"),
        ("kernels 6.12 packages 0 name", "-o=x", "name '-o=x' of kernel '6.12' cannot be"),
        ("kernels 6.12 packages 0 version", "1 2", "version '1 2' of kernel '6.12' cannot be"),
        ("kernels 6.12 packages 0 sha256", "ab", "sha256 'ab' of kernel '6.12' cannot be"),
        ("kernels 6.12 packages 0 size", True, "size True of kernel '6.12' is no number of bytes"),
        ("kernels 6.12 packages 0 size", 0, "size 0 of kernel '6.12' is no number of bytes"),
        (
            "kernels 6.12 packages 0 more",
            0,
            "a package of kernel '6.12' must have name, sha256, size, version",
        ),
    ],
)
def test_refuses_another_shape(tmp_path: Path, where: str, value: object, message: str) -> None:
    raw = good()
    *way, last = where.split()
    node: Any = raw
    for key in way:
        node = node[int(key) if isinstance(node, list) else key]
    node[last] = value
    path = tmp_path / "kernels.lock"
    path.write_text(json.dumps(raw))
    with pytest.raises(UsageProblem) as caught:
        lockfile.read(path)
    assert (caught.value.what, caught.value.where) == (message, str(path))
    assert "fetch --update" in caught.value.hint


@pytest.mark.parametrize(
    ("data", "where", "what"),
    [
        (b'{"format": 1,\n "kernels" {}}', ":2:12", "is no JSON"),
        (b"", ":1:1", "is no JSON"),
        (b'{"format": 1, "format": 1}', "", "'format' stands there twice"),
        (b"\xff", "", "is no lock file"),
        (b"[" * 100_000, "", "is no lock file"),
        (b"[]", "", "is no lock file of format 1"),
    ],
)
def test_refuses_what_is_no_lock(tmp_path: Path, data: bytes, where: str, what: str) -> None:
    path = tmp_path / "kernels.lock"
    path.write_bytes(data)
    with pytest.raises(UsageProblem) as caught:
        lockfile.read(path)
    assert caught.value.where == f"{path}{where}"
    assert what in caught.value.what


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="cannot be written: No such file"):
        lockfile.write(tmp_path / "none" / "kernels.lock", {})
