# SPDX-License-Identifier: Apache-2.0
"""A root file system for guests, made from this host and holding nothing of its users.

It is an initramfs: this Python with its standard library, some packages and programs, the
libraries they are linked with, busybox as everything else, and an init of our own. It is
made once for the same contents: a run compares names, sizes and times of what goes in.

    CACHE/roots/KEY/root.cpio     the archive
    CACHE/roots/KEY/record.json   its digest, and which libraries were found for it

An agent's packages change often and Python seldom, so Python with the programs is an
entry of its own, which the roots begin with.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import marshal
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from vm import elf, manifest, newc, rootfiles, run, store
from vm.errors import HostProblem, UsageProblem
from vm.newc import Entry
from vm.rootfiles import PYTHON, SITE, Input, Kind

__all__ = ["PYTHON", "SITE", "Contents", "GuestRoot", "ensure"]

#: What a guest has besides the contents asked for, if the host has it → why.
_OPTIONAL: Final = {"bpftool": "looks at programs and maps from outside the agent"}

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
#: As distributions have them; whatever lies in the first lies in the second.
_MERGED: Final = {
    "/bin": "/usr/bin",
    "/sbin": "/usr/bin",
    "/usr/sbin": "/usr/bin",
    "/lib": "/usr/lib",
    "/lib64": "/usr/lib64",
}
_FILES: Final = {
    "/etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n"
    b"nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "/etc/group": b"root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "/etc/hosts": b"127.0.0.1 localhost hookproof\n",
}
#: Files of this folder that decide what a root is like.
_RECIPE: Final = (
    "elf.py",
    "guestcode.py",
    "guestinit.c",
    "guestroot.py",
    "newc.py",
    "rootfiles.py",
)
_HERE: Final = Path(__file__).parent
_ARCHIVE: Final = "root.cpio"
_RECORD: Final = "record.json"
_LETTERS: Final = 16
#: Seconds after which an unused root goes when another is made. A run reads it when it
#: boots a kernel that has no saved state yet, at once after asking for it.
_KEPT: Final = 86400.0


@dataclass(frozen=True)
class Contents:
    """What a guest has to have.

    Attributes:
        packages: packages or modules that this Python can import; one with dots comes
            without what else is in the package above it.
        programs: programs of the host, which take the place of busybox's.
    """

    packages: tuple[str, ...]
    programs: tuple[str, ...] = ()


@dataclass(frozen=True)
class GuestRoot:
    """A root in the cache.

    Attributes:
        path: an uncompressed newc cpio archive.
        digest: the SHA-256 (hex) of its content.
    """

    path: Path
    digest: str
    #: Place in the guest → (file of the host, its size, its time in ns).
    libraries: Mapping[str, tuple[str, int, int]] = field(default_factory=dict, repr=False)


def ensure(contents: Contents, say: Callable[[str], None]) -> GuestRoot:
    """The root with these contents, made if it is not in the cache as it would be made now.

    Args:
        contents: what goes in.
        say: is told each line of progress.

    Raises:
        HostProblem: a program, package or library is missing, or the cache cannot be used.
        UsageProblem: a package's source cannot be compiled.
    """
    system = [*rootfiles.interpreter(), *rootfiles.programs(_programs(contents), (*_OPTIONAL,))]
    packages = [each for name in contents.packages for each in rootfiles.package(name)]

    def write_system(out: IO[bytes]) -> dict[str, str]:
        libraries = elf.libraries(_binaries(system))
        newc.write(_system(system, libraries), out)
        return libraries

    def write_root(out: IO[bytes]) -> dict[str, str]:
        base = _cached(_key(system), write_system, "Python for guests", say)
        libraries = {
            place: source
            for place, source in elf.libraries(_binaries(packages)).items()
            if place not in base.libraries
        }
        with base.path.open("rb") as below:
            shutil.copyfileobj(below, out, 1 << 20)
        newc.write([*_packed(packages), *_packed_libraries(libraries)], out)
        return libraries | {place: each[0] for place, each in base.libraries.items()}

    return _cached(_key([*system, *packages]), write_root, "guest root", say)


def _programs(contents: Contents) -> tuple[str, ...]:
    return ("busybox", *contents.programs)


def _key(inputs: Iterable[Input]) -> str:
    recipe = [(_HERE / name).stat() for name in _RECIPE]
    what = (
        sys.version,
        os.environ.get("LD_LIBRARY_PATH"),
        [(stat.st_size, stat.st_mtime_ns) for stat in recipe],
        [(each.place, each.source, each.size, each.time) for each in inputs],
    )
    return hashlib.sha256(repr(what).encode()).hexdigest()[:_LETTERS]


def _cached(
    key: str,
    write: Callable[[IO[bytes]], Mapping[str, str]],
    what: str,
    say: Callable[[str], None],
) -> GuestRoot:
    """An entry of the cache; `write` fills its archive and returns the libraries in it."""
    place = store.folder("roots") / key
    found = _find(place)
    if found is not None:
        return found
    with store.locked(store.lock_of(place), what, say):
        found = _find(place)  # another process may have made it while we waited
        if found is None:
            start = time.monotonic()
            try:
                with store.replacing(place) as new:
                    with (new / _ARCHIVE).open("wb") as out:
                        libraries = write(out)
                    record = {
                        "digest": manifest.digest(new / _ARCHIVE),
                        "archive": _state(new / _ARCHIVE),
                        "libraries": {
                            place: (source, *_state(Path(source)))
                            for place, source in libraries.items()
                        },
                    }
                    (new / _RECORD).write_text(json.dumps(record), encoding="utf-8")
            except OSError as error:
                reason = f"the {what} cannot be written: {error.strerror}"
                raise HostProblem(reason, where=str(place), hint="set HOOKPROOF_CACHE") from None
            found = _find(place)
            if found is None:
                raise HostProblem(f"the {what} changed while it was written", hint="try again")
            size = found.path.stat().st_size / 1e6
            say(f"{what}: made in {time.monotonic() - start:.1f} s, {size:.0f} MB")
            _clean(place)
    return found


def _find(place: Path) -> GuestRoot | None:
    """An entry, if it is whole and the host's libraries are those in it."""
    try:
        record: dict[str, Any] = json.loads((place / _RECORD).read_text(encoding="utf-8"))
        states = [(record["archive"], _state(place / _ARCHIVE))]
        states += [(each[1:], _state(Path(each[0]))) for each in record["libraries"].values()]
        if any(then != now for then, now in states):
            return None
        os.utime(place)
        return GuestRoot(place / _ARCHIVE, record["digest"], record["libraries"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _state(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _clean(keep: Path) -> None:
    """Removes the roots that nobody has asked for in a while."""
    for path in keep.parent.iterdir():
        # Another process may be doing the same.
        with contextlib.suppress(OSError):
            old = time.time() - path.stat().st_mtime > _KEPT
            if old and path != keep and not path.name.startswith("."):
                shutil.rmtree(path)


def _binaries(inputs: Iterable[Input]) -> list[str]:
    return [each.source for each in inputs if each.kind is Kind.BINARY]


def _system(inputs: Sequence[Input], libraries: Mapping[str, str]) -> list[Entry]:
    """The entries of the part that all roots have."""
    places = {each.place for each in inputs}
    applets = run.run(["busybox", "--list"], timeout=30).stdout.split()
    names = [name for each in applets if (name := f"/usr/bin/{each}") not in places]
    entries = [*_packed(inputs), *_packed_libraries(libraries)]
    return [
        *(newc.folder(place, mode) for place, mode in _FOLDERS.items()),
        *(
            newc.link(place, os.path.relpath(target, Path(place).parent))
            for place, target in _MERGED.items()
        ),
        *(newc.folder(target) for target in _MERGED.values()),
        *(newc.file(place, data) for place, data in _FILES.items()),
        newc.file("/init", _init(), 0o755),
        # Hard links: a path is what the kernel says it is, and that of a program that a
        # scenario runs has to be the program's own.
        *(
            newc.file(each.place, each.data, 0o755, names)
            if each.place == "/usr/bin/busybox"
            else each
            for each in entries
        ),
    ]


def _packed(inputs: Sequence[Input]) -> list[Entry]:
    code = [each for each in inputs if each.kind is Kind.CODE]
    binaries = [each for each in inputs if each.kind is Kind.BINARY]
    return [
        *(
            newc.file(f"{each.place}c", data)
            for each, data in zip(code, _compiled(code), strict=True)
        ),
        *(
            newc.file(_merged(each.place), data, 0o755)
            for each, data in zip(
                binaries, elf.portable([each.source for each in binaries]), strict=True
            )
        ),
        *(
            newc.file(each.place, Path(each.source).read_bytes())
            for each in inputs
            if each.kind is Kind.DATA
        ),
    ]


def _packed_libraries(libraries: Mapping[str, str]) -> list[Entry]:
    contents = elf.portable([*libraries.values()])
    return [
        newc.file(_merged(place), data, 0o755)
        for place, data in zip(libraries, contents, strict=True)
    ]


def _merged(place: str) -> str:
    for old, new in _MERGED.items():
        if place.startswith(f"{old}/"):
            return new + place.removeprefix(old)
    return place


def _compiled(code: Sequence[Input]) -> list[bytes]:
    with tempfile.TemporaryDirectory(prefix="hookproof-") as folder:
        wanted, made = Path(folder) / "list", Path(folder) / "made"
        wanted.write_text(json.dumps([(each.source, each.place) for each in code]), "utf-8")
        run.run(
            [
                sys.executable,
                "-S",
                "-s",
                "-P",
                "-W",
                "ignore",
                _HERE / "guestcode.py",
                wanted,
                made,
            ],
            timeout=120,
            env={"PYTHONHASHSEED": "0"},
            problem=UsageProblem,
            what="a package for the guest cannot be compiled",
        )
        compiled: list[bytes] = marshal.loads(made.read_bytes())  # noqa: S302  our own child's
        return compiled


def _init() -> bytes:
    with tempfile.TemporaryDirectory(prefix="hookproof-") as folder:
        made = Path(folder) / "init"
        run.run(
            ["gcc", "-Os", "-Wall", "-s", "-o", made, _HERE / "guestinit.c"],
            timeout=120,
            what="the guest's init cannot be compiled",
        )
        return made.read_bytes()
