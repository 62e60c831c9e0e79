# SPDX-License-Identifier: Apache-2.0
"""Archives for the kernel: what was put in comes out, in one way of writing it."""

from __future__ import annotations

import io
import random
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests import initramfs
from vm import newc
from vm.newc import Entry

ENTRIES = (
    newc.file("/usr/bin/tool", b"odd length.", 0o755, names=("/usr/bin/b", "/usr/bin/a")),
    newc.file("/usr/bin/other", b"another", 0o755, names=("/usr/bin/c",)),
    newc.file("/etc/empty", b""),
    newc.folder("/tmp", 0o1777),  # noqa: S108
    newc.link("/bin", "usr/bin"),
)


def written(*entries: Entry) -> bytes:
    out = io.BytesIO()
    newc.write(entries, out)
    return out.getvalue()


def test_what_was_put_in_comes_out() -> None:
    members = initramfs.read(written(*ENTRIES))
    assert members["usr/bin/tool"].data == b"odd length."
    assert stat.S_IMODE(members["usr/bin/tool"].mode) == 0o755
    assert members["tmp"].mode == stat.S_IFDIR | 0o1777
    assert members["bin"].mode == stat.S_IFLNK | 0o777
    assert members["bin"].data == b"usr/bin"
    assert {(member.owner, member.time) for member in members.values()} == {((0, 0), 0)}


def test_the_folders_above_come_first() -> None:
    names = [*initramfs.read(written(newc.file("/a/b/c", b"")))]
    assert names == ["a", "a/b", "a/b/c"]


def test_names_of_one_file_share_its_number_and_no_other_file_does() -> None:
    members = initramfs.read(written(*ENTRIES))
    tool = {members[f"usr/bin/{name}"].number for name in ("tool", "a", "b")}
    other = {members[f"usr/bin/{name}"].number for name in ("other", "c")}
    assert len(tool) == len(other) == 1
    assert tool != other
    assert members["usr/bin/a"].names == 3
    assert members["usr/bin/c"].names == 2


def test_the_order_of_entries_does_not_matter() -> None:
    shuffled = list(ENTRIES)
    random.Random(7).shuffle(shuffled)  # noqa: S311  not a secret
    assert shuffled != list(ENTRIES)
    assert written(*shuffled) == written(*ENTRIES)


def test_archives_may_follow_one_another() -> None:
    both = written(*ENTRIES) + written(newc.file("/modules/00-a.ko", b"module"))
    assert initramfs.read(both)["modules/00-a.ko"].data == b"module"
    assert initramfs.read(both)["etc/empty"].data == b""


@pytest.mark.skipif(not shutil.which("cpio"), reason="the program cpio is not installed")
def test_another_reader_agrees(tmp_path: Path) -> None:
    subprocess.run(["cpio", "-id", "--quiet"], cwd=tmp_path, input=written(*ENTRIES), check=True)
    for name in ("tool", "a", "b"):
        assert (tmp_path / "bin" / name).read_bytes() == b"odd length."
