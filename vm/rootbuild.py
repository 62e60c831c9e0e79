# SPDX-License-Identifier: Apache-2.0
"""A guest root's files as entries of an archive: compiled, stripped, put in their places."""

from __future__ import annotations

import json
import marshal
import os
import sys
import tempfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

from vm import elf, newc, run
from vm.errors import HostProblem, UsageProblem
from vm.newc import Entry
from vm.rootfiles import Input, Kind

_HERE: Final = Path(__file__).parent
_TIMEOUT: Final = 120.0
BUSYBOX: Final = "/usr/bin/busybox"

_FOLDERS: Final = {
    "/dev": 0o755,
    "/proc": 0o555,
    "/sys": 0o555,
    "/run": 0o755,
    "/tmp": 0o1777,  # noqa: S108  the guest's
    "/var/tmp": 0o1777,  # noqa: S108
    "/root": 0o700,
    "/mnt": 0o755,
    "/modules": 0o755,
}
#: As distributions have them: a link to the folder where all of it lies.
_MERGED: Final = {
    "/bin": "/usr/bin",
    "/sbin": "/usr/bin",
    "/usr/sbin": "/usr/bin",
    "/lib": "/usr/lib",
    "/lib64": "/usr/lib64",
}
_FILES: Final = {
    "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "/etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "/etc/hosts": "127.0.0.1 localhost\n",
}


def skeleton() -> list[Entry]:
    """What a root has before anything is put into it: folders, links, accounts, init.

    Raises:
        HostProblem: gcc is missing or failed.
    """
    return [
        *(newc.folder(place, mode) for place, mode in _FOLDERS.items()),
        *(newc.folder(place) for place in sorted({*_MERGED.values()})),
        *(
            newc.link(place, os.path.relpath(target, Path(place).parent))
            for place, target in _MERGED.items()
        ),
        *(newc.file(place, text.encode()) for place, text in _FILES.items()),
        newc.file("/init", _init(), 0o755),
    ]


def libraries(inputs: Iterable[Input], without: Collection[str] = ()) -> list[Input]:
    """The libraries that the binaries among some files are linked with.

    Args:
        inputs: the files.
        without: places in the guest that are taken.

    Raises:
        HostProblem: one is missing.
    """
    found = elf.libraries([each.source for each in inputs if each.kind is Kind.BINARY])
    return [
        Input.of(place, source, Kind.BINARY)
        for place, source in ((_merged(place), source) for place, source in found.items())
        if place not in without
    ]


def entries(inputs: Iterable[Input]) -> list[Entry]:
    """The files as they are packed.

    Raises:
        HostProblem: a program that this takes is missing or failed.
        UsageProblem: a source cannot be compiled.
        OSError: a file cannot be read.
    """
    of_kind: dict[Kind, list[Input]] = {kind: [] for kind in Kind}
    for each in inputs:
        of_kind[each.kind].append(each)
    code, binaries, data = (of_kind[kind] for kind in (Kind.CODE, Kind.BINARY, Kind.DATA))
    taken = {each.place for each in binaries}
    return [
        *(
            newc.file(f"{each.place}c", compiled)
            for each, compiled in zip(code, _compiled(code), strict=True)
        ),
        *(
            newc.file(each.place, content, 0o755, _applets(taken) if each.place == BUSYBOX else ())
            for each, content in zip(
                binaries, elf.portable([each.source for each in binaries]), strict=True
            )
        ),
        *(newc.file(each.place, Path(each.source).read_bytes()) for each in data),
    ]


def _merged(place: str) -> str:
    for link, target in _MERGED.items():
        if place.startswith(f"{link}/"):
            return target + place.removeprefix(link)
    return place


def _applets(taken: Collection[str]) -> list[str]:
    """The names busybox goes by, unless there is a program of the name.

    They are hard links: scenarios name a program by its path, and that which the kernel
    finds behind a symbolic link would be busybox's.
    """
    names = run.run(["busybox", "--list"], timeout=_TIMEOUT).stdout.split()
    return sorted({f"/usr/bin/{name}" for name in names} - {*taken})


def _compiled(code: Sequence[Input]) -> list[bytes]:
    with tempfile.TemporaryDirectory(prefix="hookproof-") as folder:
        sources, made = Path(folder) / "sources", Path(folder) / "made"
        sources.write_text(json.dumps([(each.source, each.place) for each in code]), "utf-8")
        program = [sys.executable, "-S", "-s", "-P", "-W", "ignore", str(_HERE / "guestcode.py")]
        done = run.run(
            [*program, sources, made],
            timeout=_TIMEOUT,
            env={"PYTHONHASHSEED": "0"},
            what="Python's sources cannot be compiled",
            ok=(0, 1),
        )
        if done.returncode:
            raise UsageProblem(run.reason(done.stderr), hint="mend it; it is packed for the guest")
        compiled: list[bytes] = marshal.loads(made.read_bytes())  # noqa: S302  our own child's
        return compiled


def _init() -> bytes:
    with tempfile.TemporaryDirectory(prefix="hookproof-") as folder:
        made = Path(folder) / "init"
        run.run(
            ["gcc", "-Os", "-Wall", "-s", "-o", made, _HERE / "guestinit.c"],
            timeout=_TIMEOUT,
            problem=HostProblem,
            what="the guest's init cannot be compiled",
        )
        return made.read_bytes()
