# SPDX-License-Identifier: Apache-2.0
"""Which kernels of the cache nobody needs any more.

A newer point release is an entry beside the old one, which stays. A cache may serve several
projects, so an entry that one of them does not name may be another's: each use leaves its
time in the entry (the file `used`), and only what was not used for long is to go.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vm import manifest, store

#: Days without use after which an entry may go.
DAYS: Final = 30
USED: Final = "used"
_DAY: Final = 24 * 3600.0


@dataclass(frozen=True)
class Entry:
    """A kernel of the cache that is not named.

    Attributes:
        place: its folder.
        size: bytes on the disk.
        idle: days since its last use.
    """

    place: Path
    size: int
    idle: float


def mark(place: Path) -> None:
    """Notes that an entry is used now; does nothing if it is not there yet."""
    # A cache that one may only read is pruned by those who write it.
    with contextlib.suppress(OSError):
        (place / USED).touch()


def unnamed(named: Collection[Path]) -> list[Entry]:
    """The entries of the cache that are not among the named, longest unused first."""
    found = []
    for part in ("images", "local"):
        for place in (store.root() / part).glob("[!.]*"):
            if place not in named and place.is_dir():
                # Somebody else may be removing it.
                with contextlib.suppress(FileNotFoundError):
                    found.append(Entry(place, _size(place), _idle(place)))
    return sorted(found, key=lambda entry: (-entry.idle, entry.place))


def _idle(place: Path) -> float:
    """Days since the last use; an entry that was never used again counts from its making."""
    for path in (place / USED, place / manifest.NAME, place):
        with contextlib.suppress(FileNotFoundError):
            return max(0.0, time.time() - path.stat().st_mtime) / _DAY
    raise FileNotFoundError(place)


def _size(place: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in place.rglob("*"))
