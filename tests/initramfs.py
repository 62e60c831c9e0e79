# SPDX-License-Identifier: Apache-2.0
"""Reads initramfs archives as the kernel does, several in a row."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Member:
    """What an archive says of a path; files with one number are one file."""

    mode: int
    owner: tuple[int, int]
    time: int
    number: int
    names: int
    data: bytes


def read(archive: bytes) -> dict[str, Member]:
    """Path → what the archives say of it, the last word counting."""
    found: dict[str, Member] = {}
    at = 0
    while (start := archive.find(b"070701", at)) >= 0:
        assert not archive[at:start].strip(b"\0"), "only zeros may stand between archives"
        fields = [int(archive[start + at : start + at + 8], 16) for at in range(6, 110, 8)]
        number, mode, uid, gid, names, time, size, *_, length, _ = fields
        name = archive[start + 110 : start + 109 + length].decode()
        body = (start + 110 + length + 3) // 4 * 4
        at = (body + size + 3) // 4 * 4
        if name != "TRAILER!!!":
            assert name not in found or stat.S_ISDIR(mode), f"{name} is there twice"
            data = archive[body : body + size]
            found[name] = Member(mode, (uid, gid), time, number, names, data)
    return found


def lay_out(members: dict[str, Member], into: Path) -> None:
    """Makes the files, links and folders below a folder."""
    first: dict[int, Path] = {}
    for name, member in members.items():
        path = into / name
        if stat.S_ISDIR(member.mode):
            path.mkdir(mode=stat.S_IMODE(member.mode), exist_ok=True)
        elif stat.S_ISLNK(member.mode):
            path.symlink_to(member.data.decode())
        elif member.names > 1 and member.number in first:
            os.link(first[member.number], path)
        else:
            path.write_bytes(member.data)
            path.chmod(stat.S_IMODE(member.mode))
            first[member.number] = path
