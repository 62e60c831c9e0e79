# SPDX-License-Identifier: Apache-2.0
"""What an unpacked kernel must consist of, and whether it still does.

`manifest.json` in an entry lists each file with size and SHA-256. Reading 100 MB of
modules before each boot would be slow, so the quick check reads the three files that a
boot stands on, and compares the others' names, sizes and modification times with those
they had when their SHA-256 was last seen to be right (the file `checked`). A difference
there is settled by SHA-256, so a cache that was copied is good again after one slow check.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

NAME = "manifest.json"
CHECKED = "checked"


@dataclass(frozen=True)
class Entry:
    """Size in bytes and SHA-256 in hex of one file."""

    size: int
    sha256: str


def write(place: Path, files: Mapping[str, Entry]) -> None:
    """Writes the manifest of an entry whose files have just been written.

    Args:
        place: the entry's folder.
        files: path below it → what the file holds.

    Raises:
        OSError: from the file system.
    """
    lines = {path: [files[path].size, files[path].sha256] for path in sorted(files)}
    with (place / NAME).open("w", encoding="utf-8") as out:
        json.dump(lines, out, indent=0)
        out.flush()
        os.fsync(out.fileno())


def quick(place: Path, release: str) -> list[str]:
    """The problems that a check without reading the modules finds; none is `[]`."""
    try:
        files = _read(place)
    except (OSError, ValueError) as error:
        return [_unreadable(error)]
    first = (
        f"boot/vmlinuz-{release}",
        f"boot/config-{release}",
        f"lib/modules/{release}/modules.dep",
    )
    problems = [f"{path}: not in {NAME}" for path in first if path not in files]
    problems += _compare(place, {path: files[path] for path in first if path in files})
    if problems:
        return problems
    with contextlib.suppress(OSError):
        if (place / CHECKED).read_text() == fingerprint(place / "lib"):
            return []
    return full(place)


def full(place: Path) -> list[str]:
    """The problems that reading every file finds; none is `[]`.

    Remembers the verdict for `quick`: a damaged entry will not pass there either.
    """
    try:
        files = _read(place)
    except (OSError, ValueError) as error:
        return [_unreadable(error)]
    try:
        before = fingerprint(place / "lib")
        strange = [path for path, _ in _walk(place / "lib", "lib/") if path not in files]
    except OSError as error:
        return [f"lib: {error.strerror}"]
    problems = _compare(place, files)
    problems += [f"{path}: does not belong there" for path in strange]
    # A cache that one may only read is checked the slow way each time.
    with contextlib.suppress(OSError):
        if problems:
            (place / CHECKED).unlink(missing_ok=True)
        else:
            new = place / f".{CHECKED}-{os.getpid()}"
            new.write_text(before)
            new.replace(place / CHECKED)
    return problems


def digest(path: Path) -> Entry:
    """Size and SHA-256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return Entry(file.tell(), sha256)


def _compare(place: Path, files: Mapping[str, Entry]) -> list[str]:
    problems = []
    for path, expected in files.items():
        try:
            found = digest(place / path)
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
            continue
        if found.size != expected.size:
            problems.append(f"{path}: {found.size} bytes, should be {expected.size}")
        elif found.sha256 != expected.sha256:
            problems.append(f"{path}: SHA-256 differs")
    return problems


def _read(place: Path) -> dict[str, Entry]:
    raw = json.loads((place / NAME).read_bytes())
    if not isinstance(raw, dict) or not raw:
        raise ValueError("holds nothing")
    files = {}
    for path, value in raw.items():
        match value:
            case [int(size), str(sha256)]:
                files[path] = Entry(size, sha256)
            case _:
                raise ValueError(f"{path!r} has no size and SHA-256")
    return files


def _unreadable(error: OSError | ValueError) -> str:
    reason = error.strerror if isinstance(error, OSError) else error
    return f"{NAME}: {reason}"


def fingerprint(folder: Path) -> str:
    """A digest over names, sizes and modification times of all files below a folder.

    Raises:
        OSError: it cannot be read.
    """
    seen = sorted((path, stat.st_size, stat.st_mtime_ns) for path, stat in _walk(folder))
    return hashlib.sha256(repr(seen).encode()).hexdigest()


def _walk(folder: Path, prefix: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """All that is below a folder and is no folder: relative path and stat, links not followed."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/")
            else:
                yield f"{prefix}{entry.name}", entry.stat(follow_symlinks=False)
