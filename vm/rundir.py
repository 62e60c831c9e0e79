# SPDX-License-Identifier: Apache-2.0
"""The folder of one run of one machine: keys, initramfs, and nothing that stays.

Its owner holds a lock on it for as long as it lives. The guardian of QEMU removes it
(vm/qemu.py); what even the guardian could not (a host that crashed, a guardian that was
killed) is removed by the next machine that starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from vm import store
from vm.errors import HostProblem

_PLAIN: Final = re.compile(r"[\w/.,+@:=~-]+", re.ASCII)


@contextlib.contextmanager
def create() -> Iterator[Path]:
    """A new folder (mode 0700), locked while the block runs and gone after it."""
    sweep()
    parent = store.folder("run").resolve()
    if not _PLAIN.fullmatch(str(parent)):
        what = "this path holds a space, a quote or the like, which a kernel's command line can't"
        raise HostProblem(what, where=str(parent), hint="set HOOKPROOF_CACHE to another folder")
    with _locked(parent):  # or a sweep elsewhere could see the folder before its lock
        folder = Path(tempfile.mkdtemp(dir=parent))
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        os.close(handle)
        shutil.rmtree(folder, ignore_errors=True)  # the guardian may have been first


def sweep() -> None:
    """Removes the folders of owners that are gone, and a QEMU that still runs from one."""
    parent = store.folder("run")
    with _locked(parent):
        for folder in parent.iterdir():
            with contextlib.suppress(OSError), _unowned(folder) as stale:
                if stale:
                    _kill_left_over(folder)
                    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _unowned(folder: Path) -> Iterator[bool]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(handle)


def _kill_left_over(folder: Path) -> None:
    """Kills the process group in qemu.pid if that process really runs from this folder."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((folder / "qemu.pid").read_text(encoding="ascii"))
        if str(folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.killpg(pid, signal.SIGKILL)
