# SPDX-License-Identifier: Apache-2.0
"""The cache of saved machines: whole, checked, used under a lock, limited in size.

    CACHE/saved/KEY/ram         the guest's memory, a sparse file
    CACHE/saved/KEY/state       QEMU's device state
    CACHE/saved/KEY/facts.json  what the key is made of, what was kept, the files' digests
    CACHE/saved/KEY/checked     how the files looked when their digests were last checked

A use is the time of the folder. Whoever uses a state holds a shared lock on its folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vm import store
from vm.errors import HostProblem, UsageProblem

#: Of the files below; a change makes every older state stale.
FORMAT: Final = 1
LIMIT: Final = "HOOKPROOF_CACHE_LIMIT"
_DEFAULT_LIMIT: Final = 8.0
_LETTERS: Final = 16
_FILES: Final = ("ram", "state")
#: Bytes that are looked at together; zeros are left out of a digest.
_GRANULE: Final = 1 << 16


class Unusable(Exception):  # noqa: N818  a reason to make it, not an error
    """There is no such state, or it is damaged. Its text says how; empty if there is none."""


@dataclass(frozen=True)
class State:
    """A saved machine.

    Attributes:
        place: its folder.
        facts: what was kept with it.
    """

    place: Path
    facts: Mapping[str, Any]

    @property
    def ram(self) -> Path:
        """The guest's memory."""
        return self.place / "ram"

    @property
    def device_state(self) -> Path:
        """All but the memory."""
        return self.place / "state"


def place(release: str, ingredients: Mapping[str, Any]) -> Path:
    """The folder of the state that is made of certain ingredients.

    Args:
        release: the kernel's, for people who look at the cache.
        ingredients: JSON values; all that decides whether a state can be used.
    """
    text = json.dumps({"format": FORMAT, **ingredients}, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return store.folder("saved") / f"{release}-{digest[:_LETTERS]}"


@contextlib.contextmanager
def using(place: Path) -> Iterator[State]:
    """A state, checked, which nobody removes while the block runs.

    Raises:
        Unusable: there is none, or it is damaged.
    """
    try:
        handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        raise Unusable("") from None
    except OSError as error:
        raise Unusable(f"{place}: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        if not _is(place, handle):
            raise Unusable("")  # removed while we waited for the lock
        yield State(place, _checked(place))
    finally:
        os.close(handle)


def describe(new: Path, ingredients: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Writes facts.json beside `ram` and `state`, which are complete."""
    record = {
        "format": FORMAT,
        "made of": ingredients,
        "facts": facts,
        "sha256": {name: _digest(new / name) for name in _FILES},
    }
    (new / "facts.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    _note(new)


def discard(place: Path) -> None:
    """Removes a state, unless somebody uses it or makes it anew."""
    with contextlib.suppress(OSError, HostProblem):
        handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            store.remove(place)
        finally:
            os.close(handle)


def trim(keep: Path, say: Callable[[str], None]) -> None:
    """Removes the states that were not used for longest, until all fit into the limit.

    Args:
        keep: one that stays in any case.
        say: is told what is removed.

    Raises:
        UsageProblem: $HOOKPROOF_CACHE_LIMIT is no number.
    """
    allowed = limit()
    states = []
    for path in keep.parent.iterdir():
        with contextlib.suppress(OSError):
            if not path.name.startswith("."):
                states.append((path.stat().st_mtime_ns, path, size(path)))
    total = sum(each for _, _, each in states)
    for _, path, each in sorted(states):
        if total <= allowed:
            break
        if path != keep:
            discard(path)
            if not path.exists():
                total -= each
                say(f"{path.name}: saved state removed, as all take more than {LIMIT}")


def limit() -> float:
    """Bytes that all states may take: $HOOKPROOF_CACHE_LIMIT in GiB, or 8 GiB.

    Raises:
        UsageProblem: it is no number.
    """
    text = os.environ.get(LIMIT) or str(_DEFAULT_LIMIT)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value >= 0:
        what = f"{LIMIT}={text} is no number of GiB"
        raise UsageProblem(what, hint=f"set it to {_DEFAULT_LIMIT:.0f}, or unset it")
    return value * (1 << 30)


def size(place: Path) -> int:
    """Bytes that a state takes on the disk."""
    return sum(path.stat().st_blocks * 512 for path in place.iterdir())


def _is(place: Path, handle: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), place.stat())
    return False


def _checked(place: Path) -> Mapping[str, Any]:
    """A state's facts.

    Whoever changes a file changes its times. What does not, such as a host that crashed
    before all was on the disk, is found by the digests, which are compared once per boot of
    the host: 300 MB take half a second.
    """
    try:
        record = json.loads((place / "facts.json").read_text(encoding="utf-8"))
        facts, digests = record["facts"], record["sha256"]
        if record["format"] != FORMAT or not isinstance(facts, dict):
            raise Unusable("facts.json has another format")
        looks = _looks(place)
        if _noted(place) != looks:
            for name in _FILES:
                if _digest(place / name) != digests[name]:
                    raise Unusable(f"{name} was changed")
            _note(place)
        with contextlib.suppress(OSError):  # a cache that one may only read
            os.utime(place)
    except OSError as error:
        raise Unusable(f"{error.filename}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise Unusable("facts.json is not whole") from None
    return facts


def _looks(place: Path) -> list[Any]:
    """What tells without reading that the files are those that were checked."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    stats = [(place / name).stat() for name in _FILES]
    return [boot, *([each.st_ino, each.st_size, each.st_mtime_ns] for each in stats)]


def _noted(place: Path) -> object:
    with contextlib.suppress(OSError, ValueError):
        return json.loads((place / "checked").read_text(encoding="utf-8"))
    return None


def _note(place: Path) -> None:
    with contextlib.suppress(OSError):
        handle, path = tempfile.mkstemp(dir=place)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(_looks(place), file)
        Path(path).replace(place / "checked")


def _digest(path: Path) -> str:
    """SHA-256 (hex) of a file's size, and of each granule that is not all zeros, with its place."""
    found = hashlib.sha256()
    zeros = bytes(_GRANULE)
    with path.open("rb", buffering=0) as file:
        end = os.fstat(file.fileno()).st_size
        found.update(end.to_bytes(8, "little"))
        at = 0
        while (at := _next_data(file.fileno(), at, end)) < end:
            at -= at % _GRANULE
            granule = os.pread(file.fileno(), _GRANULE, at)
            if granule != zeros:
                found.update(at.to_bytes(8, "little"))
                found.update(granule)
            at += _GRANULE
    return found.hexdigest()


def _next_data(handle: int, at: int, end: int) -> int:
    """The next byte that is not in a hole of the file."""
    try:
        return os.lseek(handle, at, os.SEEK_DATA) if at < end else end
    except OSError:  # ENXIO: nothing but a hole is left
        return end
