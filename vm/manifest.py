# SPDX-License-Identifier: Apache-2.0
"""What an unpacked kernel must consist of, and whether it still does.

`SHA256SUMS` in an entry lists every file, in the format of sha256sum. Reading 100 MB of
modules before each boot would be slow, so the quick check reads the few files a boot
stands on, and compares the names, sizes and modification times of the others with those
they had when their SHA-256 was last seen to be right (the file `checked`). A difference
there is settled by SHA-256, so a cache that was copied is good again after one slow check.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

NAME = "SHA256SUMS"
CHECKED = "checked"
_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")


def write(place: Path, files: Mapping[str, str]) -> None:
    """Writes the manifest of an entry whose files have just been written.

    Args:
        place: the entry's folder.
        files: path below it → SHA-256 (hex).

    Raises:
        OSError: from the file system.
    """
    with (place / NAME).open("w", encoding="utf-8") as out:
        out.writelines(f"{files[path]}  {path}\n" for path in sorted(files))
        out.flush()
        os.fsync(out.fileno())


def quick(place: Path, needed: Collection[str]) -> list[str]:
    """The problems that a check without reading the modules finds; none is `[]`.

    Args:
        place: the entry's folder.
        needed: paths below it on which a boot stands; these are read.
    """
    try:
        text = (place / NAME).read_text(encoding="utf-8")
        # Decoding 4,000 lines for a few of them would be a tenth of the whole check.
        files = _parse(line for line in text.splitlines() if "/kernel/" not in line)
        problems = _differences(place, files, needed)
        if not problems and (place / CHECKED).read_text() == _state(place, text):
            return []
    except FileNotFoundError:
        return full(place, needed)
    except (OSError, ValueError) as error:
        return [f"{NAME}: {_reason(error)}"]
    return problems or full(place, needed)


def full(place: Path, needed: Collection[str]) -> list[str]:
    """The problems that reading every file finds; none is `[]`. Arguments as of `quick`.

    Remembers the verdict for `quick`: a damaged entry will not pass there either.
    """
    try:
        text = (place / NAME).read_text(encoding="utf-8")
        # The state from before the files are read, so that a change meanwhile is seen later.
        state = _state(place, text)
        files = _parse(text.splitlines())
        problems = _differences(place, files, dict.fromkeys((*needed, *files)))
        there = {f"lib/{path}" for path, *_ in _walk(place / "lib")}
        problems += [f"{path}: does not belong there" for path in sorted(there - files.keys())]
    except (OSError, ValueError) as error:
        problems = [f"{NAME}: {_reason(error)}"]
    # A cache that one may only read is checked the slow way each time.
    with contextlib.suppress(OSError):
        if problems:
            (place / CHECKED).unlink(missing_ok=True)
        else:
            new = place / f".{CHECKED}-{os.getpid()}"
            new.write_text(state)
            new.replace(place / CHECKED)
    return problems


def digest(path: Path) -> str:
    """The SHA-256 (hex) of a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(folder: Path) -> str:
    """A digest over names, sizes and modification times of all files below a folder.

    Raises:
        OSError: it cannot be read.
    """
    return hashlib.sha256(repr(sorted(_walk(folder))).encode()).hexdigest()


def _state(place: Path, manifest: str) -> str:
    return f"{hashlib.sha256(manifest.encode()).hexdigest()} {fingerprint(place / 'lib')}\n"


def _parse(lines: Iterable[str]) -> dict[str, str]:
    files = {}
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"the line {line[:80]!r} is damaged")
        files[match[2]] = match[1]
    return files


def _differences(place: Path, files: Mapping[str, str], paths: Iterable[str]) -> list[str]:
    problems = []
    for path in paths:
        if path not in files:
            problems.append(f"{path}: not in {NAME}")
            continue
        try:
            if digest(place / path) != files[path]:
                problems.append(f"{path}: SHA-256 differs")
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
    return problems


def _walk(folder: Path) -> list[tuple[str, int, int]]:
    """Of all that is below a folder and is no folder: relative path, size, time in ns.

    Links are not followed. Strings instead of paths, since this runs before each boot.
    """
    found: list[tuple[str, int, int]] = []
    start = len(str(folder)) + 1
    folders = [str(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    stat = entry.stat(follow_symlinks=False)
                    found.append((entry.path[start:], stat.st_size, stat.st_mtime_ns))
    return found


def _reason(error: OSError | ValueError) -> str:
    return str(error.strerror) if isinstance(error, OSError) else str(error)
