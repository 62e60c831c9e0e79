# SPDX-License-Identifier: Apache-2.0
"""The cache: folders that appear whole or not at all, under two processes at once.

An entry is made in a temporary folder beside its place, under a file lock of its own, and
renamed. The kernel drops a lock with its owner, so what a killed process leaves is an
unlocked temporary, and the next command removes it.

    CACHE/apt/SUITE/              private apt roots
    CACHE/images/KEY/             entries; the key includes their digest
    CACHE/images/.new-KEY         being made    } only while .lock-KEY is held
    CACHE/images/.old-KEY         being removed }
    CACHE/logs/KEY.log            what a build said (vm/kbuild.py), written anew by the next
    CACHE/roots/KEY/              guest roots (vm/guestroot.py), in the same way
    CACHE/saved/KEY/              saved machines (vm/saved.py), in the same way
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from vm.errors import FetchProblem, HostProblem

#: Seconds somebody else may take for the same kernel before we give up.
PATIENCE = 1800.0
_POLL = 0.1
_TEMPORARY = (".new-", ".old-", ".lock-")


def root() -> Path:
    """The cache's folder: $HOOKPROOF_CACHE, or `hookproof` in the user's cache folder.

    Raises:
        HostProblem: neither is set and there is no home.
    """
    own = os.environ.get("HOOKPROOF_CACHE")
    if own:
        return Path(own).absolute()
    user = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification: a relative path there is to be ignored.
    if Path(user).is_absolute():
        return Path(user) / "hookproof"
    try:
        return Path.home() / ".cache" / "hookproof"
    except RuntimeError:
        raise HostProblem("there is no home folder", hint="set HOOKPROOF_CACHE") from None


def folder(*parts: str) -> Path:
    """A folder of the cache, made if it is not there.

    Raises:
        HostProblem: it cannot be made.
    """
    path = root().joinpath(*parts)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"the cache cannot be used: {error.strerror}"
        raise HostProblem(reason, where=str(path), hint="set HOOKPROOF_CACHE") from None
    return path


@contextlib.contextmanager
def locked(
    path: Path, subject: str, say: Callable[[str], None], patience: float | None = None
) -> Iterator[None]:
    """Holds a file lock; waits, and says so, while somebody else has it.

    Args:
        path: the lock's file; removed at the end.
        subject: what is being done, for the words.
        say: is told once that we wait.
        patience: seconds that the other one may take; `PATIENCE` if left out.

    Raises:
        FetchProblem: the other one did not finish within these.
        HostProblem: the file cannot be made.
    """
    patience = PATIENCE if patience is None else patience
    deadline = time.monotonic() + patience
    told = False
    while (fd := _try_lock(path)) is None:
        if not told:
            say(f"{subject}: waiting for another process{_holder(path)} to finish it")
            told = True
        if time.monotonic() > deadline:
            raise FetchProblem(
                f"{subject}: another process{_holder(path)} holds the lock since {patience:.0f} s",
                where=str(path),
                hint="end that process and try again",
            )
        time.sleep(_POLL)
    try:
        yield
    finally:
        # Removed while held: whoever opened it meanwhile sees it is gone and tries anew.
        path.unlink(missing_ok=True)
        os.close(fd)


@contextlib.contextmanager
def replacing(place: Path) -> Iterator[Path]:
    """Gives a fresh temporary folder that takes the place's name at the end of the block.

    The caller holds the place's lock. If the block fails, the temporary is removed and
    the place is as it was.

    Raises:
        OSError: from the file system, such as ENOSPC.
    """
    new, old = (place.with_name(prefix + place.name) for prefix in (".new-", ".old-"))
    for left in (new, old):
        _remove(left)
    new.mkdir()
    try:
        yield new
        _sync(new)
        with contextlib.suppress(FileNotFoundError):
            place.rename(old)
        new.rename(place)
        _sync(place.parent)
    finally:
        _remove(new)
        _remove(old)


def lock_of(place: Path) -> Path:
    """The file whose lock guards an entry."""
    return place.with_name(".lock-" + place.name)


def sweep() -> None:
    """Removes what killed processes left in the cache; leaves what is being worked on."""
    for part in ("apt", "images", "local", "roots", "saved", "vmlinux"):
        where = root() / part
        # A cache that one may only read cannot be swept, and can be used all the same.
        with contextlib.suppress(HostProblem, OSError):
            names = [path.name for path in where.iterdir() if path.name.startswith(_TEMPORARY)]
            for key in {name.split("-", 1)[1] for name in names}:
                _sweep(where, key)


def remove(place: Path) -> bool:
    """Removes an entry, whole or not at all; False if somebody works on it.

    Raises:
        HostProblem: it cannot be removed.
    """
    fd = _try_lock(lock_of(place))
    if fd is None:
        return False
    old = place.with_name(".old-" + place.name)
    try:
        _remove(old)
        with contextlib.suppress(FileNotFoundError):
            place.rename(old)
        _remove(old)
    except OSError as error:
        reason = f"cannot be removed: {error.strerror}"
        raise HostProblem(reason, where=str(place)) from None
    finally:
        lock_of(place).unlink(missing_ok=True)
        os.close(fd)
    return True


def expire(part: str, seconds: float) -> None:
    """Removes the entries of a part of the cache whose folders nobody touched for that long."""
    for place in (root() / part).glob("[!.]*"):
        # Another process may be removing it.
        with contextlib.suppress(OSError, HostProblem):
            if time.time() - place.stat().st_mtime > seconds:
                remove(place)


def _sweep(where: Path, key: str) -> None:
    lock = where / f".lock-{key}"
    fd = _try_lock(lock)
    if fd is None:
        return
    try:
        for prefix in (".new-", ".old-"):
            _remove(where / f"{prefix}{key}")
        lock.unlink(missing_ok=True)
    finally:
        os.close(fd)


def _try_lock(path: Path) -> int | None:
    """An open descriptor that holds the lock of the file *now* at that path, or None."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        reason = f"the cache cannot be written: {error.strerror}"
        raise HostProblem(reason, where=str(path), hint="set HOOKPROOF_CACHE") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), path.stat()):
            os.ftruncate(fd, 0)
            os.write(fd, f"{os.getpid()}\n".encode())
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return f" ({int(path.read_text())})"
    return ""


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
